/** Every kind of bad input has one outcome, and none of them lets a guest take more than its own part from others. */
import { describe, expect, test } from 'vitest';
import { decide } from '../../src/policy/decide.ts';
import { explainGuest, explainHost } from '../../src/policy/explain.ts';
import type { Settings } from '../../src/policy/types.ts';
import { GIB, guestOf, MIB, TestHost } from './world.ts';

const three = () => [guestOf('a', 4 * GIB, GIB), guestOf('b', 4 * GIB, GIB), guestOf('c', 4 * GIB, GIB)];
const size = (bytes: number) => `${(bytes / GIB).toFixed(2)}G`;

describe('bad input', () => {
  test('a guest that says nothing keeps what it has; the others give', () => {
    const host = new TestHost(9 * GIB, three());
    host.guests[0].statistics = null;
    const { guests } = host.run(300);
    expect(host.keep('a')).toBe(4 * GIB);
    expect(guests[0].held).toBe('no');
    expect(host.keep('b') + host.keep('c')).toBeLessThanOrEqual(4 * GIB + 64 * MIB);
  });

  test('a guest that says nothing and holds little at the host gives what it cannot be using', () => {
    const host = new TestHost(9 * GIB, three());
    Object.assign(host.guests[0], { statistics: null, residentBytes: GIB });
    host.guests[1].usedBytes = 3 * GIB;
    host.guests[2].usedBytes = 3 * GIB;
    host.run(300);
    expect(host.keep('a')).toBeGreaterThanOrEqual(1.2 * GIB);
    expect(host.keep('a')).toBeLessThan(2 * GIB);
  });

  test('statistics that stop are held against no guest, and nothing is taken on their word', () => {
    const host = new TestHost(9 * GIB, three());
    host.run(200);
    const before = host.keep('a');
    host.guests[0].frozen = true;
    host.guests[0].usedBytes = 0.1 * GIB;
    host.guests[0].statistics = { availableBytes: 3 * GIB };
    host.run(200);
    expect(host.keep('a')).toBeGreaterThanOrEqual(before);
    expect(host.last.guests[0].statisticsAgeMs).toBeGreaterThan(90_000);
  });

  test('a sample of nonsense leaves the guest alone, and it counts with all of its memory', () => {
    for (const nonsense of [Number.NaN, -1, Number.POSITIVE_INFINITY]) {
      const host = new TestHost(9 * GIB, three());
      host.run(200);
      const sample = host.sample();
      const guests = [{ ...sample.guests[0], actualBytes: nonsense }, sample.guests[1], sample.guests[2]];
      const { guests: decided, host: budget } = decide(
        { ...sample, guests },
        host.settings,
        host.last.memory,
      );
      expect(decided[0]).toMatchObject({ held: 'unknown', targetBytes: -1, committedBytes: 4 * GIB });
      expect(Number.isFinite(budget.budgetBytes)).toBe(true);
      expect(decided.slice(1).every(({ targetBytes }) => Number.isFinite(targetBytes))).toBe(true);
      expect(explainGuest(decided[0], budget, size)).toMatch('its sample is not plausible');
    }
  });

  test('statistics of nonsense are none', () => {
    for (const availableBytes of [Number.NaN, -5, null]) {
      const host = new TestHost(9 * GIB, three());
      host.guests[0].statistics = { availableBytes };
      host.run(200);
      expect(host.keep('a')).toBe(4 * GIB);
    }
  });

  test('a host of nonsense has no budget: guests keep their floors at least', () => {
    const host = new TestHost(9 * GIB, three());
    host.run(200);
    const sample = host.sample();
    const nonsense = { totalBytes: Number.NaN, availableBytes: -1, freeBytes: -1, reservedBytes: Number.NaN };
    const { guests } = decide({ ...sample, host: nonsense }, host.settings, host.last.memory);
    expect(guests.every(({ keepBytes, floorBytes }) => keepBytes >= floorBytes)).toBe(true);
  });

  test('a liar that claims to use everything takes from the others no more than if it did', () => {
    const lie = new TestHost(9 * GIB, three());
    lie.guests[0].statistics = { availableBytes: 0 };
    const truth = new TestHost(9 * GIB, three());
    truth.guests[0].usedBytes = 4 * GIB;
    lie.run(200);
    truth.run(200);
    for (const name of ['b', 'c']) {
      expect(lie.keep(name)).toBeGreaterThanOrEqual(truth.keep(name));
      expect(lie.keep(name)).toBeGreaterThanOrEqual(1.2 * GIB);
    }
  });

  test('a liar is believed no further than the host sees', () => {
    const host = new TestHost(9 * GIB, three());
    Object.assign(host.guests[0], { statistics: { availableBytes: 0 }, residentBytes: GIB });
    host.run(200);
    expect(host.last.guests[0].usedBytes).toBe(1.2 * GIB);
  });

  test('a liar that claims to use nothing harms itself alone, and keeps its floor', () => {
    const host = new TestHost(6 * GIB, three());
    host.guests[0].statistics = { availableBytes: 100 * GIB };
    host.run(300);
    expect(host.keep('a')).toBeGreaterThanOrEqual(GIB);
    expect(host.keep('b')).toBeGreaterThanOrEqual(1.2 * GIB);
  });

  test('a clock that goes back or jumps ahead takes nothing from any guest', () => {
    for (const jump of [-900_000, 3_600_000]) {
      const host = new TestHost(9 * GIB, three());
      host.run(200);
      const before = host.guests.map(({ name }) => host.keep(name));
      host.atMs += jump;
      host.step();
      host.run(20);
      expect(host.guests.map(({ name }) => host.keep(name))).toEqual(before);
    }
  });

  test('what is remembered of time survives a clock that began anew', () => {
    const host = new TestHost(9 * GIB, three());
    host.run(70);
    const { shrunkAtMs } = host.last.memory.guests[0];
    const ago = host.last.atMs - shrunkAtMs;
    host.atMs = 5000;
    host.guests[1].usedBytes = 3 * GIB;
    host.run(6);
    const { memory, atMs } = host.last;
    expect(atMs - memory.guests[0].bootAtMs).toBeGreaterThan(0);
    expect(ago).toBeGreaterThanOrEqual(0);
    expect(host.keep('b')).toBeGreaterThanOrEqual(3.6 * GIB);
  });

  test('a guest that boots at its floor has its memory back, and gives none for a minute', () => {
    const host = new TestHost(9 * GIB, three(), { guests: { a: { shares: 1 } } });
    host.guests[0].usedBytes = 0.2 * GIB;
    host.guests[1].usedBytes = 1.6 * GIB;
    host.guests[2].usedBytes = 1.6 * GIB;
    host.run(300);
    expect(host.keep('a')).toBeLessThan(2.1 * GIB);
    host.guests[0].epoch++;
    host.guests[0].actualBytes = 0;
    host.step();
    expect(host.last.guests[0].targetBytes).toBe(0);
    host.run(40);
    expect(host.keep('a')).toBe(4 * GIB);
    host.run(200);
    expect(host.keep('a')).toBeLessThan(2.1 * GIB);
  });

  test('a host that is overcommitted from the start says so, and divides by shares', () => {
    const host = new TestHost(5 * GIB, three());
    host.othersBytes = 0;
    const decision = host.run(10);
    expect(decision.host.overcommitted).toBe(false);
    for (const guest of host.guests) guest.usedBytes = 2 * GIB;
    const after = host.run(30);
    expect(after.host.overcommitted).toBe(true);
    for (const { name } of host.guests)
      expect(Math.abs(host.keep(name) - (4 / 3) * GIB)).toBeLessThan(8 * MIB);
  });

  test('contradicting settings: the maximum counts, and floors above the host are said and kept', () => {
    const settings = { guests: { a: { minBytes: 3 * GIB, maxBytes: 2 * GIB } } };
    const host = new TestHost(9 * GIB, three(), settings);
    host.run(100);
    expect(host.keep('a')).toBe(2 * GIB);
    expect(host.last.guests[0].contradiction).toBe(true);
    expect(explainGuest(host.last.guests[0], host.last.host, size)).toMatch('minimum is above its maximum');

    const minBytes = 4 * GIB;
    const mins: Settings['guests'] = { a: { minBytes }, b: { minBytes }, c: { minBytes } };
    const full = new TestHost(9 * GIB, three(), { guests: mins });
    full.run(100);
    expect(full.last.host).toMatchObject({ floorsAbove: true, overcommitted: true });
    for (const { name } of full.guests) expect(full.keep(name)).toBe(4 * GIB);
    expect(explainHost(full.last.host, size)).toMatch('floors alone');
  });

  test('names that JavaScript knows are names of guests', () => {
    const names = ['__proto__', 'constructor', 'toString'];
    const host = new TestHost(
      9 * GIB,
      names.map(name => guestOf(name, 4 * GIB, GIB)),
    );
    host.run(200);
    expect(host.guests.every(({ name }) => host.keep(name) >= 1.2 * GIB)).toBe(true);
  });

  test('a decision is not written over the memory that it is made from', () => {
    const host = new TestHost(9 * GIB, three());
    host.run(2);
    expect(() => decide(host.sample(), host.settings, host.last.memory, host.last)).toThrow(TypeError);
  });
});

describe('a stuck guest', () => {
  test('P10: counts with what it holds, is shown that, and is asked again with back-off; others converge', () => {
    const host = new TestHost(9 * GIB, three());
    host.guests[0].stuck = true;
    let asked = 0;
    host.run(600, ({ guests }) => {
      if (guests[0].targetBytes > 0) asked++;
    });
    // In 540 s after the grace: at first, and again after 30, 60, 120 and 240 s, for three decisions each.
    expect(asked).toBeGreaterThanOrEqual(9);
    expect(asked).toBeLessThanOrEqual(5 * 5);
    expect(host.last.guests[0]).toMatchObject({ held: 'stuck', targetBytes: 0 });
    expect(host.keep('b') + host.keep('c')).toBeLessThanOrEqual(4 * GIB + 64 * MIB);
  });

  test('is still known to be stuck when the policy is started anew with its memory', () => {
    const host = new TestHost(9 * GIB, three());
    host.guests[0].stuck = true;
    host.run(100);
    const copy = JSON.parse(JSON.stringify(host.last.memory));
    const again = decide(host.sample(), host.settings, copy);
    expect(again.guests[0].stuck).toBe(true);
  });
});
