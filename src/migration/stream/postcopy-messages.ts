/** What the sections say of which a migration has need when pages come after the guest runs. */
import { maskOf, wordsFor } from '../../memory/page-bitmap.ts';
import type { SlotBitmap } from '../slot-bitmap.ts';
import { PayloadWriter } from './messages.ts';
import { StreamError } from './section.ts';
import { PayloadReader } from './section-reader.ts';
import type { SectionWriter } from './section-writer.ts';

/** Pages that one section tells of: 32 KiB of bits. */
const MISSING_PAGES_MAX = 2 ** 18;
const MISSING_BYTES_MAX = MISSING_PAGES_MAX / 8;
/** Pages that one section asks for. */
export const WANTED_PAGES_MAX = 256;
const WORD_BITS = 32;

export interface FaultCounts {
  /** How often a thread of the guest waited for a page. */
  readonly faults: number;
  /** The longest of it. */
  readonly longestUs: number;
}

export interface Want extends FaultCounts {
  readonly slots: readonly number[];
}

export interface MissingPages {
  /** The slot of the first bit, a multiple of 32. */
  readonly start: number;
  /** Little-endian words, as this host's are. */
  readonly words: Int32Array;
}

/**
 * The sections that name the pages of `bitmap` in [from, to), one after the other; none for stretches without any. `from` is a
 * multiple of 32.
 */
export function* writeMissing(
  writer: SectionWriter,
  bitmap: SlotBitmap,
  from = 0,
  to: number = bitmap.slots,
): Generator<Uint8Array> {
  for (let start = from; start < to; start += MISSING_PAGES_MAX) {
    const end = Math.min(to, start + MISSING_PAGES_MAX);
    if (bitmap.countIn(start, end) === 0) continue;
    // At once, and not word by word: the guest stands still.
    const words = bitmap.words.slice(start / WORD_BITS, wordsFor(end));
    words[words.length - 1] &= maskOf(wordsFor(end) - 1, start, end);
    yield new PayloadWriter(writer).u32(start).bytes(new Uint8Array(words.buffer)).seal('missing');
  }
}

/** @throws StreamError when it is not a whole number of words of pages that there are */
export function readMissing(payload: Uint8Array, slots: number): MissingPages {
  const reader = new PayloadReader('missing', payload);
  const start = reader.u32();
  const bytes = reader.rest();
  const pages = bytes.length * 8;
  if (
    bytes.length === 0 ||
    bytes.length > MISSING_BYTES_MAX ||
    bytes.length % 4 !== 0 ||
    start % WORD_BITS !== 0 ||
    start >= slots ||
    start + pages > Math.ceil(slots / WORD_BITS) * WORD_BITS
  ) {
    throw new StreamError('payload', `missing: ${pages} pages from page ${start} of a guest of ${slots}`);
  }
  const words = new Int32Array(new Uint8Array(bytes).buffer);
  if (start + pages > slots && (words[words.length - 1] & ~maskOf(0, 0, slots % WORD_BITS)) !== 0) {
    throw new StreamError('payload', `missing: pages beyond the ${slots} of the guest`);
  }
  return { start, words };
}

export function writeWant(writer: SectionWriter, { faults, longestUs, slots }: Want): Uint8Array {
  const payload = new PayloadWriter(writer).u32(faults).u32(longestUs);
  for (const slot of slots) payload.u32(slot);
  return payload.seal('want');
}

/** @throws StreamError when it names no page, too many, or one that there is not */
export function readWant(payload: Uint8Array, slots: number): Want {
  const reader = new PayloadReader('want', payload);
  const faults = reader.u32();
  const longestUs = reader.u32();
  const count = (payload.length - 8) / 4;
  if (!Number.isInteger(count) || count < 1 || count > WANTED_PAGES_MAX) {
    throw new StreamError('payload', `want: ${count} pages in one section`);
  }
  const wanted = Array.from({ length: count }, () => reader.u32());
  const stranger = wanted.find(slot => slot >= slots);
  if (stranger !== undefined)
    throw new StreamError('payload', `want: page ${stranger} of a guest of ${slots}`);
  return { faults, longestUs, slots: wanted };
}

export const writeArrived = (writer: SectionWriter, { faults, longestUs }: FaultCounts): Uint8Array =>
  new PayloadWriter(writer).u32(faults).u32(longestUs).seal('arrived');

export function readArrived(payload: Uint8Array): FaultCounts {
  const reader = new PayloadReader('arrived', payload);
  const counts = { faults: reader.u32(), longestUs: reader.u32() };
  reader.end();
  return counts;
}
