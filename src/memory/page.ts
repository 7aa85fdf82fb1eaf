/**
 * Pages and addresses. Guest physical addresses (`gpa`) are bytes below 2^53, so that a plain number holds one. A page frame
 * number (`pfn`) is such an address divided by 4096 whatever the guest's own page size is: that is what every balloon ABI
 * means by it (VIRTIO 1.4, 5.5.6).
 */

export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 1 << PAGE_SHIFT;

/** Page frames that a 53-bit address can name; a larger number in a list is nonsense. */
export const PFN_LIMIT = 2 ** 53 / PAGE_SIZE;

export const gpaOf = (pfn: number): number => pfn * PAGE_SIZE;
export const pfnOf = (gpa: number): number => Math.floor(gpa / PAGE_SIZE);

/** Whatever takes runs of pages one by one: a bitmap, a list, an account. */
export interface PageSink {
  /** `count` (> 0) pages from page frame `pfn` on. */
  add(pfn: number, count: number): void;
}
