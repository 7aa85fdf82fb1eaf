import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DurationError, formatDuration, parseDuration } from '../../src/cli/duration.ts';
import { parseRate } from '../../src/cli/rate.ts';
import { formatSize, parsePages, parseSize, SizeError } from '../../src/cli/size.ts';

describe('sizes', () => {
  test.each([
    ['0', 0],
    ['4096', 4096],
    ['4096B', 4096],
    ['512M', 512 * 2 ** 20],
    ['512MiB', 512 * 2 ** 20],
    ['7G', 7 * 2 ** 30],
    ['7 gib', 7 * 2 ** 30],
    ['1.5g', 1.5 * 2 ** 30],
    [' 2k ', 2048],
    ['1T', 2 ** 40],
    ['0.3K', 307],
  ])('%s is understood', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each(['', 'G', '-1G', '1,5G', '1.G', '.5G', '1e9', '0x10', '1KB', '1 0', '9999999T', 'NaN'])(
    '"%s" is refused with an example of what is right',
    text => {
      expect(() => parseSize(text)).toThrow(SizeError);
      expect(() => parseSize(text)).toThrow(/is not a size: .+/);
    },
  );

  test('pages are whole, and a size below one is a forgotten unit', () => {
    expect(parsePages('4097')).toBe(4096);
    expect(parsePages('1.1G') % 4096).toBe(0);
    expect(parsePages('0')).toBe(0);
    expect(() => parsePages('512')).toThrow(/was 512M meant/);
  });

  test.each([
    [0, '0'],
    [1023, '1023'],
    [1024, '1K'],
    [1536, '1.5K'],
    [2 ** 20 - 1, '1M'],
    [7 * 2 ** 30, '7G'],
    [1.5 * 2 ** 30, '1.5G'],
    [2.93 * 2 ** 30, '2.93G'],
    [4096 * 2 ** 40, '4096T'],
  ])('%i bytes are shown as %s', (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });

  test('what is shown is understood again, within half a percent', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 52 }), bytes => {
        const again = parseSize(formatSize(bytes));
        expect(Math.abs(again - bytes)).toBeLessThanOrEqual(bytes * 0.005 + 1);
      }),
    );
  });

  test('any text is a size or a typed error', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[0-9.]{1,8} ?[KMGTiB]{0,3}$/)), text => {
        try {
          expect(Number.isSafeInteger(parseSize(text))).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(SizeError);
        }
      }),
    );
  });
});

describe('durations', () => {
  test.each([
    ['0', 0],
    ['500ms', 500],
    ['5s', 5000],
    ['1.5s', 1500],
    ['1m', 60_000],
    ['2h', 7_200_000],
  ])('%s is understood', (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  test.each(['', '5', '-1s', '5 minutes', '1d', '1e3s', '9999h'])('"%s" is refused', text => {
    expect(() => parseDuration(text)).toThrow(DurationError);
  });

  test.each([
    [0, '0ms'],
    [87.4, '87ms'],
    [999.6, '1s'],
    [1500, '1.5s'],
    [59_990, '1m'],
    [125_000, '2m 5s'],
    [3_600_000, '1h'],
    [12_000_000, '3h 20m'],
  ])('%d ms are shown as %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});

describe('rates', () => {
  test.each([
    ['10gbit', 1_250_000_000],
    ['100mbit', 12_500_000],
    ['1G', 2 ** 30],
    ['1G/s', 2 ** 30],
  ])('%s is understood', (text, bytes) => {
    expect(parseRate(text)).toBe(bytes);
  });

  test.each(['12Q', '', '10gbps', '0', '-1gbit'])('"%s" is not a rate, and the error says so', text => {
    expect(() => parseRate(text)).toThrow(expect.objectContaining({ code: 'AEROSTAT_RATE' }));
    expect(() => parseRate(text)).toThrow(/is not a rate: /);
  });
});
