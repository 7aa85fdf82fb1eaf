/**
 * What the policy promises over all fleets of a small model: rest, floors, the same answer for the same question, liars,
 * monotony. Guests here do at once what they are told; the model in virtual time has tests of its own.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decide } from '../../src/policy/decide.ts';
import { newDecision } from '../../src/policy/records.ts';
import type { GuestSample, GuestSettings, Sample, Settings } from '../../src/policy/types.ts';
import { GIB, guestOf, MIB, statisticsOf, TestHost } from './world.ts';

const PAGE = 4096;

interface Fleet {
  readonly guests: readonly { readonly memory: number; readonly used: number; readonly shares: number }[];
  /** The host's memory, as a part of its guests'. */
  readonly part: number;
}

const fleets: fc.Arbitrary<Fleet> = fc.record({
  guests: fc.array(
    fc.record({
      memory: fc.integer({ min: 1, max: 16 }).map(halves => halves * 0.5 * GIB),
      used: fc.integer({ min: 2, max: 95 }).map(percent => percent / 100),
      shares: fc.constantFrom(100, 500, 1000, 1000, 4000),
    }),
    { minLength: 1, maxLength: 6 },
  ),
  part: fc.integer({ min: 40, max: 130 }).map(percent => percent / 100),
});

function hostOf({ guests, part }: Fleet): TestHost {
  const all = guests.reduce((sum, { memory }) => sum + memory, 0);
  const settings: Record<string, GuestSettings> = {};
  const live = guests.map(({ memory, used, shares }, index) => {
    settings[`g${index}`] = { shares };
    return guestOf(`g${index}`, memory, used * memory);
  });
  return new TestHost(all * part + GIB, live, { guests: settings });
}

const RUNS = { numRuns: 60 };
const SETTLED_S = 400;

