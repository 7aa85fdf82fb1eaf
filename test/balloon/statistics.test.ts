import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decodeStatistics,
  encodeStatistics,
  noStatistics,
  STATISTIC_NAMES,
  STATS_BYTES_MAX,
  type Statistics,
  StatisticsError,
} from '../../src/balloon/statistics.ts';
import { concat, hex } from './lists.ts';

const decode = (bytes: Uint8Array) =>
  decodeStatistics(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), bytes.length);

function encode(statistics: Partial<Statistics>): Uint8Array {
  const bytes = new Uint8Array(STATS_BYTES_MAX);
  return bytes.subarray(0, encodeStatistics(new DataView(bytes.buffer), statistics));
}

describe('statistics', () => {
  test('are a 16-bit tag and a 64-bit value each, packed', () => {
    const bytes = hex('0400 0000004000000000  0500 0000000001000000');
    expect(decode(bytes)).toEqual({ ...noStatistics(), freeBytes: 2 ** 30, totalBytes: 2 ** 32 });
    expect(encode({ totalBytes: 2 ** 32, freeBytes: 2 ** 30 })).toEqual(bytes);
  });

  test.each(STATISTIC_NAMES.map((name, tag) => ({ name, tag })))('$name has tag $tag', ({ name, tag }) => {
    expect(decode(Uint8Array.of(tag, 0, 7, 0, 0, 0, 0, 0, 0, 0))[name]).toBe(7);
  });

  test('come in any order, and of a tag that comes twice the last counts', () => {
    const bytes = hex('0500 0100000000000000  0000 0200000000000000  0500 0300000000000000');
    expect(decode(bytes)).toEqual({ ...noStatistics(), swapInBytes: 2, totalBytes: 3 });
  });

  test('of unknown tags are ignored', () => {
    expect(decode(hex('1000 0100000000000000  ffff 0100000000000000  0401 0100000000000000'))).toEqual(
      noStatistics(),
    );
  });

  test('that are unset, or larger than any memory, are not known', () => {
    const unset = hex('0400 ffffffffffffffff');
    expect(decode(unset).freeBytes).toBeNull();
    expect(encode({ freeBytes: null })).toEqual(unset);
    expect(decode(hex('0400 0000000000002000')).freeBytes).toBeNull();
    expect(decode(hex('0400 ffffffffffff1f00')).freeBytes).toBe(Number.MAX_SAFE_INTEGER);
    // Known once, unset later: the last counts here too.
    expect(decode(concat(hex('0400 0100000000000000'), unset)).freeBytes).toBeNull();
  });

  test.each([1_000_000, 10_000_000, STATS_BYTES_MAX + 4])('of %i bytes are refused unread', length => {
    const view = new DataView(new ArrayBuffer(0));
    expect(() => decodeStatistics(view, length)).toThrow(StatisticsError);
  });

  test('that end inside an entry are refused', () => {
    for (let length = 1; length < 10; length++) {
      expect(() => decode(new Uint8Array(20 + length))).toThrow(`ends after ${length} bytes`);
    }
    expect(decode(new Uint8Array(0))).toEqual(noStatistics());
  });

  test('are the same after encoding and decoding', () => {
    const value = fc.option(fc.nat(Number.MAX_SAFE_INTEGER));
    const some = fc.record(
      Object.fromEntries(STATISTIC_NAMES.map(name => [name, value])) as Record<
        keyof Statistics,
        typeof value
      >,
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(some, statistics => {
        expect(decode(encode(statistics))).toEqual({ ...noStatistics(), ...statistics });
      }),
    );
  });

  test('of arbitrary bytes are numbers or not known, or refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
        try {
          for (const value of Object.values(decode(bytes))) {
            expect(value === null || Number.isSafeInteger(value)).toBe(true);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(StatisticsError);
        }
      }),
    );
  });
});
