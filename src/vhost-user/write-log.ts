/**
 * What a back-end writes into guest memory, for a front-end that moves its guest (F_LOG_ALL): one bit a page of 4 KiB in
 * memory of the front-end's, set after the page was written. The front-end clears bits while we set others.
 */
import { FileBacking } from '../memory/file-backing.ts';
import type { WriteLog } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { OwnedFd } from '../sys/fd.ts';
import type { PeerDoorbell } from '../sys/peer-doorbell.ts';
import { MEMORY_BYTES_MAX, VhostUserError } from './protocol.ts';

/** A bit for each page of the largest guest. */
const LOG_BYTES_MAX = MEMORY_BYTES_MAX / PAGE_SIZE / 8;

export class DirtyPagesLog implements WriteLog {
  readonly backing: FileBacking;
  readonly #bits: Uint8Array;
  /** Tells the front-end that a page became dirty. */
  doorbell: PeerDoorbell | undefined;

  private constructor(backing: FileBacking) {
    this.backing = backing;
    this.#bits = backing.window(0).u8;
  }

  /**
   * Takes ownership of `fd`, also when it throws. Only the first gigabyte of a log is mapped, which is more than any has.
   * @throws VhostUserError when it is no log; AerostatError when its file cannot be used
   */
  static open(fd: OwnedFd, fileOffset: number, size: number): DirtyPagesLog {
    const bounded = size > 0 && size <= LOG_BYTES_MAX && size % 8 === 0;
    if (!bounded) {
      fd.close();
      throw new VhostUserError(`a log of ${size} bytes; it has whole words of 8, up to ${LOG_BYTES_MAX}`);
    }
    const backing = new FileBacking(fd, fileOffset, size, { partialPage: true });
    try {
      // Memory that cannot be sealed is all that some front-ends have; a log is made for this alone.
      if (!backing.sealed)
        throw new VhostUserError('the file of a log can be shrunk; a memfd that takes seals cannot');
      return new DirtyPagesLog(backing);
    } catch (error) {
      backing.close();
      throw error;
    }
  }

  written(gpa: number, length: number): void {
    const first = Math.floor(gpa / PAGE_SIZE);
    // Pages beyond its end are the front-end's to miss.
    const last = Math.min(Math.floor((gpa + length - 1) / PAGE_SIZE), this.#bits.length * 8 - 1);
    let fresh = false;
    for (let page = first; page <= last; page++) {
      const bit = 1 << (page % 8);
      const before = Atomics.or(this.#bits, Math.floor(page / 8), bit);
      fresh ||= (before & bit) === 0;
    }
    if (fresh) this.doorbell?.ring();
  }

  close(): void {
    this.backing.close();
  }
}
