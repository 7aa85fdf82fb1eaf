import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Libzstd } from '../../src/sys/libzstd.ts';
import { bomb, zstdFrame } from './zstd-frames.ts';

const library = Libzstd.open();
const ZSTD_ERROR = expect.objectContaining({ code: 'AEROSTAT_ZSTD' });

/** Unpacks into `length` bytes, and expects that those beside them stay as they are. */
function unpack(zstd: Libzstd, frame: Uint8Array, length: number): Uint8Array {
  const around = new Uint8Array(length + 128).fill(0xa5);
  const into = around.subarray(64, 64 + length);
  try {
    return into.slice(0, zstd.decompress(frame, into));
  } finally {
    const beside = Buffer.concat([around.subarray(0, 64), around.subarray(64 + length)]);
    expect(beside.equals(Buffer.alloc(128, 0xa5))).toBe(true);
  }
}

function pack(zstd: Libzstd, bytes: Uint8Array): Uint8Array {
  const into = new Uint8Array(bytes.length + 1024);
  const length = zstd.compress(bytes, into, 1);
  return into.slice(0, length);
}

/** The most address space that this process ever had, in bytes. */
const peakBytes = (): number =>
  Number(/VmPeak:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;

/** Repetitive and not, so that blocks of every kind come of it. */
const contents = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.tuple(fc.nat(255), fc.nat(5000)).map(([byte, length]) => new Uint8Array(length).fill(byte)),
    ),
    { maxLength: 12 },
  )
  .map(parts => new Uint8Array(Buffer.concat(parts)));

test('a library that is not there is none', () => {
  expect(Libzstd.open('libaerostat-has-no-such.so.1')).toBeUndefined();
  // One that is there, and is another.
  expect(Libzstd.open('libc.so.6')).toBeUndefined();
});

describe.skipIf(library === undefined)('the zstd of this host', () => {
  const zstd = library as Libzstd;

  test('gives back what it took', () => {
    fc.assert(
      fc.property(contents, bytes => {
        expect(Buffer.compare(unpack(zstd, pack(zstd, bytes), bytes.length), bytes)).toBe(0);
      }),
    );
  });

  test('says when there is no room, and writes nothing beside it', () => {
    fc.assert(
      fc.property(contents, fc.nat(400), (bytes, room) => {
        const around = new Uint8Array(room + 64).fill(0xa5);
        const length = zstd.compress(bytes, around.subarray(0, room), 1);
        expect(length === undefined || length <= room).toBe(true);
        expect(around.subarray(room).every(byte => byte === 0xa5)).toBe(true);
      }),
    );
    expect(zstd.compress(new Uint8Array(100), new Uint8Array(3), 1)).toBeUndefined();
  });

  test('unpacks no more than there is room for, whatever the frame claims', () => {
    for (const frame of [bomb(), bomb(2 ** 30), bomb(1000), bomb(2 ** 50)]) {
      expect(() => unpack(zstd, frame, 1000)).toThrow(ZSTD_ERROR);
    }
    const bytes = new Uint8Array(1000).fill(1);
    expect(() => unpack(zstd, pack(zstd, bytes), 999)).toThrow(/too small/);
    expect(unpack(zstd, pack(zstd, bytes), 2000)).toEqual(bytes);
    // Honest, and without a word about its size.
    const silent = zstdFrame({ blocks: [{ byte: 7, length: 500 }, Uint8Array.of(1, 2, 3)] });
    expect(unpack(zstd, silent, 503)).toHaveLength(503);
    expect(() => unpack(zstd, silent, 502)).toThrow(ZSTD_ERROR);
    // A claim that what follows does not keep.
    const liar = zstdFrame({ blocks: [{ byte: 7, length: 500 }], contentSize: 400 });
    expect(() => unpack(zstd, liar, 1000)).toThrow(ZSTD_ERROR);
  });

  test('sets no memory aside for a frame that claims to look back two gibibytes', () => {
    const before = peakBytes();
    const frame = zstdFrame({ blocks: [{ byte: 7, length: 500 }], windowLog: 31 });
    expect(unpack(zstd, frame, 500)).toEqual(new Uint8Array(500).fill(7));
    expect(peakBytes() - before).toBeLessThan(2 ** 30);
  });

  test('takes one whole frame and nothing else', () => {
    const bytes = Uint8Array.from({ length: 3000 }, (_, i) => (i * i) >> 12);
    const frame = pack(zstd, bytes);
    for (let length = 0; length < frame.length; length++) {
      expect(() => unpack(zstd, frame.subarray(0, length), bytes.length)).toThrow(ZSTD_ERROR);
    }
    const followed = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat([frame, ...parts]));
    expect(() => unpack(zstd, followed(Uint8Array.of(0)), 9000)).toThrow(/1 bytes come after/);
    expect(() => unpack(zstd, followed(frame), 9000)).toThrow(/come after the frame/);
    expect(() => unpack(zstd, followed(pack(zstd, new Uint8Array())), 9000)).toThrow(/come after the frame/);
    // A frame to pass over, one of zstd 0.5's format, and one that needs a dictionary.
    expect(() => unpack(zstd, Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0), 10)).toThrow(/no frame/);
    expect(() => unpack(zstd, Uint8Array.of(0x25, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0), 10)).toThrow(/no frame/);
    const foreign = zstdFrame({ blocks: [{ byte: 7, length: 5 }], dictionary: 77 });
    expect(() => unpack(zstd, foreign, 5)).toThrow(/[Dd]ictionary/);
  });

  test('makes of any bytes an error, or no more than there is room for, and is none the worse for it', () => {
    const bytes = Uint8Array.from({ length: 4000 }, (_, i) => (i * i) >> 12);
    const frame = pack(zstd, bytes);
    const patches = fc.array(fc.tuple(fc.nat(frame.length - 1), fc.nat(255)), { minLength: 1, maxLength: 5 });
    const changed = patches.map(list => {
      const copy = frame.slice();
      for (const [at, byte] of list) copy[at] = byte;
      return copy;
    });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array(), changed), fc.nat(5000), (nonsense, room) => {
        try {
          expect(unpack(zstd, nonsense, room).length).toBeLessThanOrEqual(room);
        } catch (error) {
          expect(error).toEqual(ZSTD_ERROR);
        }
        expect(Buffer.compare(unpack(zstd, frame, bytes.length), bytes)).toBe(0);
      }),
      { numRuns: 2000 },
    );
  });
});
