/** Bytes as an enemy would change them. */
import type { Random } from '../../src/guest/random.ts';

/** A copy with a bit flipped, or some bytes overwritten, left out, told twice or wiped: at `at`, or anywhere. */
export function mutate(bytes: Buffer, random: Random, at = random.below(Math.max(1, bytes.length))): Buffer {
  if (bytes.length === 0) return Buffer.from([random.below(256)]);
  const copy = Buffer.from(bytes);
  const length = random.between(1, Math.min(64, copy.length - at));
  switch (random.below(5)) {
    case 0:
      copy[at] ^= 1 << random.below(8);
      return copy;
    case 1:
      for (let i = at; i < at + length; i++) copy[i] = random.below(256);
      return copy;
    case 2:
      return Buffer.concat([copy.subarray(0, at), copy.subarray(at + length)]);
    case 3:
      return Buffer.concat([copy.subarray(0, at + length), copy.subarray(at)]);
    default:
      copy.fill(random.chance(0.5) ? 255 : 0, at, at + length);
      return copy;
  }
}
