/** What a migration comes to, in words. */
import type {
  MigrationPauseStep,
  MigrationReport,
  MigrationState,
  PostcopyState,
} from '../control/migrations.ts';
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
  if (state.postcopy) known.push(...describePostcopy(state.postcopy));
  const after = `${state.status} after ${formatDuration(state.elapsedMs)}`;
  return [`${name}: ${after}`, ...known.filter(Boolean)].join(', ');
}

/** `longestMs`: null where a hypervisor does not tell. */
export function waits(faults: number, longestMs: number | null): string {
  const longest = longestMs === null ? '' : `, ${formatDuration(longestMs)} at most`;
  return `${count(faults)} pages waited for${longest}`;
}

function describePostcopy({ faults, longestFaultMs, recoveries, broken }: PostcopyState): string[] {
  return [
    waits(faults, longestFaultMs),
    recoveries === 0 ? '' : `connected again ${count(recoveries)} times`,
    broken === null ? '' : `no page comes: ${broken}`,
  ];
}

/** Rounds after which it is seen whether each leaves less than the one before. */
const TELLING_ROUNDS = 2;

/**
 * What a person should know of a migration that is not getting anywhere by itself, and what would help; undefined while
 * there is nothing to say.
 */
export function adviceOf(
  name: string,
  { round, remainingBytes, bytesPerSecond, expectedDowntimeMs, guestShare }: MigrationState,
  { downtimeMsMax, roundsMax }: { readonly downtimeMsMax: number; readonly roundsMax: number | null },
): string | undefined {
  if (round === null || round <= TELLING_ROUNDS || expectedDowntimeMs === null || remainingBytes === null) {
    return undefined;
  }
  if (guestShare !== null && guestShare < 1) {
    const share = Math.max(1, Math.round(guestShare * 100));
    return (
      `${name} writes faster than can be sent and has ${share} % of its time until it is there; ` +
      '--no-auto-converge leaves it all, --downtime-limit lets it stand still for longer instead' +
      (roundsMax === null ? '' : ', --compress helps a slow network')
    );
  }
  if (expectedDowntimeMs <= downtimeMsMax) return undefined;
  const rate = bytesPerSecond === null ? '' : ` at ${formatSize(bytesPerSecond)}/s`;
  const late = `${name} writes faster than can be sent (${formatSize(remainingBytes)} to go${rate}): it would stand still for about ${formatDuration(expectedDowntimeMs)}`;
  const limit = `--downtime-limit ${formatDuration(Math.ceil(expectedDowntimeMs / 1000) * 1000)}`;
  if (roundsMax === null) {
    return `${late}, and is sent over and over; to be done sooner, call it off (Ctrl-C) and give --auto-converge, ${limit}, or --postcopy`;
  }
  return (
    `${late}, and after round ${roundsMax} it is given up, or stopped all the same with --max-rounds; ` +
    `to be done sooner, call it off (Ctrl-C) and give --auto-converge, ${limit}, --compress, or vm --rate`
  );
}

export const describeReport = (name: string, to: string, report: MigrationReport): string =>
  to.startsWith('file:')
    ? describeSnapshot(name, to.slice('file:'.length), report)
    : described(`${name}: moved to ${to} in ${formatDuration(report.totalMs)}`, 'transferred', report);

export const describeSnapshot = (name: string, file: string, report: MigrationReport): string =>
  described(`${name}: written to ${file} in ${formatDuration(report.totalMs)}`, 'written', report);

/** The steps that add up to the downtime; their parts are told as JSON alone. */
function pauseOf(steps: readonly MigrationPauseStep[]): string[] {
  const told = steps.filter(({ step }) => !step.includes('/'));
  if (told.length === 0) return [];
  return [told.map(({ step, ms }) => `${step} ${ms.toFixed(1)}ms`).join(', ')];
}

function described(title: string, bytesName: string, report: MigrationReport): string {
  const pages = (number: number | null) => (number === null ? [] : [count(number)]);
  const fields: [string, string[]][] = [
    ['downtime', report.downtimeMs === null ? [] : [formatDuration(report.downtimeMs)]],
    ['stood still for', pauseOf(report.pause ?? [])],
    ['rounds', [count(report.rounds)]],
    [bytesName, [formatSize(report.bytes)]],
    [`pages ${bytesName === 'written' ? 'written' : 'sent'}`, pages(report.pages)],
    ['zero pages', pages(report.zeroPages)],
    ['sent again', pages(report.resentPages)],
    ['skipped as free', pages(report.freePages)],
    ['skipped as ballooned', pages(report.balloonPages)],
    ['never backed', pages(report.unbackedPages)],
    ['hint races', pages(report.hintRaces)],
    ['came while it ran', report.postcopy ? [formatSize(report.postcopy.missingBytes)] : []],
    ['pages waited for', report.postcopy ? [count(report.postcopy.faults)] : []],
    [
      'longest wait',
      report.postcopy?.longestFaultMs == null ? [] : [formatDuration(report.postcopy.longestFaultMs)],
    ],
  ];
  const told = fields.flatMap(([name, [value]]): [string, string][] =>
    value === undefined ? [] : [[name, value]],
  );
  return [title, ...renderFields(told)].join('\n');
}
