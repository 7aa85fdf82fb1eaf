/** Whose a target is, on a clock that the test moves: a policy's for as long as its lease lasts, a person's without one. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { TargetLease } from '../../src/hosting/target-lease.ts';
import { clockAhead } from '../support/clock-ahead.ts';

interface Scheduled {
  readonly ms: number;
  readonly run: () => void;
  cancelled: boolean;
}

let clock: ReturnType<typeof clockAhead>;
let scheduled: Scheduled[];
let ranOut: string[];
let lease: TargetLease;

beforeEach(() => {
  clock = clockAhead();
  scheduled = [];
  ranOut = [];
  const reactor = {
    schedule: (ms: number, run: () => void) => {
      const timer: Scheduled = { ms, run, cancelled: false };
      scheduled.push(timer);
      return {
        cancel: () => {
          timer.cancelled = true;
        },
      };
    },
  };
  lease = new TargetLease(reactor, rule => ranOut.push(rule));
});

afterEach(() => {
  vi.restoreAllMocks();
});

/** Lets the newest timer end after `ms`. */
function pass(ms: number): void {
  clock.pass(ms);
  const timer = scheduled.pop();
  if (timer?.cancelled === false) timer.run();
}

test('a target is the daemon’s at first, a policy’s under a lease, and a person’s without', () => {
  expect(lease.owner).toEqual({ by: 'start', untilMs: null, lapsed: false });
  lease.ordered({ forMs: 4000, onSilence: 'keep' });
  expect(lease.owner).toMatchObject({ by: 'policy', lapsed: false });
  expect(lease.owner.untilMs).toBeGreaterThan(Date.now());
  lease.ordered(undefined);
  expect(lease.owner).toEqual({ by: 'person', untilMs: null, lapsed: false });
  pass(60_000);
  expect(ranOut).toEqual([]);
});

test('a lease that is renewed goes on, and one that is not runs out once', () => {
  lease.ordered({ forMs: 4000, onSilence: 'keep' });
  clock.pass(3000);
  expect(lease.renew({ forMs: 4000 })).toBe(true);
  pass(1000);
  expect(lease.owner.lapsed).toBe(false);
  pass(3000);
  expect(lease.owner).toMatchObject({ by: 'policy', lapsed: true });
  expect(ranOut).toEqual(['keep']);
  // A policy that is back goes on.
  expect(lease.renew({ forMs: 4000 })).toBe(true);
  expect(lease.owner.lapsed).toBe(false);
  pass(5000);
  expect(ranOut).toEqual(['keep', 'keep']);
});

test('a renewal may say what becomes of the target from now on', () => {
  lease.ordered({ forMs: 4000, onSilence: 'keep' });
  expect(lease.renew({ forMs: 4000, onSilence: 'release' })).toBe(true);
  pass(5000);
  expect(ranOut).toEqual(['release']);
});

test('what a person or the daemon set has no lease to renew', () => {
  expect(lease.renew({ forMs: 4000 })).toBe(false);
  lease.ordered({ forMs: 4000, onSilence: 'release' });
  lease.ordered(undefined);
  expect(lease.renew({ forMs: 4000 })).toBe(false);
  expect(lease.owner.by).toBe('person');
});

test('the order says what becomes of the target', () => {
  lease.ordered({ forMs: 4000, onSilence: 'release' });
  pass(4000);
  expect(ranOut).toEqual(['release']);
});