describe('the policy', () => {
  test('P5: makes no move while nothing changes, once it has settled', () => {
    fc.assert(
      fc.property(fleets, fleet => {
        const host = hostOf(fleet);
        host.run(SETTLED_S);
        const before = host.guests.map(({ targetBytes }) => targetBytes);
        host.run(60, ({ guests }) => expect(guests.map(({ targetBytes }) => targetBytes)).toEqual(before));
      }),
      RUNS,
    );
  });

  test('P5: a saw-tooth of a minute turns a guest around once a period at most, and not at all below a tenth', () => {
    for (const [low, high, most] of [
      [0.6 * GIB, 2.4 * GIB, 1],
      [1.5 * GIB, 1.6 * GIB, 0],
    ]) {
      const host = new TestHost(
        9 * GIB,
        [0, 1, 2].map(index => guestOf(`g${index}`, 4 * GIB, GIB)),
      );
      const turns = host.guests.map(() => ({ direction: 0, last: -1, count: 0 }));
      const periods = 20;
      for (let at = 0; at < SETTLED_S / 2 + periods * 30; at++) {
        host.guests[0].usedBytes = at % 30 < 15 ? high : low;
        const { guests } = host.step();
        for (const [index, turn] of turns.entries()) {
          const moved = turn.last < 0 ? 0 : guests[index].targetBytes - turn.last;
          if (at > SETTLED_S / 2 && Math.abs(moved) > MIB && Math.sign(moved) !== turn.direction) {
            if (turn.direction !== 0) turn.count++;
            turn.direction = Math.sign(moved);
          }
          turn.last = guests[index].targetBytes;
        }
      }
      for (const { count } of turns) expect(count).toBeLessThanOrEqual(most * periods);
    }
  });

  test('P7: takes no guest below its floor, whatever happens', () => {
    const happening = fc.record({
      guest: fc.nat(5),
      kind: fc.constantFrom(
        'use',
        'silence',
        'lie',
        'reboot',
        'others',
        'reserve',
        'stick',
        'speak',
        'clock',
      ),
      amount: fc.integer({ min: 0, max: 100 }),
    });
    fc.assert(
      fc.property(fleets, fc.array(happening, { maxLength: 25 }), (fleet, happenings) => {
        const host = hostOf(fleet);
        const check = () =>
          host.run(14, ({ guests }) => {
            for (const { targetBytes, memoryBytes, floorBytes } of guests) {
              expect(targetBytes).toBeGreaterThanOrEqual(0);
              expect(targetBytes % PAGE).toBe(0);
              expect(memoryBytes - targetBytes).toBeGreaterThanOrEqual(Math.min(floorBytes, memoryBytes));
            }
          });
        host.run(120);
        for (const { guest, kind, amount } of happenings) {
          const one = host.guests[guest % host.guests.length];
          const share = amount / 100;
          if (kind === 'use') one.usedBytes = share * one.memoryBytes;
          else if (kind === 'silence') one.statistics = null;
          else if (kind === 'speak') one.statistics = {};
          else if (kind === 'lie') one.statistics = { availableBytes: (amount - 20) * GIB };
          else if (kind === 'reboot') Object.assign(one, { epoch: one.epoch + 1, actualBytes: 0 });
          else if (kind === 'others') host.othersBytes = share * host.totalBytes;
          else if (kind === 'reserve') host.reservedBytes = share * host.totalBytes;
          else if (kind === 'stick') one.stuck = amount < 50;
          else host.atMs += (amount - 50) * 100_000;
          check();
        }
      }),
      { numRuns: 40 },
    );
  });

  test('P8: gives the same answer to the same question, and goes on after a restart as if nothing had been', () => {
    fc.assert(
      fc.property(fleets, fc.integer({ min: 1, max: 100 }), (fleet, steps) => {
        const host = hostOf(fleet);
        host.run(2 * steps);
        host.guests[0].usedBytes = 0.5 * host.guests[0].memoryBytes;
        const { memory } = host.last;
        const sample = host.sample();
        const kept = JSON.parse(JSON.stringify(memory));
        const once = decide(sample, host.settings, memory);
        const again = decide(sample, host.settings, memory);
        const restarted = decide(JSON.parse(JSON.stringify(sample)), host.settings, kept);
        expect(again).toEqual(once);
        expect(restarted).toEqual(once);
        // What it reads it leaves as it is.
        expect(memory).toEqual(kept);
      }),
      RUNS,
    );
  });

  test('P8: without its memory it takes nothing at first, and gives what is needed', () => {
    fc.assert(
      fc.property(fleets, fleet => {
        const host = hostOf({ ...fleet, part: Math.max(fleet.part, 0.8) });
        host.run(SETTLED_S);
        const forgetful = decide(host.sample(), host.settings);
        for (const [index, { keepBytes, held }] of forgetful.guests.entries()) {
          const { name } = host.guests[index];
          if (!forgetful.host.hurry) expect(keepBytes).toBeGreaterThanOrEqual(host.keep(name));
          else if (held !== 'boot')
            expect(keepBytes).toBeGreaterThanOrEqual(forgetful.guests[index].floorBytes);
        }
      }),
      RUNS,
    );
  });

  test('P9: a liar gets from others no more than a guest would that used all of its memory', () => {
    const lies = fc.record({
      availableBytes: fc.constantFrom(null, Number.NaN, -1, 0, GIB, 1000 * GIB),
      allocationStalls: fc.constantFrom(null, 0, 1e9, -7),
      oomKills: fc.constantFrom(null, 0, 1e6),
      majorFaults: fc.constantFrom(null, 0, 1e9),
      swapOutBytes: fc.constantFrom(0, 1e12, Number.POSITIVE_INFINITY),
    });
    fc.assert(
      fc.property(fleets, lies, fc.boolean(), (fleet, lie, says) => {
        const host = hostOf(fleet);
        host.run(SETTLED_S);
        const sample = host.sample();
        const wantsWith = (guest: GuestSample) => {
          const guests = [guest, ...sample.guests.slice(1)];
          return decide({ ...sample, guests }, host.settings, host.last.memory).guests.map(
            ({ wantBytes }) => wantBytes,
          );
        };
        const [liar] = sample.guests;
        const statistics = { ...statisticsOf(0, liar.actualBytes), minorFaults: 1e6 };
        const greedy = wantsWith({
          ...liar,
          statistics: { ...statistics, allocationStalls: 1e9, oomKills: 1 },
        });
        const lying = wantsWith({ ...liar, statistics: says ? { ...statistics, ...lie } : null });
        for (let at = 1; at < lying.length; at++) expect(lying[at]).toBeGreaterThanOrEqual(greedy[at] - PAGE);
      }),
      { numRuns: 120 },
    );
  });

  test("P14: more memory of the host makes no guest's balloon larger, and more shares give a guest no less", () => {
    const more = fc.integer({ min: 1, max: 8 });
    fc.assert(
      fc.property(fleets, more, fc.integer({ min: 0, max: 250 }), (fleet, quarters, seconds) => {
        const host = hostOf(fleet);
        host.run(seconds);
        host.guests[0].usedBytes = 0.7 * host.guests[0].memoryBytes;
        const sample = host.sample();
        const keeps = (asked: Sample, settings: Settings) =>
          decide(asked, settings, host.last.memory).guests.map(({ keepBytes }) => keepBytes);
        const before = keeps(sample, host.settings);

        const extra = quarters * 0.25 * GIB;
        const { host: given } = sample;
        const held = host.guests.reduce(
          (sum, { memoryBytes, actualBytes }) => sum + memoryBytes - actualBytes,
          0,
        );
        const totalBytes = given.totalBytes + extra;
        const availableBytes = Math.max(0, totalBytes - host.othersBytes - held);
        const larger = keeps({ ...sample, host: { ...given, totalBytes, availableBytes } }, host.settings);
        for (const [at, keep] of larger.entries()) expect(keep).toBeGreaterThanOrEqual(before[at] - PAGE);

        const { g0 } = host.settings.guests;
        const guests = { ...host.settings.guests, g0: { shares: (g0.shares ?? 1000) * (1 + quarters) } };
        const [richer] = keeps(sample, { ...host.settings, guests });
        expect(richer).toBeGreaterThanOrEqual(before[0] - PAGE);
      }),
      { numRuns: 120 },
    );
  });

  test('P13: writes into the records that it is given, and makes none while the guests stay the same', () => {
    const host = new TestHost(9 * GIB, [guestOf('a', 4 * GIB, GIB), guestOf('b', 4 * GIB, GIB)]);
    host.run(100);
    const into = newDecision();
    decide(host.sample(), host.settings, host.last.memory, into);
    const records = [...into.guests, ...into.memory.guests];
    decide(host.sample(), host.settings, host.last.memory, into);
    for (const [at, record] of [...into.guests, ...into.memory.guests].entries())
      expect(record).toBe(records[at]);
  });
});

