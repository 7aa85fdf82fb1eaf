import { describe, expect, test } from 'vitest';
import { applyDriverWrite, CONFIG, isDriverWritable } from '../../src/balloon/config-space.ts';

describe('the configuration space', () => {
  test('is four little-endian 32-bit fields', () => {
    const fields = { numPages: 0x01020304, actual: 5, freePageHintCommandId: 0x80000001, poisonValue: 0xaa };
    expect([...CONFIG.encode(fields)]).toEqual([4, 3, 2, 1, 5, 0, 0, 0, 1, 0, 0, 0x80, 0xaa, 0, 0, 0]);
  });

  test('gives the driver `actual` and `poison_val` to write, and nothing else', () => {
    const writable = Array.from({ length: 20 }, (_, offset) => offset).filter(isDriverWritable);
    expect(writable).toEqual([4, 5, 6, 7, 12, 13, 14, 15]);
  });

  test('keeps its own fields when a front-end writes the whole space back', () => {
    const config = CONFIG.encode({ numPages: 100, actual: 1, freePageHintCommandId: 7, poisonValue: 0 });
    const stale = CONFIG.encode({ numPages: 50, actual: 2, freePageHintCommandId: 0, poisonValue: 0xaa });
    expect(applyDriverWrite(config, 0, stale)).toBe(true);
    expect(CONFIG.read(new DataView(config.buffer))).toEqual({
      numPages: 100,
      actual: 2,
      freePageHintCommandId: 7,
      poisonValue: 0xaa,
    });
    expect(applyDriverWrite(config, 0, stale)).toBe(false);
  });

  test('takes writes of single bytes', () => {
    const config = new Uint8Array(16);
    expect(applyDriverWrite(config, 5, Uint8Array.of(0x12))).toBe(true);
    expect(applyDriverWrite(config, 3, Uint8Array.of(0xff))).toBe(false);
    expect([...config.subarray(0, 8)]).toEqual([0, 0, 0, 0, 0, 0x12, 0, 0]);
  });

  test('ignores what lies beyond the end of a shorter space', () => {
    const config = new Uint8Array(8);
    expect(applyDriverWrite(config, 0, new Uint8Array(300).fill(9))).toBe(true);
    expect([...config]).toEqual([0, 0, 0, 0, 9, 9, 9, 9]);
    expect(applyDriverWrite(config, 12, Uint8Array.of(1, 2, 3, 4))).toBe(false);
    expect(applyDriverWrite(config, 2 ** 40, Uint8Array.of(1))).toBe(false);
  });
});
