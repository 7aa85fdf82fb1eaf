import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readU64, struct, writeU64 } from '../../src/sys/struct.ts';

const SAMPLE = struct('sample', 24, {
  byte: ['u8', 0],
  half: ['u16', 2],
  word: ['u32', 4],
  long: ['u64', 8],
  bits: ['bits64', 16],
});

const sample = fc.record({
  byte: fc.nat(0xff),
  half: fc.nat(0xffff),
  word: fc.nat(0xffff_ffff),
  long: fc.maxSafeNat(),
  bits: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
});

describe('a structure', () => {
  test('reads what it wrote, at any offset, and leaves everything else alone', () => {
    fc.assert(
      fc.property(sample, fc.nat(40), fc.uint8Array({ minLength: 64, maxLength: 64 }), (value, at, noise) => {
        const bytes = noise.slice();
        const view = new DataView(bytes.buffer);
        SAMPLE.write(view, at, value);
        expect(SAMPLE.read(view, at)).toEqual(value);
        expect(bytes.subarray(0, at)).toEqual(noise.subarray(0, at));
        expect(bytes.subarray(at + SAMPLE.size)).toEqual(noise.subarray(at + SAMPLE.size));
        // What no field covers is 0, whatever was there.
        expect(bytes[at + 1]).toBe(0);
        expect(SAMPLE.encode(value)).toEqual(bytes.slice(at, at + SAMPLE.size));
      }),
    );
  });

  test('reads any bytes, and writes them again as they were', () => {
    const DENSE = struct('dense', 16, {
      low: ['bits64', 0],
      word: ['u32', 8],
      half: ['u16', 12],
      a: ['u8', 14],
      b: ['u8', 15],
    });
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), bytes => {
        expect(DENSE.encode(DENSE.read(new DataView(bytes.slice().buffer)))).toEqual(bytes);
      }),
    );
  });

  test('is little-endian', () => {
    const bytes = SAMPLE.encode({
      byte: 1,
      half: 0x0203,
      word: 0x04050607,
      long: 2 ** 52 + 1,
      bits: 0x8000_0000_0000_0000n,
    });
    expect([...bytes]).toEqual([1, 0, 3, 2, 7, 6, 5, 4, 1, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
  });

  test('says where its fields are', () => {
    expect(SAMPLE.offset).toEqual({ byte: 0, half: 2, word: 4, long: 8, bits: 16 });
    expect([SAMPLE.name, SAMPLE.size]).toEqual(['sample', 24]);
  });

  test('is refused at once when its table is wrong', () => {
    expect(() => struct('wrong', 4, { a: ['u32', 0], b: ['u16', 2] })).toThrow('wrong.b overlaps');
    expect(() => struct('wrong', 8, { a: ['u32', 2] })).toThrow('wrong.a is misaligned');
    expect(() => struct('wrong', 12, { a: ['bits64', 4] })).toThrow('wrong.a is misaligned');
    expect(() => struct('wrong', 4, { a: ['u64', 0] })).toThrow('wrong.a does not fit 4 bytes');
  });
});

test('a 64-bit number keeps its value below 2^53, and its size above', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), value => {
      const view = new DataView(new ArrayBuffer(8));
      view.setBigUint64(0, value, true);
      const read = readU64(view, 0);
      if (value < 2n ** 53n) {
        expect(BigInt(read)).toBe(value);
        writeU64(view, 0, read);
        expect(view.getBigUint64(0, true)).toBe(value);
      } else {
        expect(read).toBeGreaterThanOrEqual(2 ** 53);
      }
    }),
  );
});
