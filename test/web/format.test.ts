import { describe, expect, test } from 'vitest';
import { clock, percent } from '../../web/src/format.ts';

describe('the time of an event', () => {
  const at = (day: number, hour: number) => new Date(2026, 10, day, hour, 5, 7).getTime();

  test('of today is the time of day', () => {
    expect(clock(at(21, 9), at(21, 23))).toBe('09:05:07');
  });

  test('of another day says which', () => {
    expect(clock(at(20, 23), at(21, 0))).toBe('Nov 20 23:05:07');
  });
});

describe('a share', () => {
  test.each([
    [null, '–'],
    [0, '0 %'],
    [0.0002, '< 0.1 %'],
    [0.005, '0.5 %'],
    [0.25, '25 %'],
  ])('of %s reads %s', (share, text) => {
    expect(percent(share)).toBe(text);
  });
});
