import { describe, expect, it } from 'vitest';
import { ManualScheduler, schedulerOf } from '../../src/driver/scheduler.ts';

describe('time that passes only when told to', () => {
  it('calls in the order of time, and in the order of asking at the same time', () => {
    const scheduler = new ManualScheduler();
    const calls: string[] = [];
    scheduler.schedule(20, () => calls.push(`c at ${scheduler.now()}`));
    scheduler.schedule(10, () => calls.push(`a at ${scheduler.now()}`));
    scheduler.schedule(10, () => calls.push(`b at ${scheduler.now()}`));
    expect(scheduler.nextDueMs).toBe(10);
    scheduler.advance(100);
    expect(calls).toEqual(['a at 10', 'b at 10', 'c at 20']);
    expect(scheduler.now()).toBe(100);
    expect(scheduler.nextDueMs).toBeUndefined();
  });

  it('makes calls that a call asked for, and none that was taken back', () => {
    const scheduler = new ManualScheduler();
    const calls: number[] = [];
    const dropped = scheduler.schedule(5, () => calls.push(-1));
    scheduler.schedule(5, () => {
      dropped.cancel();
      scheduler.schedule(0, () => calls.push(scheduler.now()));
      scheduler.schedule(3, () => calls.push(scheduler.now()));
    });
    dropped.cancel();
    scheduler.advance(8);
    expect(calls).toEqual([5, 8]);
    dropped.cancel();
  });

  it('is made of a reactor and a clock elsewhere', () => {
    const asked: number[] = [];
    const reactor = {
      schedule: (delayMs: number) => {
        asked.push(delayMs);
        return { cancel() {} };
      },
    };
    const scheduler = schedulerOf(reactor, () => 7);
    scheduler.schedule(200, () => {});
    expect(asked).toEqual([200]);
    expect(scheduler.now()).toBe(7);
  });
});
