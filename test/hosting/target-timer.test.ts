import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { TargetTimer } from '../../src/hosting/target-timer.ts';
import { monotonicMs } from '../../src/sys/poll.ts';

/** The clock of the process stands still unless a test moves it. */
let nowMs: number;

beforeEach(() => {
  nowMs = 1_000_000;
  vi.spyOn(process, 'hrtime').mockImplementation((() => [
    Math.floor(nowMs / 1e3),
    (nowMs % 1e3) * 1e6,
  ]) as typeof process.hrtime);
  expect(monotonicMs()).toBe(nowMs);
});

afterEach(() => vi.restoreAllMocks());

test('nothing is known before there was a target', () => {
  expect(new TargetTimer((actual, target) => actual === target).progress).toBeNull();
});

test('times run from the change to the guest, and from there to the host', () => {
  const clock = new TargetTimer((actual, target) => actual === target);
  clock.set(1000, 0);
  expect(clock.progress).toEqual({ reachedMs: null, drainedMs: null });
  nowMs += 30;
  clock.actual(600);
  clock.drained(nowMs);
  expect(clock.progress).toEqual({ reachedMs: null, drainedMs: null });
  nowMs += 20;
  clock.actual(1000);
  expect(clock.progress).toEqual({ reachedMs: 50, drainedMs: null });
  clock.drained(nowMs + 12);
  expect(clock.progress).toEqual({ reachedMs: 50, drainedMs: 62 });
});

test('the host was done when the guest was, where its last discard came before', () => {
  const clock = new TargetTimer((actual, target) => actual === target);
  clock.set(1000, 0);
  nowMs += 50;
  clock.actual(1000);
  clock.drained(nowMs - 40);
  expect(clock.progress).toEqual({ reachedMs: 50, drainedMs: 50 });
});

test('what comes after the target was reached changes nothing', () => {
  const clock = new TargetTimer((actual, target) => actual === target);
  clock.set(1000, 0);
  nowMs += 50;
  clock.actual(1000);
  clock.drained(nowMs);
  nowMs += 100;
  clock.actual(900);
  clock.actual(1000);
  clock.drained(nowMs);
  expect(clock.progress).toEqual({ reachedMs: 50, drainedMs: 50 });
});

test('a target at which the guest is already is reached at once', () => {
  const clock = new TargetTimer((actual, target) => actual === target);
  clock.set(1000, 1000);
  expect(clock.progress).toEqual({ reachedMs: 0, drainedMs: null });
});

test('a new target starts anew, and a guest that is gone leaves nothing to tell', () => {
  const clock = new TargetTimer((actual, target) => actual === target);
  clock.set(1000, 1000);
  clock.drained(nowMs);
  nowMs += 10;
  clock.set(2000, 1000);
  expect(clock.progress).toEqual({ reachedMs: null, drainedMs: null });
  clock.forget();
  expect(clock.progress).toBeNull();
  clock.actual(2000);
  expect(clock.progress).toBeNull();
});

test('a balloon that is at its target before the target is noted took the time since it was asked for', () => {
  const startedMs = monotonicMs() - 50;
  const timer = new TargetTimer((actual, target) => actual === target);
  timer.set(100, 100, startedMs);
  // The last discard ended before that, and after the target was asked for.
  timer.drained(startedMs + 20);
  expect(timer.progress?.reachedMs).toBeGreaterThanOrEqual(50);
  expect(timer.progress?.drainedMs).toBeGreaterThanOrEqual(50);
});
