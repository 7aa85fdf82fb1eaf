/**
 * The guest memory that the driver needs for itself: rings, page lists, indirect tables and messages. It comes from
 * the guest's own allocator, as pages that never move, and all of it goes back at once when the driver leaves.
 */
import { GFP_NORETRY, GFP_NOWARN, GFP_UNMOVABLE } from '../guest/gfp.ts';
import type { GuestKernel } from '../guest/kernel.ts';
import { NIL, ORDER_MAX } from '../guest/page-state.ts';
import { type Gpa, gpaOf, PAGE_SIZE } from '../memory/page.ts';
import { DriverProbeError } from './errors.ts';
import { MEMORY_OWNER } from './former-driver.ts';

/** Everything is aligned to this, which is enough for each part of a ring and for descriptors (VIRTIO 1.4, 2.7). */
const ALIGNMENT = 16;

/** A physically contiguous stretch of guest memory. */
export interface Stretch {
  readonly address: Gpa;
  /** Bytes. */
  readonly size: number;
}

export class DriverMemory {
  readonly #kernel: GuestKernel;
  /** Without a way to move pages: they stay where the device was told that they are. */
  readonly #owner: number;
  readonly #blocks: { pfn: number; order: number }[] = [];
  /** What is left of the page from which small pieces are cut. */
  #at = 0;
  #left = 0;

  constructor(kernel: GuestKernel) {
    this.#kernel = kernel;
    this.#owner = kernel.addOwner({ name: MEMORY_OWNER, contents: 'kept' });
  }

  /** Pages that the driver has. */
  get pages(): number {
    return this.#blocks.reduce((total, { order }) => total + (1 << order), 0);
  }

  /** `size` bytes, zeroed, or undefined when the guest has no such stretch. */
  allocate(size: number): Stretch | undefined {
    const bytes = Math.ceil(size / ALIGNMENT) * ALIGNMENT;
    if (bytes > PAGE_SIZE) return this.#block(Math.ceil(Math.log2(bytes / PAGE_SIZE)), size);
    if (bytes > this.#left) {
      const page = this.#block(0, PAGE_SIZE);
      if (page === undefined) return undefined;
      this.#at = page.address;
      this.#left = PAGE_SIZE;
    }
    const address = this.#at as Gpa;
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
    // A page is insisted on; for larger blocks there are smaller ones to fall back to.
    const flags = GFP_UNMOVABLE | GFP_NOWARN | (order === 0 ? 0 : GFP_NORETRY);
    const pfn = this.#kernel.allocate(order, flags);
    if (pfn === NIL) return undefined;
    this.#kernel.own(pfn, this.#owner);
    this.#blocks.push({ pfn, order });
    this.#kernel.access.fill(pfn, 1 << order, 0);
    return { address: gpaOf(pfn), size };
  }
}
