/** Page lists from bytes and back, for the tests of this folder. */
import { PageList, PageListError, type PageListFault } from '../../src/balloon/page-list.ts';
import { EncodeCursor, type EncodeLimits, type PageListFormat } from '../../src/balloon/page-list-format.ts';
import { PageRanges } from '../../src/memory/page-ranges.ts';

export type Run = readonly [pfn: number, count: number];

/** Bytes from hexadecimal digits; blanks are for the reader. */
export const hex = (digits: string): Uint8Array =>
  Uint8Array.from(Buffer.from(digits.replace(/\s/g, ''), 'hex'));

/** Little-endian bytes of 64-bit words. */
export function words64(...values: readonly bigint[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 8));
  for (const [index, value] of values.entries()) view.setBigUint64(index * 8, value, true);
  return new Uint8Array(view.buffer);
}

export const concat = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));

/** A list that arrived as `bytes`, in a buffer that an earlier list left dirty. */
export function listOf(bytes: Uint8Array, start = 0): PageList {
  const list = new PageList();
  list.bytes.fill(0xff);
  list.reserve(bytes.length);
  list.bytes.set(bytes);
  list.length = bytes.length;
  list.beginAt(start);
  return list;
}

/** A list of in-bufs. */
export function extentsOf(...extents: readonly (readonly [address: number, length: number])[]): PageList {
  const list = new PageList();
  for (const [address, length] of extents) list.addExtent(address, length);
  return list;
}

/** The runs that a list names, each as the decoder gave it. */
export function runsOf(format: PageListFormat, list: PageList): Run[] {
  const runs: Run[] = [];
  format.decode(list, { add: (pfn, count) => runs.push([pfn, count]) });
  return runs;
}

/** Why a list is refused; undefined when it is not. Fails when a page was given out before the refusal. */
export function faultOf(format: PageListFormat, list: PageList): PageListFault | undefined {
  let calls = 0;
  try {
    format.decode(list, { add: () => calls++ });
  } catch (error) {
    if (!(error instanceof PageListError)) throw error;
    if (calls > 0) throw new Error('pages were given out before the list was refused');
    return error.reason;
  }
  return undefined;
}

/** All lists that `runs` take, as bytes. */
export function listsOf(format: PageListFormat, runs: readonly Run[], limits?: EncodeLimits): Uint8Array[] {
  const ranges = new PageRanges();
  for (const [pfn, count] of runs) ranges.append(pfn, count);
  const cursor = new EncodeCursor();
  const lists: Uint8Array[] = [];
  while (!cursor.done(ranges)) {
    const list = new PageList();
    format.encode(ranges, cursor, list, limits);
    lists.push(list.bytes.slice(0, list.length));
  }
  return lists;
}
