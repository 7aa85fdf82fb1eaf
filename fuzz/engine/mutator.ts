/**
 * Makes inputs out of other inputs: a few small changes each, of the kinds that parsers of lengths, counts, flags
 * and addresses trip over. Knows nothing of what the bytes mean. All chance comes from the argument.
 */
import type { Random } from '../../src/guest/random.ts';

/** What most inputs stay below; lists and rings of interest fit many times over. */
export const INPUT_BYTES_MAX = 16 * 1024;
/** What one in {@link LONG_ODDS} may grow to: twice the longest list that is read (LIST_BYTES_MAX). */
export const LONG_INPUT_BYTES_MAX = 2 ** 21;
const LONG_ODDS = 1024;

/** Changes that one input gets, at most. */
const CHANGES_MAX = 8;
const INSERT_BYTES_MAX = 64;

/** Where comparisons, shifts and sums of 8 to 64 bits turn over. */
const EDGES = [
  0n,
  1n,
  2n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  2n ** 32n,
  2n ** 41n,
  2n ** 52n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 4096n,
  2n ** 64n - 1n,
];

const WIDTHS = [1, 2, 4, 8] as const;

type Change = (random: Random, bytes: Uint8Array, other: Uint8Array) => Uint8Array;

/** A stretch of `bytes` by chance; empty only where there are none. */
function stretch(random: Random, bytes: Uint8Array): { from: number; length: number } {
  if (bytes.length === 0) return { from: 0, length: 0 };
  const from = random.below(bytes.length);
  return { from, length: 1 + random.below(Math.min(bytes.length - from, INSERT_BYTES_MAX)) };
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

const inserted = (bytes: Uint8Array, at: number, more: Uint8Array): Uint8Array =>
  joined(bytes.subarray(0, at), more, bytes.subarray(at));

/** Rewrites a little-endian number of some width, at an offset of that alignment as often as not. */
function number(random: Random, bytes: Uint8Array, rewrite: (value: bigint) => bigint): Uint8Array {
  const width = WIDTHS[random.below(WIDTHS.length)];
  if (bytes.length < width) return bytes;
  let at = random.below(bytes.length - width + 1);
  if (random.chance(0.5)) at -= at % width;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let value = 0n;
  for (let byte = width - 1; byte >= 0; byte--) value = (value << 8n) | BigInt(view.getUint8(at + byte));
  let changed = rewrite(value);
  for (let byte = 0; byte < width; byte++) {
    view.setUint8(at + byte, Number(changed & 0xffn));
    changed >>= 8n;
  }
  return bytes;
}

const CHANGES: readonly Change[] = [
  // A bit, a byte.
  (random, bytes) => {
    if (bytes.length > 0) bytes[random.below(bytes.length)] ^= 1 << random.below(8);
    return bytes;
  },
  (random, bytes) => {
    if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
    return bytes;
  },
  // A number: to an edge, to just beside where it is, to another byte order.
  (random, bytes) => number(random, bytes, () => EDGES[random.below(EDGES.length)]),
  (random, bytes) => number(random, bytes, value => value + BigInt(random.between(-16, 16))),
  (random, bytes) => number(random, bytes, value => EDGES[random.below(EDGES.length)] - value),
  (random, bytes) => number(random, bytes, value => value << BigInt(random.below(16))),
  // More, less, again, elsewhere.
  (random, bytes) => {
    const more = new Uint8Array(1 + random.below(INSERT_BYTES_MAX));
    if (random.chance(0.5)) for (const at of more.keys()) more[at] = random.below(256);
    return inserted(bytes, random.below(bytes.length + 1), more);
  },
  (random, bytes) => {
    const { from, length } = stretch(random, bytes);
    return joined(bytes.subarray(0, from), bytes.subarray(from + length));
  },
  (random, bytes) => bytes.slice(0, random.below(bytes.length + 1)),
  (random, bytes) => {
    const { from, length } = stretch(random, bytes);
    return inserted(bytes, from, bytes.slice(from, from + length));
  },
  (random, bytes) => {
    const { from, length } = stretch(random, bytes);
    bytes.copyWithin(random.below(bytes.length + 1), from, from + length);
    return bytes;
  },
  // The beginning of one and the end of another.
  (random, bytes, other) =>
    joined(bytes.subarray(0, random.below(bytes.length + 1)), other.subarray(random.below(other.length + 1))),
  (random, bytes, other) => {
    const { from, length } = stretch(random, other);
    return inserted(bytes, random.below(bytes.length + 1), other.subarray(from, from + length));
  },
];

/** A new input made of `input`, perhaps with parts of `other`; both stay as they are. */
export function mutate(random: Random, input: Uint8Array, other: Uint8Array): Uint8Array {
  let bytes: Uint8Array = input.slice();
  const changes = 1 + random.below(CHANGES_MAX);
  for (let done = 0; done < changes; done++) {
    bytes = CHANGES[random.below(CHANGES.length)](random, bytes, other);
    if (bytes.length > INPUT_BYTES_MAX) bytes = bytes.slice(0, INPUT_BYTES_MAX);
  }
  return random.below(LONG_ODDS) === 0 ? repeated(random, bytes) : bytes;
}

/** The input over and over, for limits that only length reaches. */
function repeated(random: Random, bytes: Uint8Array): Uint8Array {
  if (bytes.length === 0) return bytes;
  const long = new Uint8Array(random.between(bytes.length, LONG_INPUT_BYTES_MAX));
  for (let at = 0; at < long.length; at += bytes.length) {
    long.set(bytes.subarray(0, Math.min(bytes.length, long.length - at)), at);
  }
  return long;
}
