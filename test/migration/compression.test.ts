import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { type Compression, zstd, zstdOfHost, zstdOfNode } from '../../src/migration/stream/compression.ts';
import { bomb, zstdFrame } from '../sys/zstd-frames.ts';

const present = Object.entries({ Node: zstdOfNode(), 'the host': zstdOfHost() }).filter(
  (entry): entry is [string, Compression] => entry[1] !== undefined,
);
const pairs = present.flatMap(([from, packs]) =>
  present.map(([to, unpacks]) => ({ from, packs, to, unpacks })),
);

const lengths = [1, 63, 64, 1000, 2 ** 17, 2 ** 17 + 1, 1_050_628];
const samples = lengths.flatMap(length => [
  new Uint8Array(length).fill(3),
  new Uint8Array(randomBytes(length)),
  Uint8Array.from({ length }, (_, i) => (i * i) >> 9),
]);

function packed(compression: Compression, bytes: Uint8Array): Uint8Array {
  const into = new Uint8Array(bytes.length + 2 ** 13);
  return into.subarray(0, compression.compress(bytes, into));
}

test('is there where Node or the host has it', () => {
  expect(zstd !== undefined).toBe(present.length > 0);
});

test.each(pairs)('what $from packed $to unpacks', ({ packs, unpacks }) => {
  for (const bytes of samples) {
    const into = new Uint8Array(bytes.length);
    expect(unpacks.decompress(packed(packs, bytes), into)).toBe(bytes.length);
    expect(Buffer.compare(into, bytes)).toBe(0);
  }
});

describe.each(present)('zstd of %s', (_, compression) => {
  const bytes = Uint8Array.from({ length: 5000 }, (_, i) => (i * i) >> 12);
  const frame = packed(compression, bytes);
  /** How many bytes come out; 'refused' where an error does. */
  const unpacked = (frame: Uint8Array, room: number): number | string => {
    try {
      return compression.decompress(frame, new Uint8Array(room));
    } catch {
      return 'refused';
    }
  };

  test('packs into the room that there is, or not at all', () => {
    expect(compression.compress(bytes, new Uint8Array(bytes.length))).toBe(frame.length);
    expect(compression.compress(bytes, new Uint8Array(frame.length - 1))).toBeUndefined();
    expect(compression.compress(new Uint8Array(randomBytes(5000)), new Uint8Array(4999))).toBeUndefined();
  });

  test('unpacks no bomb', () => {
    for (const size of [undefined, 1000, 2 ** 30, 2 ** 50]) {
      expect(unpacked(bomb(size), 1000)).toBe('refused');
      expect(unpacked(bomb(size), 10)).toBe('refused');
    }
    expect(unpacked(frame, 4999)).toBe('refused');
  });

  test('reads a frame that does not say how long it is', () => {
    expect(unpacked(zstdFrame({ blocks: [{ byte: 7, length: 500 }] }), 500)).toBe(500);
    expect(unpacked(zstdFrame({ blocks: [{ byte: 7, length: 500 }] }), 499)).toBe('refused');
  });

  test('never takes a frame that was cut for a whole one', () => {
    for (let length = 0; length < frame.length; length++) {
      expect(unpacked(frame.subarray(0, length), 5000)).not.toBe(5000);
    }
  });

  test('takes nothing after the frame, be it nonsense or another one', () => {
    for (const rest of [Uint8Array.of(0), frame, packed(compression, new Uint8Array())]) {
      const both = new Uint8Array(Buffer.concat([frame, rest]));
      expect(unpacked(both, 5000)).toBe('refused');
      expect(unpacked(both, 10_000)).toBe('refused');
    }
  });
});
