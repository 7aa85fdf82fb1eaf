/** When a leader plans: each period, and soon after what it waits for, however often that is. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { PlanningPace } from '../../src/fleet/planning-pace.ts';

const PERIOD_MS = 2000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function paced(plan: () => Promise<void> = async () => {}) {
  let plans = 0;
  const counted = () => {
    plans++;
    return plan();
  };
  const pace = new PlanningPace(counted, PERIOD_MS, () => performance.now());
  pace.start();
  return { pace, plans: () => plans };
}

test('it plans each period, and not after it was closed', async () => {
  const { pace, plans } = paced();
  await vi.advanceTimersByTimeAsync(10 * PERIOD_MS);
  expect(plans()).toBe(11);
  pace.soon();
  pace.close();
  pace.soon();
  await vi.advanceTimersByTimeAsync(10 * PERIOD_MS);
  expect(plans()).toBe(11);
});

test('it plans soon after what it waits for, and no more than five times in a period for a thousand such things', async () => {
  const { pace, plans } = paced();
  await vi.advanceTimersByTimeAsync(PERIOD_MS * 0.9);
  expect(plans()).toBe(1);
  pace.soon();
  await vi.advanceTimersByTimeAsync(PERIOD_MS / 16);
  expect(plans()).toBe(2);
  for (let at = 0; at < 1000; at++) {
    pace.soon();
    await vi.advanceTimersByTimeAsync(PERIOD_MS / 1000);
  }
  expect(plans()).toBeGreaterThanOrEqual(5);
  expect(plans()).toBeLessThanOrEqual(7);
  pace.close();
});

test('what happens while it plans is planned about afterwards', async () => {
  let end = () => {};
  const { pace, plans } = paced(
    () =>
      new Promise<void>(resolve => {
        end = resolve;
      }),
  );
  pace.soon();
  await vi.advanceTimersByTimeAsync(PERIOD_MS / 2);
  expect(plans()).toBe(1);
  end();
  await vi.advanceTimersByTimeAsync(PERIOD_MS / 4);
  expect(plans()).toBe(2);
  end();
  pace.close();
});
