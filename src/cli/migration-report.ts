/** What a migration comes to, in words. */
import type { MigrationReport, MigrationState } from '../control/migrations.ts';
import { formatDuration } from './duration.ts';
import { formatSize } from './size.ts';
import { renderFields } from './table.ts';

const count = (number: number) => number.toLocaleString('en');

export function describeState(name: string, state: MigrationState): string {
  const { round, sentBytes, remainingBytes, bytesPerSecond, expectedDowntimeMs, guestShare } = state;
  const known = [
    round === null ? '' : `round ${round}`,
    sentBytes === null ? '' : `${formatSize(sentBytes)} sent`,
    remainingBytes === null ? '' : `${formatSize(remainingBytes)} to go`,
    bytesPerSecond === null ? '' : `${formatSize(bytesPerSecond)}/s`,
    expectedDowntimeMs === null ? '' : `${formatDuration(expectedDowntimeMs)} of downtime expected`,
    guestShare === null || guestShare === 1 ? '' : `the guest slowed to ${Math.round(guestShare * 100)} %`,
  ];
  const after = `${state.status} after ${formatDuration(state.elapsedMs)}`;
  return [`${name}: ${after}`, ...known.filter(Boolean)].join(', ');
}

export function describeReport(name: string, to: string, report: MigrationReport): string {
  const pages = (number: number | null) => (number === null ? [] : [count(number)]);
  const fields: [string, string[]][] = [
    ['downtime', report.downtimeMs === null ? [] : [formatDuration(report.downtimeMs)]],
    ['rounds', [count(report.rounds)]],
    ['transferred', [formatSize(report.bytes)]],
    ['pages sent', pages(report.pages)],
    ['zero pages', pages(report.zeroPages)],
    ['sent again', pages(report.resentPages)],
    ['skipped as free', pages(report.freePages)],
    ['skipped as ballooned', pages(report.balloonPages)],
    ['never backed', pages(report.unbackedPages)],
    ['hint races', pages(report.hintRaces)],
  ];
  const told = fields.flatMap(([name, [value]]): [string, string][] =>
    value === undefined ? [] : [[name, value]],
  );
  return [`${name}: moved to ${to} in ${formatDuration(report.totalMs)}`, ...renderFields(told)].join('\n');
}
