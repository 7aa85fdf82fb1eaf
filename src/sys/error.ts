/**
 * The errors that Aerostat throws. Every one carries a stable `code` (`AEROSTAT_…`) that programs may
 * test, and a message that says what happened and, where we know it, what to do next.
 * Nothing here knows about any protocol; rooms derive their own classes from {@link AerostatError}.
 */
import { constants } from 'node:os';
import type { ErrorCode } from './error-codes.ts';

export type { ErrorCode } from './error-codes.ts';

export class AerostatError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** An error as it goes to another thread, process or host; `code` is that of errors which are none of ours. */
export function wireError(
  error: unknown,
  code: ErrorCode = 'AEROSTAT_INTERNAL',
): { readonly code: ErrorCode; readonly message: string } {
  return {
    code: error instanceof AerostatError ? error.code : code,
    message: error instanceof Error ? error.message : String(error),
  };
}

const ERRNO_NAMES = new Map<number, string>(
  Object.entries(constants.errno).map(([name, value]) => [value, name]),
);
// EWOULDBLOCK and EAGAIN share a number on Linux; the kernel's own documentation says EAGAIN.
ERRNO_NAMES.set(constants.errno.EAGAIN, 'EAGAIN');

function errnoName(errno: number): string {
  return ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
}

/** A system call that failed. `errno` is the kernel's number, `errnoName` its symbol. */
export class SystemError extends AerostatError {
  readonly syscall: string;
  readonly errno: number;
  readonly errnoName: string;

  constructor(syscall: string, errno: number, detail = '') {
    const name = errnoName(errno);
    super('AEROSTAT_SYSTEM', `${syscall} failed with ${name}${detail === '' ? '' : `: ${detail}`}`);
    this.syscall = syscall;
    this.errno = errno;
    this.errnoName = name;
  }
}

/** A condition that our own code guarantees did not hold: a bug of ours, never a guest's doing. */
export class InvariantError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_INVARIANT', `${message} (a bug in Aerostat; please report it)`);
  }
}

export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
