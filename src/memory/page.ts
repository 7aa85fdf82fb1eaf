/**
 * Pages and addresses. A {@link Pfn} is a guest physical address divided by 4096 whatever the guest's own
 * page size is: that is what every balloon ABI means by it (VIRTIO 1.4, 5.5.6).
 */

/** A guest physical address in bytes; always below 2^53, so a plain number holds it. */
export type Gpa = number & { readonly __brand: 'Gpa' };
/** A page frame number: a {@link Gpa} in units of {@link PAGE_SIZE}. */
export type Pfn = number & { readonly __brand: 'Pfn' };

export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 1 << PAGE_SHIFT;
/** Pages in 2 MiB, the huge page (and pageblock) of x86-64. */
export const PAGES_PER_HUGE_PAGE = 512;

/** Page frames that a 53-bit address can name; a larger number in a list is nonsense. */
export const PFN_LIMIT = 2 ** 53 / PAGE_SIZE;

export const gpaOf = (pfn: number): Gpa => (pfn * PAGE_SIZE) as Gpa;
export const pfnOf = (gpa: number): Pfn => Math.floor(gpa / PAGE_SIZE) as Pfn;

/** Whatever takes runs of pages one by one: a bitmap, a list, an account. */
export interface PageSink {
  /** `count` (> 0) pages from page frame `pfn` on. */
  add(pfn: number, count: number): void;
}
