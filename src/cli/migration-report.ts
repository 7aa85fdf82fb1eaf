/** What a migration comes to, in one shape whoever moved the guest; null is what the mover does not tell. */
import type { QemuMigrationProgress, QemuMigrationSummary } from '../peers/qemu/migration.ts';
import { formatDuration } from './duration.ts';
import { formatSize } from './size.ts';
import { renderFields } from './table.ts';

/** Where a migration is. */
export interface MigrationState {
  /** In the mover's own words. */
  readonly status: string;
  readonly elapsedMs: number;
  readonly round: number | null;
  readonly totalBytes: number | null;
  readonly sentBytes: number | null;
  readonly remainingBytes: number | null;
  readonly bytesPerSecond: number | null;
  readonly expectedDowntimeMs: number | null;
}

/** How a migration went. */
export interface MigrationReport {
  readonly totalMs: number;
  /** How long the guest stood still. */
  readonly downtimeMs: number | null;
  readonly rounds: number;
  /** What went over the wire. */
  readonly bytes: number;
  readonly pages: number;
  readonly zeroPages: number;
  readonly resentPages: number | null;
  /** Never sent, because the guest named them as free, or because the host held nothing for them. */
  readonly freePages: number | null;
  readonly unbackedPages: number | null;
  /** Pages that were written after the guest had named them as free, and sent for it. */
  readonly hintRaces: number | null;
}

export const qemuMigrationState = (progress: QemuMigrationProgress): MigrationState => ({
  status: progress.status,
  elapsedMs: progress.elapsedMs,
  round: progress.rounds,
  totalBytes: progress.totalBytes,
  sentBytes: progress.transferredBytes,
  remainingBytes: progress.remainingBytes,
  bytesPerSecond: progress.bytesPerSecond,
  expectedDowntimeMs: progress.expectedDowntimeMs,
});

export const qemuMigrationReport = (summary: QemuMigrationSummary): MigrationReport => ({
  totalMs: summary.totalMs,
  downtimeMs: summary.downtimeMs,
  rounds: summary.rounds,
  bytes: summary.transferredBytes,
  pages: summary.sentPages,
  zeroPages: summary.zeroPages,
  resentPages: null,
  freePages: null,
  unbackedPages: null,
  hintRaces: null,
});

const count = (number: number) => number.toLocaleString('en');

export function describeState(name: string, state: MigrationState): string {
  const { round, sentBytes, remainingBytes, bytesPerSecond, expectedDowntimeMs } = state;
  const known = [
    round === null ? '' : `round ${round}`,
    sentBytes === null ? '' : `${formatSize(sentBytes)} sent`,
    remainingBytes === null ? '' : `${formatSize(remainingBytes)} to go`,
    bytesPerSecond === null ? '' : `${formatSize(bytesPerSecond)}/s`,
    expectedDowntimeMs === null ? '' : `${formatDuration(expectedDowntimeMs)} of downtime expected`,
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
    ['never backed', pages(report.unbackedPages)],
    ['hint races', pages(report.hintRaces)],
  ];
  const told = fields.flatMap(([name, [value]]): [string, string][] =>
    value === undefined ? [] : [[name, value]],
  );
  return [`${name}: moved to ${to} in ${formatDuration(report.totalMs)}`, ...renderFields(told)].join('\n');
}
