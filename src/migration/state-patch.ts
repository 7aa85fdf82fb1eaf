/**
 * What of a state has changed since it was sent ahead: stretches of bytes, so that little has to travel and be read again
 * while the guest stands still. Their layout is docs/migration-stream.md's. Both sides have the bytes of before; a patch makes
 * the new ones of them.
 */
import { StreamError } from './stream/section.ts';

/** Bytes [start, end) of a state. */
type ByteRange = readonly [start: number, end: number];

/** States are words, and one that has changed is seldom alone. */
const UNIT = 16;
/** The rehearsal whose states it is for, the new length, and the number of stretches. */
const HEAD_BYTES = 12;
/** Offset and length of a stretch. */
const STRETCH_BYTES = 8;

/** A patch that makes `to` of `from`, which came in rehearsal `number`; undefined where it would be no shorter than `to`. */
export function diffState(number: number, from: Uint8Array, to: Uint8Array): Uint8Array | undefined {
  const stretches = from.length === to.length ? differences(from, to) : middle(from, to);
  const length = stretches.reduce((sum, [start, end]) => sum + STRETCH_BYTES + end - start, HEAD_BYTES);
  if (length >= to.length) return undefined;
  const patch = new Uint8Array(length);
  const view = new DataView(patch.buffer);
  view.setUint32(0, number, true);
  view.setUint32(4, to.length, true);
  view.setUint32(8, stretches.length, true);
  let at = HEAD_BYTES;
  for (const [start, end] of stretches) {
    view.setUint32(at, start, true);
    view.setUint32(at + 4, end - start, true);
    patch.set(to.subarray(start, end), at + STRETCH_BYTES);
    at += STRETCH_BYTES + end - start;
  }
  return patch;
}

/**
 * What a patch makes of `from`, which came in rehearsal `number`.
 * @throws StreamError when it is none of these bytes; `lengthMax` bounds what comes out
 */
export function patchState(
  number: number,
  from: Uint8Array,
  patch: Uint8Array,
  lengthMax: number,
): Uint8Array {
  if (patch.length < HEAD_BYTES) throw refused('it is cut short');
  const view = new DataView(patch.buffer, patch.byteOffset, patch.length);
  const base = view.getUint32(0, true);
  if (base !== number) throw refused(`it is for rehearsal ${base}, and the last was ${number}`);
  const length = view.getUint32(4, true);
  const count = view.getUint32(8, true);
  if (length > lengthMax) throw new StreamError('limit', `a state of ${length} bytes`);
  const shift = length - from.length;
  const bytes = new Uint8Array(length);
  bytes.set(from.subarray(0, length));
  // Where it has grown or shrunk there is one stretch, and what came after it has moved.
  let at = HEAD_BYTES;
  let last = 0;
  for (let stretch = 0; stretch < count; stretch++) {
    if (at + STRETCH_BYTES > patch.length) throw refused('a stretch is missing');
    const start = view.getUint32(at, true);
    const size = view.getUint32(at + 4, true);
    at += STRETCH_BYTES;
    const end = start + size;
    const inside = start >= last && start <= from.length && end <= length && at + size <= patch.length;
    if (!inside) throw refused('a stretch lies outside of it');
    bytes.set(patch.subarray(at, at + size), start);
    at += size;
    last = end;
  }
  if (at !== patch.length) throw refused('bytes follow its end');
  if (shift === 0) return bytes;
  if (count !== 1 || last - shift < 0 || last - shift > from.length) throw refused('it grows in no place');
  bytes.set(from.subarray(last - shift), last);
  return bytes;
}

const refused = (why: string): StreamError => new StreamError('payload', `a patch of a state: ${why}`);

/** Units in which two states of one length differ, neighbours and near ones joined. */
function differences(from: Uint8Array, to: Uint8Array): ByteRange[] {
  const ranges: [number, number][] = [];
  const add = (start: number, end: number): void => {
    const last = ranges.at(-1);
    if (last !== undefined && start - last[1] <= GAP) last[1] = end;
    else ranges.push([start, end]);
  };
  const [before, after] = [wordsIn(from), wordsIn(to)];
  // Most of it is the same: large pieces are compared at the speed of memory, and those that differ are looked at closely.
  for (let start = 0; start < to.length; start += PIECE) {
    const end = Math.min(to.length, start + PIECE);
    if (same(from, to, start, end)) continue;
    for (let unit = start; unit < end; unit += UNIT) {
      const stop = Math.min(end, unit + UNIT);
      const whole = stop - unit === UNIT;
      if (whole ? !sameUnit(before, after, unit >>> 2) : !same(from, to, unit, stop)) add(unit, stop);
    }
  }
  return ranges;
}

/** A stretch costs its head, and its reader a call. */
const GAP = 4 * UNIT;

/** The whole words of it. */
function wordsIn(bytes: Uint8Array): Uint32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
  return new Uint32Array(aligned.buffer, aligned.byteOffset, aligned.length >>> 2);
}

/** A call into the runtime for each unit would be what a guest waits for that stands still. */
const sameUnit = (one: Uint32Array, other: Uint32Array, at: number): boolean =>
  one[at] === other[at] &&
  one[at + 1] === other[at + 1] &&
  one[at + 2] === other[at + 2] &&
  one[at + 3] === other[at + 3];

const PIECE = 2 ** 14;

const same = (from: Uint8Array, to: Uint8Array, start: number, end: number): boolean =>
  Buffer.compare(from.subarray(start, end), to.subarray(start, end)) === 0;

/** The one stretch of `to` outside of which both are alike, from their beginnings and from their ends. */
function middle(from: Uint8Array, to: Uint8Array): ByteRange[] {
  const shorter = Math.min(from.length, to.length);
  let start = 0;
  while (start + PIECE <= shorter && same(from, to, start, start + PIECE)) start += PIECE;
  let tail = 0;
  const tailMax = shorter - start;
  while (tail + PIECE <= tailMax && sameTail(from, to, tail, tail + PIECE)) tail += PIECE;
  return [[start, to.length - tail]];
}

const sameTail = (from: Uint8Array, to: Uint8Array, tail: number, end: number): boolean =>
  Buffer.compare(
    from.subarray(from.length - end, from.length - tail),
    to.subarray(to.length - end, to.length - tail),
  ) === 0;
