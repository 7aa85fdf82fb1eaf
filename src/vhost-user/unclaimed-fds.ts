/** The descriptors of one message while it is served. */
import { closeAll, type OwnedFd } from '../sys/fd.ts';

/** Descriptors that were not taken yet; closing it closes those. */
export class UnclaimedFds {
  readonly #fds: OwnedFd[];
  /** How many the message brought. */
  readonly count: number;

  constructor(fds: readonly OwnedFd[]) {
    this.#fds = [...fds];
    this.count = fds.length;
  }

  /** The next one; the taker owns it. */
  take(): OwnedFd | undefined {
    return this.#fds.shift();
  }

  close(): void {
    closeAll(this.#fds);
  }
}
