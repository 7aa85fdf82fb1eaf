/** Durations in buckets. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DURATION_BOUNDS_MS, DurationHistogram } from '../../src/sys/durations.ts';

const duration = fc.oneof(
  fc.constantFrom(0, ...DURATION_BOUNDS_MS),
  fc.double({ min: 0, max: 5000, noNaN: true }),
);

test('bounds rise', () => {
  expect([...DURATION_BOUNDS_MS].sort((a, b) => a - b)).toEqual(DURATION_BOUNDS_MS);
});

test('every duration is counted once, in the first bucket whose bound it does not pass', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(duration, fc.integer({ min: 1, max: 256 }))), noted => {
      const histogram = new DurationHistogram();
      for (const [ms, times] of noted) histogram.count(ms, times);
      const bounds = [...DURATION_BOUNDS_MS, Number.POSITIVE_INFINITY];
      const inBucket = (index: number) => (ms: number) =>
        ms <= bounds[index] && (index === 0 || ms > bounds[index - 1]);
      const { counts, sumMs } = histogram.durations;
      expect(counts).toEqual(
        bounds.map((_, index) =>
          noted.reduce((total, [ms, times]) => total + (inBucket(index)(ms) ? times : 0), 0),
        ),
      );
      expect(sumMs).toBeCloseTo(
        noted.reduce((total, [ms, times]) => total + ms * times, 0),
        3,
      );
    }),
  );
});

test('what begins and ends takes as long as it takes', () => {
  const histogram = new DurationHistogram();
  const before = performance.now();
  histogram.begin();
  while (performance.now() - before < 2);
  histogram.end(3);
  const { counts, sumMs } = histogram.durations;
  expect(counts.reduce((total, count) => total + count)).toBe(3);
  expect(sumMs / 3).toBeGreaterThan(1);
  expect(sumMs / 3).toBeLessThanOrEqual(performance.now() - before);
});

test('histograms add up, also those that lie in shared memory', () => {
  const shared = new Float64Array(new SharedArrayBuffer(DurationHistogram.words * 8));
  new DurationHistogram(shared).count(0.3, 2);
  const other = new DurationHistogram();
  other.count(0.3, 1);
  other.count(5000, 1);
  other.add(new DurationHistogram(shared));
  const { counts, sumMs } = other.durations;
  expect([counts[DURATION_BOUNDS_MS.indexOf(0.5)], counts.at(-1)]).toEqual([3, 1]);
  expect(sumMs).toBeCloseTo(5000.9);
});
