import { describe, expect, test } from 'vitest';
import {
  RETRY_MS_MAX,
  RETRY_MS_MIN,
  STUCK_MS,
  SWING_WINDOW_MS,
  SWINGS_MAX,
  TargetWatch,
} from '../../src/hosting/target-watch.ts';

const GIVEN = 100_000;
const HELD = 75_000;

function watching(target = GIVEN, actual = 0) {
  const watch = new TargetWatch((pages, wanted) => Math.abs(pages - wanted) < 16);
  watch.aim(target, actual, 0);
  return watch;
}

/** The guest gives 256 pages and takes them back, a thousand times a second. */
function swing(watch: TargetWatch, fromMs: number, turns = SWINGS_MAX): number {
  let nowMs = fromMs;
  for (let turn = 0; turn < turns; turn++) {
    watch.actual(HELD + 256, nowMs);
    nowMs++;
    watch.actual(HELD, nowMs);
  }
  return nowMs;
}

describe('a balloon', () => {
  test('is stuck since it came no nearer to its target, however long that takes to be noticed', () => {
    const watch = watching();
    watch.actual(500, 1000);
    watch.actual(300, 1500);
    watch.actual(500, 2000);
    expect(watch.dueMs).toBe(2000 + STUCK_MS);
    expect(watch.stuckSinceMs(2000 + STUCK_MS - 1)).toBeNull();
    expect(watch.stuckSinceMs(9e6)).toBe(2000);
    watch.actual(501, 9e6);
    expect(watch.stuckSinceMs(9e6)).toBeNull();
  });

  test('is stuck as well where it does not give back', () => {
    const watch = watching(0, 5000);
    expect(watch.stuckSinceMs(STUCK_MS)).toBe(0);
  });

  test('at its target is never stuck, nor one without a driver', () => {
    const watch = watching();
    watch.actual(GIVEN - 3, 10);
    expect(watch.dueMs).toBeNull();
    expect(watch.stuckSinceMs(9e6)).toBeNull();
    const left = watching();
    left.rest();
    expect(left.dueMs).toBeNull();
    expect(left.stuckSinceMs(9e6)).toBeNull();
  });

  test('whose balloon is not known is not stuck, and is on its way from what its guest says first', () => {
    const watch = watching(GIVEN, Number.NaN);
    expect(watch.dueMs).toBeNull();
    expect(watch.stuckSinceMs(9e6)).toBeNull();
    watch.actual(500, 9e6);
    expect(watch.dueMs).toBe(9e6 + STUCK_MS);
    expect(watch.stuckSinceMs(9e6)).toBeNull();
    expect(watch.stuckSinceMs(9e6 + STUCK_MS)).toBe(9e6);
  });

  test('that swings is shown less than it holds, at once, and is stuck since', () => {
    const watch = watching();
    watch.actual(HELD, 40);
    const nowMs = swing(watch, 50);
    expect(watch.swings).toBe(true);
    expect(watch.limit).toBeLessThan(HELD);
    expect(watch.limit).toBeGreaterThan(0.9 * HELD);
    expect(watch.stuckSinceMs(nowMs)).toBeLessThanOrEqual(nowMs);
    expect(watch.retryAtMs).toBe(nowMs + RETRY_MS_MIN);
  });

  test('that goes to what it is shown does not swing for that', () => {
    const watch = watching();
    watch.actual(HELD, 40);
    let nowMs = swing(watch, 50);
    const { limit } = watch;
    for (let pages = HELD; pages > limit; pages -= 256) {
      nowMs++;
      watch.actual(pages, nowMs);
    }
    expect(watch.limit).toBe(limit);
  });

  test('that took memory back now and then does not swing', () => {
    const watch = watching();
    watch.actual(HELD, 0);
    for (let nowMs = 0, turn = 0; turn < 10 * SWINGS_MAX; turn++) {
      nowMs += SWING_WINDOW_MS / 10;
      watch.actual(HELD + turn, nowMs);
      watch.actual(HELD + turn - 200, nowMs + 1);
    }
    expect(watch.swings).toBe(false);
    expect(watch.limit).toBe(Number.POSITIVE_INFINITY);
  });

  test('is tried again, and left alone for twice as long each time that it swings', () => {
    const watch = watching();
    watch.actual(HELD, 40);
    let nowMs = 50;
    for (let wait = RETRY_MS_MIN; wait <= 2 * RETRY_MS_MAX; wait *= 2) {
      nowMs = swing(watch, nowMs);
      const waits = Math.min(wait, RETRY_MS_MAX);
      expect(watch.dueMs).toBe(nowMs + waits);
      watch.look(nowMs + waits - 1);
      expect(watch.limit).toBeLessThan(HELD);
      nowMs += waits;
      watch.look(nowMs);
      expect(watch.limit).toBe(Number.POSITIVE_INFINITY);
      // Still stuck until it shows that it gets on.
      expect(watch.stuckSinceMs(nowMs)).not.toBeNull();
    }
  });

  test('that can hold the target at last is no longer stuck, nor one that is only slow', () => {
    const reaches = watching();
    let nowMs = swing(reaches, 50);
    nowMs += RETRY_MS_MIN;
    reaches.look(nowMs);
    reaches.actual(GIVEN, nowMs);
    expect(reaches.stuckSinceMs(9e6)).toBeNull();
    const slow = watching();
    nowMs = swing(slow, 50);
    nowMs += RETRY_MS_MIN;
    slow.look(nowMs);
    nowMs += STUCK_MS;
    slow.look(nowMs);
    slow.actual(HELD + 300, nowMs);
    expect(slow.stuckSinceMs(nowMs)).toBeNull();
  });

  test('has another chance with another target', () => {
    const watch = watching();
    swing(watch, 50);
    watch.aim(HELD - 5000, HELD, 100);
    expect(watch.limit).toBe(Number.POSITIVE_INFINITY);
    expect(watch.swings).toBe(false);
  });
});
