/**
 * Bitmaps that are nearly empty: stretches of words are compared with zeros at the speed of memory, and only those that hold
 * something are visited, word by word, by the caller. What other threads set meanwhile may be missed, as it would be had they
 * set it a moment later.
 */
const STRETCH_WORDS = 1024;
const ZEROS = new Uint8Array(STRETCH_WORDS * 4);

/** Calls `visit` with the stretches [from, to) of words in [start, end) in which there is something. */
export function forEachFilled(
  words: Int32Array,
  start: number,
  end: number,
  visit: (from: number, to: number) => void,
): void {
  for (let from = start; from < end; from += STRETCH_WORDS) {
    const to = Math.min(end, from + STRETCH_WORDS);
    const bytes = new Uint8Array(words.buffer, words.byteOffset + from * 4, (to - from) * 4);
    if (Buffer.compare(bytes, ZEROS.subarray(0, bytes.length)) !== 0) visit(from, to);
  }
}
