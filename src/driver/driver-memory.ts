/**
 * The guest memory that the driver needs for itself: rings, page lists, indirect tables and messages. It comes from
 * the guest's own allocator, as pages that never move, and all of it goes back at once when the driver leaves.
 *
 * A driver that was saved and goes on elsewhere finds its memory where it was: it asks for the same stretches in the
 * same order, and gets those that were recorded.
 */

import { FIXED_PAGES, type KernelMemory } from '../memory/kernel-memory.ts';
import { gpaOf, PAGE_SIZE, pfnOf } from '../memory/page.ts';
import { NIL, ORDER_MAX } from '../memory/page-blocks.ts';
import { DriverProbeError, DriverStateError } from './errors.ts';
import { MEMORY_OWNER } from './former-driver.ts';

/** Everything is aligned to this, which is enough for each part of a ring and for descriptors (VIRTIO 1.4, 2.7). */
const ALIGNMENT = 16;

/** A physically contiguous stretch of guest memory. */
export interface Stretch {
  readonly address: number;
  /** Bytes. */
  readonly size: number;
}

/** The stretch that a request got, or null where the guest had no such stretch. */
export type Allotment = Stretch | null;

export class DriverMemory {
  /** All that was asked for since the driver began. */
  readonly allotments: Allotment[] = [];
  readonly #kernel: KernelMemory;
  /** Without a way to move pages: they stay where the device was told that they are. */
  readonly #owner: number;
  readonly #blocks: { pfn: number; order: number }[] = [];
  /** What is left of the page from which small pieces are cut. */
  #at = 0;
  #left = 0;

  /** What was asked for once and is asked for again; undefined where the driver is new. */
  readonly #former: readonly Allotment[] | undefined;

  /** Memory that goes on being the driver's in a guest that was restored, as it was recorded in `former`. */
  constructor(kernel: KernelMemory, former?: readonly Allotment[]) {
    this.#kernel = kernel;
    this.#owner = kernel.addOwner({ name: MEMORY_OWNER, contents: 'kept' });
    this.#former = former;
  }

  /** @throws DriverStateError when not all that was recorded was asked for again */
  requireAllClaimed(): void {
    if (this.allotments.length !== this.#former?.length) throw new DriverStateError('it had other memory');
  }

  get blocks(): readonly { readonly pfn: number; readonly order: number }[] {
    return this.#blocks;
  }

  /** Pages that the driver has. */
  get pages(): number {
    return this.#blocks.reduce((total, { order }) => total + (1 << order), 0);
  }

  /**
   * `size` bytes, or undefined when the guest has no such stretch: zeroed, where they are not what a saved driver had.
   */
  allocate(size: number): Stretch | undefined {
    const stretch = this.#former === undefined ? this.#allocate(size) : this.#claim(this.#former, size);
    this.allotments.push(stretch ?? null);
    return stretch;
  }

  #claim(allotments: readonly Allotment[], size: number): Stretch | undefined {
    const former = allotments[this.allotments.length];
    if (former === undefined) throw new DriverStateError('it had other memory');
    if (former === null) return undefined;
    const { address } = former;
    const block = this.#ownedBlockAt(pfnOf(address));
    const end = block === undefined ? 0 : gpaOf(block.pfn + (1 << block.order));
    if (block === undefined || address + size > end || former.size !== size || address % ALIGNMENT !== 0) {
      throw new DriverStateError(
        `its ${former.size} bytes at 0x${address.toString(16)} cannot be ${size} bytes of its own`,
      );
    }
    if (!this.#blocks.some(({ pfn }) => pfn === block.pfn)) this.#blocks.push(block);
    return { address, size };
  }

  /** The block that page frame `pfn` is part of, if it is the driver's. */
  #ownedBlockAt(pfn: number): { pfn: number; order: number } | undefined {
    const order = this.#kernel.saved?.ownedOrderAt(pfn, this.#owner) ?? NIL;
    return order === NIL ? undefined : { pfn: pfn - (pfn % (1 << order)), order };
  }

  #allocate(size: number): Stretch | undefined {
    const bytes = Math.ceil(size / ALIGNMENT) * ALIGNMENT;
    if (bytes > PAGE_SIZE) return this.#block(Math.ceil(Math.log2(bytes / PAGE_SIZE)), size);
    if (bytes > this.#left) {
      const page = this.#block(0, PAGE_SIZE);
      if (page === undefined) return undefined;
      this.#at = page.address;
      this.#left = PAGE_SIZE;
    }
    const address = this.#at;
    this.#at += bytes;
    this.#left -= bytes;
    return { address, size };
  }

  /**
   * As much of `size` bytes as the guest has in one piece, halved until it fits but never below `sizeMin`: where free
   * memory is in fragments, lists are short.
   * @throws DriverProbeError
   */
  allocateUpTo(size: number, sizeMin: number): Stretch {
    for (let wanted = size; ; wanted = Math.max(sizeMin, Math.floor(wanted / 2))) {
      const stretch = this.allocate(wanted);
      if (stretch !== undefined) return stretch;
      if (wanted <= sizeMin)
        throw new DriverProbeError(`the guest has not ${sizeMin} bytes of memory for it`);
    }
  }

  /** Gives everything back; nothing can be allocated any more. */
  release(): void {
    for (const { pfn, order } of this.#blocks) this.#kernel.free(pfn, order);
    this.#blocks.length = 0;
    this.#left = 0;
    this.#kernel.removeOwner(this.#owner);
  }

  #block(order: number, size: number): Stretch | undefined {
    if (order > ORDER_MAX) return undefined;
    const pfn = this.#kernel.allocateFor(FIXED_PAGES, order);
    if (pfn === NIL) return undefined;
    this.#kernel.own(pfn, this.#owner);
    this.#blocks.push({ pfn, order });
    return { address: gpaOf(pfn), size };
  }
}
