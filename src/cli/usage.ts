/**
 * What a command ends with: exit codes, and the error that a person's own typing causes. Nothing here prints.
 */
import { AerostatError } from '../sys/error.ts';

/** Documented in `aerostat --help`; scripts test them, so a number never changes its meaning. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  notReached: 4,
  unknownGuest: 5,
  guestState: 6,
  hungUp: 129,
  interrupted: 130,
  terminated: 143,
} as const;

/** As `--help` and the manual page say it. */
export const EXIT_MEANINGS: readonly (readonly [code: string, meaning: string])[] = [
  [String(EXIT.ok), 'done'],
  [String(EXIT.failed), 'failed'],
  [String(EXIT.usage), 'the command line makes no sense'],
  [String(EXIT.unreachable), "the daemon, or the guest's QEMU, cannot be reached or went away"],
  [String(EXIT.notReached), 'the target was not reached in time'],
  [String(EXIT.unknownGuest), 'no guest has this name'],
  [String(EXIT.guestState), 'the guest cannot do this now, or did not answer'],
  [
    String(EXIT.interrupted),
    `interrupted (${EXIT.terminated} by SIGTERM, ${EXIT.hungUp} when its terminal was closed)`,
  ],
];

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Words of a command line that make no sense; the message says what would. */
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

const EXIT_BY_CODE: Readonly<Record<string, ExitCode>> = {
  AEROSTAT_USAGE: EXIT.usage,
  AEROSTAT_SIZE: EXIT.usage,
  AEROSTAT_DURATION: EXIT.usage,
  AEROSTAT_RATE: EXIT.usage,
  AEROSTAT_API_ADDRESS: EXIT.usage,
  AEROSTAT_CONFIG: EXIT.usage,
  AEROSTAT_UNREACHABLE: EXIT.unreachable,
  AEROSTAT_QMP_CONNECTION: EXIT.unreachable,
  AEROSTAT_QMP_TIMEOUT: EXIT.unreachable,
  AEROSTAT_NOT_REACHED: EXIT.notReached,
  AEROSTAT_UNKNOWN_GUEST: EXIT.unknownGuest,
  AEROSTAT_GUEST_STATE: EXIT.guestState,
};

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof InterruptedError) return EXIT_BY_SIGNAL[error.signal];
  if (error instanceof AerostatError) return EXIT_BY_CODE[error.code] ?? EXIT.failed;
  return EXIT.failed;
}
