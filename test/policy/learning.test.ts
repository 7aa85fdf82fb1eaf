/** What the policy learns from harm, how it thinks a burst ahead, when it decides before its time, and what it says. */
import { describe, expect, test } from 'vitest';
import { explainGuest, explainHost } from '../../src/policy/explain.ts';
import { isBackingOff } from '../../src/policy/need.ts';
import { isUrgent } from '../../src/policy/wake.ts';
import { GIB, guestOf, MIB, TestHost } from './world.ts';

const size = (bytes: number) => `${(bytes / GIB).toFixed(2)}G`;
const three = () => [guestOf('a', 4 * GIB, GIB), guestOf('b', 4 * GIB, GIB), guestOf('c', 4 * GIB, GIB)];

/** A host that squeezes its guests, until the first shrink of `a`. */
function squeezed(): TestHost {
  const host = new TestHost(14 * GIB, three());
  host.guests[0].statistics = { majorFaults: 0 };
  host.run(200);
  host.othersBytes = 5 * GIB;
  for (let step = 0; host.keep('a') === 4 * GIB && step < 200; step++) host.step();
  expect(host.keep('a')).toBeLessThan(4 * GIB);
  return host;
}

describe('harm', () => {
  test('within half a minute after a shrink teaches what the guest had before, and a tenth', () => {
    const host = squeezed();
    const { shrunkFromBytes } = host.last.memory.guests[0];
    host.guests[0].statistics = { majorFaults: 100_000 };
    host.step();
    const [learned] = host.last.memory.guests;
    expect(learned.learnedBytes).toBe(Math.min(4 * GIB, 1.1 * shrunkFromBytes));
    expect(learned.harms).toBe(1);
    host.run(60);
    expect(host.keep('a')).toBeGreaterThanOrEqual(Math.min(4 * GIB, shrunkFromBytes) - 64 * MIB);
    expect(explainGuest(host.last.guests[0], host.last.host, size)).toMatch('as it suffered with less');
  });

  test('fades by half in six hours', () => {
    const host = squeezed();
    host.guests[0].statistics = { majorFaults: 100_000 };
    const { learnedBytes: before } = host.step().guests[0];
    host.atMs += 6 * 3_600_000;
    expect(host.step().guests[0].learnedBytes / before).toBeCloseTo(0.5, 2);
  });

  test('long after a shrink is not the shrink’s, and few faults are no harm', () => {
    const late = squeezed();
    late.run(400);
    late.guests[0].statistics = { majorFaults: 100_000 };
    late.step();
    expect(late.last.memory.guests[0].learnedBytes).toBe(0);
    const few = squeezed();
    few.guests[0].statistics = { majorFaults: 150 };
    few.step();
    expect(few.last.memory.guests[0].learnedBytes).toBe(0);
  });

  test('stops shrinking for half a minute, twice as long each time, an hour at most', () => {
    const suffered = (harms: number) => ({ ...squeezed().last.memory.guests[0], harms, harmAtMs: 1000 });
    for (const [harms, seconds] of [
      [1, 30],
      [2, 60],
      [5, 480],
      [50, 3600],
    ]) {
      const guest = suffered(harms);
      expect(isBackingOff(guest, 1000 + seconds * 1000 - 1)).toBe(true);
      expect(isBackingOff(guest, 1000 + seconds * 1000)).toBe(false);
    }
  });
});

describe('a need', () => {
  test('counts a burst ahead for six seconds, and a slow rise not', () => {
    const host = new TestHost(9 * GIB, three());
    host.run(200);
    host.guests[0].usedBytes += 0.5 * GIB;
    // 0.25 GiB/s: 1.5 GiB and 1.5 GiB more, and a fifth.
    expect(host.step().guests[0].nowBytes / GIB).toBeCloseTo(1.2 * 3, 2);
    host.guests[1].usedBytes += 0.1 * GIB;
    expect(host.step().guests[1].nowBytes / GIB).toBeCloseTo(1.2 * 1.1, 2);
  });

  test('is a third above what a guest has that swaps or has nothing left', () => {
    const host = new TestHost(9 * GIB, three());
    host.run(200);
    const current = host.keep('a');
    host.guests[0].statistics = { swapOutBytes: 100 * MIB };
    expect(host.step().guests[0].nowBytes).toBeCloseTo(Math.min(4 * GIB, 1.3 * current), -6);
  });
});

describe('a decision before its time', () => {
  const rested = () => {
    const host = new TestHost(9 * GIB, three());
    host.run(200);
    return host;
  };

  test('is made for a burst, a host that runs short, and guests that were not there', () => {
    const calm = rested();
    expect(isUrgent(calm.sample(), calm.last)).toBe(false);
    const bursts = rested();
    bursts.guests[0].usedBytes += 0.5 * GIB;
    expect(isUrgent(bursts.sample(), bursts.last)).toBe(true);
    const short = rested();
    short.othersBytes = GIB;
    expect(isUrgent(short.sample(), short.last)).toBe(true);
    const more = rested();
    more.guests.push(guestOf('d', GIB, 0.2 * GIB));
    expect(isUrgent(more.sample(), more.last)).toBe(true);
  });

  test('is made when memory comes that a guest waits for', () => {
    const host = rested();
    host.guests[1].stuck = true;
    host.guests[0].usedBytes = 3.2 * GIB;
    host.step();
    expect(host.last.host.waitingBytes).toBeGreaterThan(0);
    expect(host.last.guests[0].held).toBe('waiting');
    expect(isUrgent(host.sample(), host.last)).toBe(true);
    expect(explainGuest(host.last.guests[0], host.last.host, size)).toMatch(
      'when other guests have given it',
    );
    expect(explainHost(host.last.host, size)).toMatch('are waited for');
  });
});

describe('an explanation', () => {
  test('says what bound a guest and what holds it up', () => {
    const roomy = new TestHost(20 * GIB, three());
    const { guests: free, host } = roomy.run(10);
    expect(explainGuest(free[0], host, size)).toBe(
      'a keeps 4.00G of 4.00G: it uses 1.00G and needs 4.00G, and the host has room for all that every guest may have.',
    );
    const settings = { guests: { a: { mode: 'hold' }, b: { mode: 'off' } } } as const;
    const held = new TestHost(9 * GIB, three(), settings);
    const { guests, host: budget } = held.run(10);
    expect(explainGuest(guests[0], budget, size)).toBe(
      'a is on hold: a person set its target. It keeps 4.00G.',
    );
    expect(explainGuest(guests[1], budget, size)).toBe(
      "b is not this policy's to steer. It counts with 4.00G.",
    );
    expect(guests.slice(0, 2).map(({ targetBytes }) => targetBytes)).toEqual([-1, -1]);
  });

  test('of a host says what there is, and when it is too little', () => {
    const host = new TestHost(7 * GIB, three());
    host.run(100);
    expect(explainHost(host.last.host, size)).toMatch(
      /^The guests may keep 6\.00G of 7\.00G \(reserve 1\.00G, others 0/,
    );
    for (const guest of host.guests) guest.usedBytes = 3 * GIB;
    host.run(20);
    expect(explainHost(host.last.host, size)).toMatch('the host is overcommitted');
  });
});
