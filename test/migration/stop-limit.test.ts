import { expect, test } from 'vitest';
import { RUN_MS_UNTOLD, StopEstimate } from '../../src/migration/stop-estimate.ts';
import { StopLimit, StopOverrun } from '../../src/migration/stop-limit.ts';
import { SimClock } from '../../src/sim/sim-clock.ts';

test('the time of a stop ends what is waited for, and not what is under way', async () => {
  const clock = new SimClock();
  const limit = new StopLimit(clock, 10);
  expect(await clock.run(limit.within(clock.sleep(9).then(() => 'in time')))).toBe('in time');
  let done = false;
  const late = clock.sleep(9).then(() => {
    done = true;
  });
  await expect(clock.run(limit.within(late))).rejects.toThrow(StopOverrun);
  expect([clock.nowMs(), done, limit.signal.aborted]).toEqual([10, false, true]);
  expect(() => limit.check()).toThrow(StopOverrun);
  await clock.run(late);
  expect(done).toBe(true);
});

test('the time is over though no timer had its turn, and what failed in time fails as it did', async () => {
  let nowMs = 0;
  const limit = new StopLimit({ nowMs: () => nowMs, sleep: () => new Promise(() => {}) }, 10);
  await expect(limit.within(Promise.reject(new Error('the network is gone')))).rejects.toThrow('the network');
  limit.check();
  nowMs = 11;
  await expect(limit.within(Promise.resolve())).rejects.toThrow(StopOverrun);
});

test('a stop that is over, or gone through with, is not called off any more', async () => {
  const clock = new SimClock();
  const limit = new StopLimit(clock, 10);
  limit.end();
  await clock.run(clock.sleep(20));
  expect(limit.signal.aborted).toBe(false);
});

test('a stop may take as long as the shortest of the last few, going on as the longest, and what is not told is taken for long', () => {
  const estimate = new StopEstimate();
  expect([estimate.fixedMs, estimate.runMs]).toEqual([undefined, RUN_MS_UNTOLD]);
  for (const fixedMs of [9, 50, 8, 7]) estimate.note({ fixedMs, runMs: fixedMs / 2 });
  expect([estimate.fixedMs, estimate.runMs]).toEqual([7, 25]);
  // A host that was busy once is not held to it for ever.
  estimate.note({ fixedMs: 6, runMs: 3 });
  expect([estimate.fixedMs, estimate.runMs]).toEqual([6, 4]);
});
