/**
 * A page list on its way between the two sides, as both handle it: the bytes of its out-bufs in one private
 * buffer, however the guest cut them over descriptors, and the addresses and lengths of its in-bufs. One
 * object per queue is filled, decoded and cleared for every buffer; nothing is allocated in between. What the
 * bytes mean is the formats' business.
 */
import { AerostatError, assert } from '../sys/error.ts';

/** Why a page list was refused. */
export type PageListFault =
  /** Ends inside an entry, or before what its header announced. */
  | 'truncated'
  /** Goes on after what its header announced. */
  | 'surplus'
  /** Longer than any list that a format defines. */
  | 'too-long'
  /** A run of no pages. */
  | 'empty-run'
  /** Pages beyond the last one that a 53-bit address names, or beyond what the format can say. */
  | 'range'
  /** Pages smaller than 4 KiB, or too large for an address. */
  | 'page-shift'
  /** A bitmap of a length that the format does not know. */
  | 'bitmap-length'
  /** An address or length in the middle of a page. */
  | 'alignment'
  /** Out-bufs where the format has in-bufs, or both at once. */
  | 'direction'
  /** A message that is not what the protocol has at this place. */
  | 'message';

/** A page list or message that cannot be understood. Nothing of it was taken over. */
export class PageListError extends AerostatError {
  readonly reason: PageListFault;

  constructor(reason: PageListFault, message: string) {
    super('AEROSTAT_PAGE_LIST', message);
    this.reason = reason;
  }
}

/**
 * The longest list that is looked at, in bytes. The largest that any format defines is page-bitmap's, 32
 * bitmaps of 32 KiB and a header; that is also four times 65536 page numbers, and thirty times 2047 chunks. The
 * page on top leaves room for headers and request messages. A longer list is returned unread.
 */
export const LIST_BYTES_MAX = 32 * 32_768 + 4096;
/** What a list starts with: sixteen times the 1 KiB lists of Linux. A guest that sends more costs LIST_BYTES_MAX. */
const LIST_BYTES_START = 16_384;

/** In-bufs that one list may have: as many as the largest virtqueue has descriptors (VIRTIO 1.4, 2.7). */
export const LIST_EXTENTS_MAX = 32_768;
const LIST_EXTENTS_START = 64;

/** Places where an encoded list may be cut; page-bitmap needs one for each of its 32 bitmaps. */
const CUTS_MAX = 32;

/** Lists begin at a multiple of this, so that 32-bit lanes and 64-bit entries line up. */
const START_ALIGNMENT = 8;

export class PageList {
  /** The readable bytes; three views of one buffer, replaced by {@link reserve} when it grows. */
  bytes = new Uint8Array(LIST_BYTES_START);
  u32 = new Uint32Array(this.bytes.buffer);
  view = new DataView(this.bytes.buffer);
  /** How many of {@link bytes} are the list's. */
  length = 0;
  /** Where in {@link bytes} the page list begins: behind a request message, else 0. */
  start = 0;

  /** How far a reader that takes the list in parts has come, as its format counts; 0 in the beginning. */
  at = 0;

  /** In-bufs: guest physical address and length in bytes of each. */
  extentAddresses = new Float64Array(LIST_EXTENTS_START);
  extentLengths = new Float64Array(LIST_EXTENTS_START);
  extentCount = 0;

  /** Offsets into {@link bytes}, rising, at each of which a writer begins another out-buf. */
  readonly cuts = new Uint32Array(CUTS_MAX);
  cutCount = 0;

  clear(): void {
    this.length = 0;
    this.start = 0;
    this.at = 0;
    this.extentCount = 0;
    this.cutCount = 0;
  }

  /**
   * Makes room for `length` readable bytes, keeping what is there; call it before filling {@link bytes}.
   * @throws PageListError `too-long` above LIST_BYTES_MAX
   */
  reserve(length: number): void {
    if (length <= this.bytes.length) return;
    if (!(length <= LIST_BYTES_MAX)) {
      throw new PageListError('too-long', `a page list of ${length} bytes; the limit is ${LIST_BYTES_MAX}`);
    }
    const grown = new Uint8Array(LIST_BYTES_MAX);
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
    this.u32 = new Uint32Array(grown.buffer);
    this.view = new DataView(grown.buffer);
  }

  /** Begins the page list at `start`, behind a message of that many bytes. */
  beginAt(start: number): void {
    assert(start % START_ALIGNMENT === 0, `a page list at offset ${start}`);
    this.start = start;
    this.length = Math.max(this.length, start);
  }

  /** @throws PageListError `too-long` above LIST_EXTENTS_MAX */
  addExtent(address: number, length: number): void {
    const index = this.extentCount;
    if (index === this.extentAddresses.length) this.#growExtents();
    this.extentAddresses[index] = address;
    this.extentLengths[index] = length;
    this.extentCount = index + 1;
  }

  /** The next out-buf begins at `offset`. */
  cutAt(offset: number): void {
    assert(this.cutCount < CUTS_MAX, 'too many cuts in a page list');
    this.cuts[this.cutCount++] = offset;
  }

  /** Bytes of the page list itself, without a message before it. */
  get listBytes(): number {
    return this.length - this.start;
  }

  #growExtents(): void {
    if (this.extentCount >= LIST_EXTENTS_MAX) {
      throw new PageListError('too-long', `a page list of more than ${LIST_EXTENTS_MAX} in-bufs`);
    }
    const addresses = new Float64Array(LIST_EXTENTS_MAX);
    const lengths = new Float64Array(LIST_EXTENTS_MAX);
    addresses.set(this.extentAddresses);
    lengths.set(this.extentLengths);
    this.extentAddresses = addresses;
    this.extentLengths = lengths;
  }
}
