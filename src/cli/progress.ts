/** Bars on the terminal, on standard error, so that they never mix with an answer. */
import type { SingleBar } from 'cli-progress';
import type { GuestStatus } from '../control/contract.ts';
import type { MigrationState } from '../control/migrations.ts';
import { type CliContext, printLine } from './context.ts';
import { formatDuration } from './duration.ts';
import { waits } from './migration-report.ts';
import { formatSize } from './size.ts';
import { isScreen, isUnicode } from './style.ts';

interface TargetBar {
  readonly update: (guest: GuestStatus) => void;
  readonly stop: () => void;
}

interface StepBar {
  readonly update: (done: number, total: number, what: string) => void;
  readonly stop: () => void;
}

async function openBar({ stderr, env }: CliContext, format: string): Promise<SingleBar> {
  const { Presets, SingleBar } = (await import('cli-progress')).default;
  const bar = new SingleBar(
    {
      stream: stderr,
      format,
      hideCursor: true,
      clearOnComplete: true,
      // Signals are the program's to take; this one would end the process.
      gracefulExit: false,
    },
    isUnicode(env) ? Presets.shades_classic : Presets.legacy,
  );
  // A process that a second signal ends at once must show the cursor, too.
  const leave = () => bar.stop();
  bar.once('start', () => process.once('exit', leave));
  bar.once('stop', () => process.removeListener('exit', leave));
  return bar;
}

/** Follows a balloon to its target; silent where standard error is no terminal. */
export async function targetBar(context: CliContext, name: string, targetBytes: number): Promise<TargetBar> {
  const { stderr, env } = context;
  if (!isScreen(stderr, env)) return { update: () => {}, stop: () => {} };
  const bar = await openBar(context, `${name} {bar} {held} of ${formatSize(targetBytes)}, {pending} pending`);
  // The way to go is from where the balloon was to the target, and may lead downwards.
  let from: number | undefined;
  return {
    update: guest => {
      const held = guest.actualBytes ?? 0;
      const fields = { held: formatSize(held), pending: formatSize(guest.pendingBytes ?? 0) };
      if (from === undefined) {
        from = held;
        bar.start(Math.max(1, Math.abs(targetBytes - from)), 0, fields);
      } else {
        bar.update(Math.abs(held - from), fields);
      }
    },
    stop: () => bar.stop(),
  };
}

export interface MigrationBar {
  readonly update: (state: MigrationState) => void;
  /** A line for a person, above the bar. */
  readonly say: (line: string) => void;
  readonly stop: () => void;
}

/** Follows a migration: what is left of the guest's memory, and what is left to wait for. */
export async function migrationBar(context: CliContext, name: string): Promise<MigrationBar> {
  const { stderr, env } = context;
  const print = (line: string) => void printLine(stderr, line);
  if (!isScreen(stderr, env)) return { update: () => {}, say: print, stop: () => {} };
  const bar = await openBar(context, `${name} {bar} {what}`);
  let started = false;
  // What is written while it is sent is to be sent again: what is there goes back then, and the bar does not.
  let most = 0;
  return {
    update: state => {
      const { totalBytes, remainingBytes, round, bytesPerSecond, expectedDowntimeMs, postcopy } = state;
      const what = [
        round === null || postcopy ? state.status : `round ${round}`,
        remainingBytes === null ? '' : `${formatSize(remainingBytes)} to go`,
        bytesPerSecond === null ? '' : `${formatSize(bytesPerSecond)}/s`,
        postcopy ? waits(postcopy.faults, postcopy.longestFaultMs) : '',
        expectedDowntimeMs === null || postcopy ? '' : `downtime ${formatDuration(expectedDowntimeMs)}`,
      ];
      const fields = { what: what.filter(Boolean).join(', ') };
      const total = totalBytes ?? 1;
      most = Math.max(most, total - (remainingBytes ?? total));
      if (started) bar.update(most, fields);
      else bar.start(total, most, fields);
      started = true;
    },
    say: line => {
      // Cleared, and drawn anew below the line by the next update.
      bar.stop();
      started = false;
      print(line);
    },
    stop: () => bar.stop(),
  };
}

/** Follows steps that each have a name; a line a step where that is no terminal, so that a log tells what it was at. */
export async function stepBar(context: CliContext): Promise<StepBar> {
  const { stderr, env } = context;
  if (!isScreen(stderr, env)) {
    const update: StepBar['update'] = (done, total, what) => printLine(stderr, `${done}/${total} ${what}`);
    return { update, stop: () => {} };
  }
  const bar = await openBar(context, '{bar} {value}/{total} {what}');
  let started = false;
  return {
    update: (done, total, what) => {
      if (started) bar.update(done, { what });
      else bar.start(total, done, { what });
      started = true;
    },
    stop: () => bar.stop(),
  };
}

export interface ShareBar {
  /** `done` of `total`, in whatever unit; `what` says it in words. */
  readonly update: (done: number, total: number, what: string) => void;
  /** Until the next update. */
  readonly stop: () => void;
}

/** Follows work whose words tell how much there is of it; undefined where standard error is no terminal. */
export async function shareBar(context: CliContext): Promise<ShareBar | undefined> {
  const { stderr, env } = context;
  if (!isScreen(stderr, env)) return undefined;
  const bar = await openBar(context, '{bar} {percentage}% {what}');
  let started = false;
  return {
    update: (done, total, what) => {
      const percent = total === 0 ? 100 : (100 * done) / total;
      if (started) bar.update(percent, { what });
      else bar.start(100, percent, { what });
      started = true;
    },
    stop: () => {
      bar.stop();
      started = false;
    },
  };
}
