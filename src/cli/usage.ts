/**
 * What a command ends with: exit codes, and the error that a person's own typing causes. Nothing here prints.
 */
import { AerostatError } from '../sys/error.ts';
import { ERRORS, EXIT, type ExitCode, isErrorCode } from '../sys/error-codes.ts';

export { EXIT, type ExitCode } from '../sys/error-codes.ts';

/** As `--help` and the manual page say it. */
export const EXIT_MEANINGS: readonly (readonly [code: string, meaning: string])[] = [
  [String(EXIT.ok), 'done'],
  [String(EXIT.failed), 'failed'],
  [String(EXIT.usage), 'the command line is wrong'],
  [String(EXIT.unreachable), "the daemon, or the guest's QEMU, cannot be reached or went away"],
  [String(EXIT.notReached), 'the target was not reached in time'],
  [String(EXIT.unknownGuest), 'no guest has this name'],
  [String(EXIT.guestState), 'the guest cannot do this now, or did not answer'],
  [String(EXIT.foundCost), 'doctor found something that costs memory'],
  [String(EXIT.foundDanger), 'doctor found something dangerous'],
  [
    String(EXIT.interrupted),
    `interrupted (${EXIT.terminated} by SIGTERM, ${EXIT.hungUp} when its terminal was closed)`,
  ],
];

/** Words of a command line that mean nothing; the message says what would. */
export class UsageError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_USAGE', message);
  }
}

/** Signals that ask a command to stop, and what one that obeyed ends with. */
export const EXIT_BY_SIGNAL = {
  SIGHUP: EXIT.hungUp,
  SIGINT: EXIT.interrupted,
  SIGTERM: EXIT.terminated,
} as const;

export type StopSignal = keyof typeof EXIT_BY_SIGNAL;

/** A signal asked the command to stop while it was under way. */
export class InterruptedError extends AerostatError {
  readonly signal: StopSignal;

  constructor(signal: StopSignal) {
    super('AEROSTAT_INTERRUPTED', `interrupted by ${signal}`);
    this.signal = signal;
  }
}

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof InterruptedError) return EXIT_BY_SIGNAL[error.signal];
  if (!(error instanceof AerostatError)) return EXIT.failed;
  // A daemon of another version may send a code that this one does not know.
  return EXIT[(isErrorCode(error.code) ? ERRORS[error.code].exit : undefined) ?? 'failed'];
}
