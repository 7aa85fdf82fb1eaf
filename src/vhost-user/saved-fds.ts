/** Descriptors of a saved session, each of which is named by its place among them. */
import { closeAll, type OwnedFd } from '../sys/fd.ts';

/** Names a saved descriptor by its place among them. */
export type FdIndex = number;

/** Those that a session needs which is saved. */
export interface FdList {
  /** The descriptor stays the caller's. */
  note(fd: OwnedFd | undefined): FdIndex | undefined;
}

/** Duplicates of them, for a session of another process. */
export class FdCollector implements FdList {
  readonly fds: OwnedFd[] = [];

  note(fd: OwnedFd | undefined): FdIndex | undefined {
    return this.add(fd?.duplicate());
  }

  /** Takes ownership. */
  add(fd: OwnedFd | undefined): FdIndex | undefined {
    return fd === undefined ? undefined : this.fds.push(fd) - 1;
  }
}

/** Descriptors while a session is loaded; closing it closes those that were not taken. */
export class SavedFds {
  readonly #fds: (OwnedFd | undefined)[];

  constructor(fds: readonly OwnedFd[]) {
    this.#fds = [...fds];
  }

  /** The taker owns it. */
  take(index: FdIndex | undefined): OwnedFd | undefined {
    if (index === undefined) return undefined;
    const fd = this.#fds[index];
    this.#fds[index] = undefined;
    return fd;
  }

  close(): void {
    closeAll(this.#fds.splice(0).filter(fd => fd !== undefined));
  }
}
