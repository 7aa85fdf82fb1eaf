/**
 * What a device says of inflated pages where DEVICE_INIT_ON_INFLATE was negotiated: the driver leaves room for a bitmap behind
 * each list, whose bit N is set when the page of the list's page frame number N is zeros by the time the buffer is returned.
 * The bitmap is written when the list is taken, and counts if all that the batch gave was discarded: else every buffer of
 * the batch says that nothing was written.
 */
import type { PageAccounts } from './page-accounts.ts';
import type { PartWorld } from './part.ts';
import type { RunningQueue } from './running-queue.ts';

const PFN_BYTES = 4;

export class InflationPromises {
  readonly #world: PartWorld;
  readonly #accounts: PageAccounts;
  #bits = new Uint8Array(32);
  #failuresBefore = 0;
  #keptBefore = 0;

  constructor(world: PartWorld) {
    this.#world = world;
    this.#accounts = world.accounts;
  }

  /** A batch begins. */
  begin(): void {
    this.#failuresBefore = this.#accounts.discards.failures;
    this.#keptBefore = this.#accounts.keptPages;
  }

  /** Whether every page that the batch gave was discarded: no discard failed, and no page was taken back before its own. */
  get hold(): boolean {
    return (
      this.#accounts.discards.failures === this.#failuresBefore &&
      this.#accounts.keptPages === this.#keptBefore
    );
  }

  /**
   * Writes the bitmap of the list that is done; returns its bytes, as many as there is room for. `discardsAll`: all that
   * can be discarded is before the buffer is returned.
   */
  write(ring: RunningQueue, discardsAll: boolean): number {
    const { list, pagesLeft } = ring.walk;
    const bytes = Math.min(Math.ceil(list.length / PFN_BYTES / 8), ring.chain.writableBytes);
    if (bytes > this.#bits.length) this.#bits = new Uint8Array(bytes);
    const bits = this.#bits.fill(0, 0, bytes);
    // Of a list that names more pages than there are, what comes last was left out.
    const counts = discardsAll && pagesLeft > 0 && !this.#poisoned;
    const pages = counts ? Math.min(list.length / PFN_BYTES, bytes * 8) : 0;
    for (let at = 0; at < pages; at++) {
      if (this.#discards(list.u32[at])) bits[at >>> 3] |= 1 << (at & 7);
    }
    return ring.chain.write(ring.memory, 0, bits, 0, bytes);
  }

  /** Whether a page that was given is discarded by itself: not where huge pages wait for the rest of theirs. */
  #discards(pfn: number): boolean {
    const account = this.#accounts.find(pfn);
    return account?.unitPages === 1 && account.ballooned.test(pfn - account.firstPfn);
  }

  /** The driver asks for another value than zeros. */
  get #poisoned(): boolean {
    return this.#world.config.poisonValue !== 0;
  }
}