/** Max-min fair parts of `amount` by shares, between bounds, by sorting: another way than the policy's own. */
function fairParts(
  guests: readonly { readonly low: number; readonly high: number; readonly shares: number }[],
  amount: number,
): number[] {
  const marks = guests
    .flatMap(({ low, high, shares }) => [low / shares, high / shares])
    .sort((a, b) => a - b);
  const at = (level: number) =>
    guests.map(({ low, high, shares }) => Math.min(high, Math.max(low, level * shares)));
  const sum = (parts: readonly number[]) => parts.reduce((total, part) => total + part, 0);
  const above = marks.findIndex(mark => sum(at(mark)) >= amount);
  if (above <= 0) return at(above === 0 ? marks[0] : marks[marks.length - 1]);
  const [from, to] = [marks[above - 1], marks[above]];
  const [less, more] = [sum(at(from)), sum(at(to))];
  return at(more === less ? to : from + ((to - from) * (amount - less)) / (more - less));
}

test('P6: where there is too little, parts are within a twentieth, or 64 MiB, of the max-min fair ones; equal guests are equal', () => {
  fc.assert(
    fc.property(fleets, ({ guests }) => {
      const greedy = { guests: guests.map(guest => ({ ...guest, used: 0.9 })), part: 0.6 };
      const host = hostOf(greedy);
      const { host: budget, guests: decided } = host.run(SETTLED_S);
      const bounds = decided.map(({ floorBytes, nowBytes, shares }) => ({
        low: floorBytes,
        high: nowBytes,
        shares,
      }));
      const fair = fairParts(bounds, Math.max(budget.budgetBytes, budget.floorsBytes));
      // Moves of less than 64 MiB are not made, which of a small guest's part is more than a twentieth.
      for (const [at, { keepBytes }] of decided.entries())
        expect(Math.abs(keepBytes - fair[at])).toBeLessThan(Math.max(0.05 * fair[at], 64 * MIB));
    }),
    { numRuns: 40 },
  );
  const equal = new TestHost(
    13 * GIB,
    Array.from({ length: 8 }, (_, index) => guestOf(`g${index}`, 2 * GIB, 1.8 * GIB)),
  );
  equal.run(SETTLED_S);
  const keeps = equal.guests.map(({ name }) => equal.keep(name));
  const sum = keeps.reduce((total, keep) => total + keep, 0);
  const squares = keeps.reduce((total, keep) => total + keep * keep, 0);
  expect((sum * sum) / (keeps.length * squares)).toBeGreaterThanOrEqual(0.98);
});

describe('times, in decisions of two seconds', () => {
  const settled = () => {
    const host = new TestHost(
      9 * GIB,
      [0, 1, 2].map(index => guestOf(`g${index}`, 4 * GIB, 0.8 * GIB)),
    );
    host.run(SETTLED_S);
    return host;
  };

  test('P2: a burst has its target in one decision, and the memory when the others have given it', () => {
    const host = settled();
    host.guests[0].usedBytes += 2 * GIB;
    const { guests } = host.step();
    expect(guests[0].wantBytes).toBeGreaterThanOrEqual(2.8 * GIB);
    host.step();
    expect(host.keep('g0')).toBeGreaterThanOrEqual(2.8 * GIB);
  });

  test('P4: growth settles within 30 s, shrinking within 120 s', () => {
    const host = settled();
    const settles = (seconds: number) => {
      host.run(seconds);
      const before = host.guests.map(({ name }) => host.keep(name));
      host.run(100);
      for (const [at, { name }] of host.guests.entries())
        expect(Math.abs(host.keep(name) - before[at])).toBeLessThanOrEqual(0.01 * 4 * GIB + 64 * MIB);
    };
    host.guests[0].usedBytes = 3 * GIB;
    host.run(30);
    const grown = host.keep('g0');
    host.run(60);
    expect(Math.abs(host.keep('g0') - grown)).toBeLessThanOrEqual(0.01 * 4 * GIB);
    host.guests[0].usedBytes = 0.8 * GIB;
    settles(120);
  });
});
