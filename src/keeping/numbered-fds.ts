/** The descriptors that a record names: by the numbers under which a keeper has them, instead of duplicates. */
import type { OwnedFd } from '../sys/fd.ts';
import type { FdList } from '../vhost-user/saved-fds.ts';

export class NumberedFds implements FdList {
  readonly numbers: number[] = [];
  readonly #numberOf: (fd: OwnedFd) => number;

  constructor(numberOf: (fd: OwnedFd) => number) {
    this.#numberOf = numberOf;
  }

  get count(): number {
    return this.numbers.length;
  }

  note(fd: OwnedFd | undefined): number | undefined {
    return fd === undefined ? undefined : this.numbers.push(this.#numberOf(fd)) - 1;
  }
}
