/**
 * File descriptors with one owner. A descriptor is a small number that the kernel reuses, so a second
 * close hits a stranger: {@link OwnedFd} closes once, refuses use afterwards, and counts what is open so
 * that tests can show that nothing leaks.
 */
import { AerostatError, assert } from './error.ts';
import { check, errno, F_SETFD, libc } from './libc.ts';
import { Arena } from './mapping.ts';
import type { Shed } from './shed.ts';

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const F_DUPFD_CLOEXEC = 1030;
const FD_CLOEXEC = 1;
const F_GETFL = 3;
const F_SETFL = 4;
const EAGAIN = 11;
const EINTR = 4;

let openDescriptors = 0;
let closedDescriptors = 0;

/** How many {@link OwnedFd}s of this thread are open; for leak tests. */
export const openDescriptorCount = (): number => openDescriptors;

/** How many were closed or given up so far: while it is the same, all that were open are. */
export const closedDescriptorCount = (): number => closedDescriptors;

/** Whatever names an open descriptor: an {@link OwnedFd}, or a number whose owner is known to outlive its use. */
export interface Descriptor {
  readonly number: number;
}

export class OwnedFd implements Descriptor {
  #number: number;
  /** Where it is closed, if not by the thread that says so: closing what a stranger sent can take long. */
  #shed: Shed | undefined;

  /** Takes ownership of `fd`, which nothing else may close. With a `shed` it is closed there. */
  constructor(fd: number, shed?: Shed) {
    this.#number = fd;
    this.#shed = shed;
    openDescriptors++;
  }

  /** The descriptor's number, for a system call; never for keeping. */
  get number(): number {
    if (this.#number < 0) throw new AerostatError('AEROSTAT_CLOSED', 'the descriptor is closed');
    return this.#number;
  }

  get open(): boolean {
    return this.#number >= 0;
  }

  duplicate(): OwnedFd {
    return new OwnedFd(check('fcntl', libc.fcntl(this.number, F_DUPFD_CLOEXEC, 3)), this.#shed);
  }

  /**
   * The same file opened anew for reading and writing, as far as its own mode allows it to this process, whatever the
   * descriptor was opened for.
   * @throws SystemError where /proc is missing or the file's mode forbids it
   */
  reopen(): OwnedFd {
    return new OwnedFd(check('open', libc.open(`/proc/self/fd/${this.number}`, O_RDWR | O_CLOEXEC)));
  }

  /** Gives up ownership: returns the number, and this object closes nothing any more. */
  release(): number {
    const fd = this.number;
    this.#number = -1;
    openDescriptors--;
    closedDescriptors++;
    return fd;
  }

  /** It turned out to be of a kind that is closed at once, whatever shares it: no shed is needed. */
  closesAtOnce(): void {
    this.#shed = undefined;
  }

  /**
   * Makes reads and writes return EAGAIN instead of blocking. The flag belongs to the open file, so this
   * reaches every holder of it; a peer's doorbell that could block us is worse.
   */
  setNonBlocking(): void {
    const flags = check('fcntl', libc.fcntl(this.number, F_GETFL, 0));
    check('fcntl', libc.fcntl(this.number, F_SETFL, flags | O_NONBLOCK));
  }

  /** What this process starts does not inherit it. */
  setCloseOnExec(): void {
    check('fcntl', libc.fcntl(this.number, F_SETFD, FD_CLOEXEC));
  }

  /** Idempotent. Errors are ignored: Linux closes the descriptor whatever close() returns. */
  close(): void {
    if (this.#number < 0) return;
    const shed = this.#shed;
    if (shed === undefined) libc.close(this.release());
    else shed.close(this.release());
  }
}

export function closeAll(fds: Iterable<OwnedFd>): void {
  for (const fd of fds) fd.close();
}

/** Longest message of {@link writeShort}. */
export const SHORT_WRITE_BYTES_MAX = 64;
const SILENCE_READ_BYTES = 64;

const scratch = new Arena(Math.max(SHORT_WRITE_BYTES_MAX, SILENCE_READ_BYTES));

/** An eventfd with count 0, non-blocking unless a peer is to be shown one that is not. */
export function createEventFd({ blocking = false } = {}): OwnedFd {
  return new OwnedFd(check('eventfd', libc.eventfd(0, (blocking ? 0 : EFD_NONBLOCK) | EFD_CLOEXEC)));
}

/** A non-blocking pipe. */
export function createPipe(): { reader: OwnedFd; writer: OwnedFd } {
  check('pipe2', libc.pipe2(scratch.address, O_NONBLOCK | O_CLOEXEC));
  return {
    reader: new OwnedFd(scratch.view.getInt32(0, true)),
    writer: new OwnedFd(scratch.view.getInt32(4, true)),
  };
}

/**
 * Rings a doorbell (eventfd or pipe): writes a 64-bit 1. Returns false when the peer is gone. A full
 * doorbell counts as rung, since the peer has a wake-up waiting.
 */
export function ring(fd: OwnedFd): boolean {
  scratch.view.setBigUint64(0, 1n, true);
  if (libc.write(fd.number, scratch.address, 8) !== -1) return true;
  return errno() === EAGAIN;
}

/**
 * Silences a doorbell so that poll blocks again. Returns false when its peer closed it or it is no
 * doorbell at all, in which case polling it further would spin.
 */
export function drainEvent(fd: OwnedFd): boolean {
  const length = libc.read(fd.number, scratch.address, SILENCE_READ_BYTES);
  if (length > 0) return true;
  if (length === 0) return false;
  const error = errno();
  return error === EAGAIN || error === EINTR;
}

/** What became of bytes that were offered to a descriptor. */
type WriteResult = 'written' | 'full' | 'gone';

/**
 * Writes a message of at most {@link SHORT_WRITE_BYTES_MAX} bytes whole, to a non-blocking pipe or socket.
 * Both take so few bytes all at once or not at all.
 */
export function writeShort(fd: OwnedFd, bytes: Uint8Array): WriteResult {
  assert(bytes.length <= SHORT_WRITE_BYTES_MAX, `a short message of ${bytes.length} bytes`);
  scratch.bytes.set(bytes);
  if (libc.write(fd.number, scratch.address, bytes.length) === bytes.length) return 'written';
  return errno() === EAGAIN ? 'full' : 'gone';
}
