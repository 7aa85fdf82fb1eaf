/**
 * Naturally aligned blocks of 2^order pages, the unit of a buddy allocator, and the 64-bit entries that lists
 * of 1 MiB and less are made of.
 */
import { PAGE_SHIFT } from '../../memory/page.ts';
import type { PageList } from '../page-list.ts';

/** The largest order that is made: 4 TiB, far above any allocator's. */
const ORDER_MAX = 30;

const trailingZeros = (word: number): number => 31 - Math.clz32(word & -word);

/** Order of the largest naturally aligned block that begins at `pfn` and has at most `count` pages. */
export function alignedOrder(pfn: number, count: number): number {
  const fits = 31 - Math.clz32(Math.min(count, 2 ** ORDER_MAX));
  // The low 32 bits decide; where they are all zero, any order that is made is aligned.
  const low = (pfn % 2 ** 32) | 0;
  return low === 0 ? fits : Math.min(fits, trailingZeros(low));
}

/** How many naturally aligned blocks make up `count` pages from `pfn`; stops counting above `max`. */
export function blocksIn(pfn: number, count: number, max: number): number {
  let blocks = 0;
  while (count > 0 && blocks <= max) {
    const pages = 2 ** alignedOrder(pfn, count);
    pfn += pages;
    count -= pages;
    blocks++;
  }
  return blocks;
}

export const ENTRY_BYTES = 8;

const ENTRY_HIGH_PFN = 2 ** (32 - PAGE_SHIFT);

/** The upper 52 bits of the 64-bit entry whose low half is at index `at`. */
export const upper52 = (u32: Uint32Array, at: number): number =>
  u32[at + 1] * ENTRY_HIGH_PFN + (u32[at] >>> PAGE_SHIFT);

/** A 64-bit number; from 2^53 on inexact but never below 2^53, so that every bound refuses it. */
export const u64At = (u32: Uint32Array, at: number): number => u32[at + 1] * 2 ** 32 + u32[at];

/** Puts a number below 2^53 at byte `at` of the list. */
export function putU64(list: PageList, at: number, value: number): void {
  list.u32[at / 4] = value % 2 ** 32;
  list.u32[at / 4 + 1] = Math.floor(value / 2 ** 32);
}
