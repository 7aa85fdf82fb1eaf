/**
 * What can go wrong with a guest, as errors that carry the end of its kernel's console.
 */
import { AerostatError, type ErrorCode } from '../../sys/error.ts';

/** Lines of the console that go into an error's message; `consoleTail` holds more. */
const EXCERPT_LINES = 15;
/** Of these, lines before a panic: what led to it comes first, its trace after. */
const LINES_BEFORE_PANIC = 5;
const PANIC = /Kernel panic - not syncing.*/;

/** The kernel's last words, if it panicked: the line that says why. */
export const panicLine = (console: string): string | undefined => PANIC.exec(console)?.[0].trimEnd();

/** A panic in a few words, without what the kernel says before each. */
export const panicReason = (panic: string): string => panic.replace(/^Kernel panic - not syncing:?\s*/, '');

const COMPLAINT = /\b(?:fail|error|cannot|unable|not permitted|no space|noexec)/i;
/** Complaints of every healthy boot: there is no disk, and a file cannot be polled. */
const HARMLESS = /ubd device|epollctl/;

/** What of the console explains a failure: the panic, else complaints, else the end. */
function excerpt(console: string): string {
  const lines = console.trimEnd().split(/\r?\n/);
  const panic = lines.findIndex(line => PANIC.test(line));
  if (panic !== -1)
    return lines
      .slice(Math.max(0, panic - LINES_BEFORE_PANIC))
      .slice(0, EXCERPT_LINES)
      .join('\n');
  const complaints = lines.filter(line => COMPLAINT.test(line) && !HARMLESS.test(line));
  return (complaints.length > 0 ? complaints : lines).slice(-EXCERPT_LINES).join('\n');
}

function withExcerpt(message: string, console: string): string {
  return console === '' ? message : `${message}\nFrom its console:\n${excerpt(console)}`;
}

/**
 * Whether a person needs the console to understand the message. A boot that fails for a known reason is told in one
 * sentence; what a kernel that ran was at when it panicked, only its console tells.
 */
function needsExcerpt(code: ErrorCode, console: string): boolean {
  const panicked = panicLine(console) !== undefined;
  if (code !== 'AEROSTAT_GUEST_BOOT') return panicked;
  return !panicked && hostAdvice(console) === undefined;
}

/** What befell a guest, told by its `code`. The message quotes the console where that explains something. */
class GuestError extends AerostatError {
  /** The end of the kernel's console at that time, as far back as is kept. */
  readonly consoleTail: string;

  constructor(code: ErrorCode, message: string, consoleTail: string, options?: ErrorOptions) {
    super(code, needsExcerpt(code, consoleTail) ? withExcerpt(message, consoleTail) : message, options);
    this.consoleTail = consoleTail;
  }
}

/** The guest did not come up. */
export class GuestBootError extends GuestError {
  constructor(message: string, consoleTail = '', options?: ErrorOptions) {
    super('AEROSTAT_GUEST_BOOT', message, consoleTail, options);
  }
}

/** The guest ended while something was wanted of it: a panic, a kill, a power-off. */
export class GuestEndedError extends GuestError {
  constructor(message: string, consoleTail: string) {
    super('AEROSTAT_GUEST_ENDED', message, consoleTail);
  }
}

/** A command did not finish in time; it is killed. */
export class GuestTimeoutError extends GuestError {
  constructor(message: string, consoleTail: string) {
    super('AEROSTAT_GUEST_TIMEOUT', message, consoleTail);
  }
}

/** A command that must succeed did not, or could not be given to the guest. */
export class GuestCommandError extends AerostatError {
  /** Undefined when the command did not run at all. */
  readonly exitCode: number | undefined;
  readonly output: string;

  constructor(message: string, exitCode?: number, output = '') {
    super('AEROSTAT_SHELL_COMMAND', output === '' ? message : `${message}\nIts output:\n${output.trimEnd()}`);
    this.exitCode = exitCode;
    this.output = output;
  }
}

/** What User Mode Linux says about its host, and what its owner can do. */
const HOST_FAULTS: readonly (readonly [sign: RegExp, advice: string])[] = [
  [
    /ptrace set fp ?regs failed, errno = 14/,
    'this kernel does not run on this processor, whose registers need more room than it has for them; `aerostat peers install uml` brings one that does',
  ],
  [
    /must be not mounted noexec/,
    "its memory's directory is mounted noexec; name another tmpfs (TMPDIR), or: mount -o remount,exec /dev/shm",
  ],
  [
    /likely just ran out of space/,
    "its memory's directory is full; give the guest less memory, or: mount -o remount,size=8G /dev/shm",
  ],
  [
    /ptrace.*Operation not permitted/,
    'this host forbids ptrace, with which the kernel runs its programs; in a container add --cap-add SYS_PTRACE, elsewhere: sysctl kernel.yama.ptrace_scope=1',
  ],
];

/** What to do about a guest that its host failed, as far as its console tells. */
export const hostAdvice = (console: string): string | undefined =>
  HOST_FAULTS.find(([sign]) => sign.test(console))?.[1];
