import { describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { Convergence } from '../../src/migration/convergence.ts';

const options = { downtimeMsMax: 100, roundsMax: 5, autoConverge: false };

describe('the guest is stopped', () => {
  test('when what is left fits the downtime, and not before anything was measured', () => {
    const convergence = new Convergence(options);
    expect(convergence.decide(1)).toEqual({ last: false, share: 1, downtimeMs: Number.POSITIVE_INFINITY });
    // Ten pages a millisecond.
    convergence.sent(1000, 1000 * PAGE_SIZE, 100);
    expect(convergence.decide(1001)).toMatchObject({ last: false, downtimeMs: 100.1 });
    expect(convergence.decide(1000)).toMatchObject({ last: true, downtimeMs: 100 });
  });

  test('as soon when pages travel compressed, since the rest will as well', () => {
    const convergence = new Convergence(options);
    convergence.sent(1000, (1000 * PAGE_SIZE) / 4, 100);
    expect(convergence.decide(1000)).toMatchObject({ last: true, downtimeMs: 100 });
    // What is shown is what the network carries.
    expect(convergence.bytesPerMs).toBe((10 * PAGE_SIZE) / 4);
  });

  test('after so many rounds, whatever is left', () => {
    const convergence = new Convergence(options);
    for (let round = 0; round < options.roundsMax; round++) {
      expect(convergence.decide(1e6).last).toBe(false);
      convergence.sent(1000, 1000 * PAGE_SIZE, 100);
    }
    expect(convergence.decide(1e6).last).toBe(true);
  });

  test('when nothing is left, though no time at all may be lost', () => {
    const convergence = new Convergence({ ...options, downtimeMsMax: 0 });
    convergence.sent(1000, 1000 * PAGE_SIZE, 100);
    expect(convergence.decide(1).last).toBe(false);
    expect(convergence.decide(0)).toMatchObject({ last: true, downtimeMs: 0 });
  });
});

describe('what a guest stands still for beside its pages', () => {
  test('counts: with it the guest is stopped later, or not at all', () => {
    const convergence = new Convergence(options);
    convergence.sent(1000, 1000 * PAGE_SIZE, 100);
    expect(convergence.decide(500, 50)).toMatchObject({ last: true, downtimeMs: 100 });
    expect(convergence.decide(500, 51)).toMatchObject({ last: false, downtimeMs: 101, statesAreLate: true });
    // What is left of the pages is what takes too long, not the states.
    expect(convergence.decide(1001, 51).statesAreLate).toBeUndefined();
    expect(convergence.decide(0, 101)).toMatchObject({ last: false, statesAreLate: true });
  });

  test('does not slow the guest down, which has nothing to do with it', () => {
    const convergence = new Convergence({ ...options, roundsMax: 30, autoConverge: true });
    for (let round = 0; round < 10; round++) {
      convergence.sent(10, 10 * PAGE_SIZE, 100);
      expect(convergence.decide(10, 200).share).toBe(1);
    }
  });

  test('and would be too long after all rounds: refused before the stop, in words that say how long, where the limit counts', () => {
    const convergence = new Convergence({ ...options, overLimit: 'refuse' });
    for (let round = 0; round < options.roundsMax; round++) convergence.sent(1000, 1000 * PAGE_SIZE, 100);
    const { last, refusal } = convergence.decide(1000, 60);
    expect(last).toBe(false);
    expect(refusal).toMatch(
      /about 160 ms \(100 ms for the pages.*60 ms for its states.*may for 100 ms; it was not stopped/,
    );
    expect(convergence.decide(400, 60)).toMatchObject({ last: true });
  });
});

describe('stops that were called off', () => {
  const calledOff = (times: number, more: Partial<ConstructorParameters<typeof Convergence>[0]> = {}) => {
    const convergence = new Convergence({ ...options, ...more });
    convergence.sent(1000, 1000 * PAGE_SIZE, 100);
    for (let time = 0; time < times; time++) convergence.calledOff(50 + time);
    return convergence;
  };

  test('are tried again a few times, and then no more: the user is told how long it stood still', () => {
    expect(calledOff(3, { overLimit: 'refuse' }).decide(10)).toMatchObject({ last: true });
    const { last, refusal } = calledOff(4, { overLimit: 'refuse' }).decide(10);
    expect(last).toBe(false);
    expect(refusal).toMatch(
      /the 100 ms that it may, 4 times.*after 50\.0, 51\.0, 52\.0, 53\.0 ms.*--downtime-limit/,
    );
  });

  test('are forced after all rounds where the user allows more, and not before', () => {
    const convergence = calledOff(4);
    expect(convergence.decide(10)).toMatchObject({ last: false, statesAreLate: true });
    for (let round = 1; round < options.roundsMax; round++) convergence.sent(1000, 1000 * PAGE_SIZE, 100);
    expect(convergence.decide(10)).toMatchObject({ last: true, forced: true });
    // One that fits its limit is not: it may be called off.
    expect(new Convergence(options).downtimeMsMax).toBe(100);
  });
});

describe('how fast it goes', () => {
  test('is not what a single short round says, for buffers swallow it', () => {
    const convergence = new Convergence(options);
    convergence.sent(1000, 1000 * PAGE_SIZE, 100);
    convergence.sent(1000, 1000 * PAGE_SIZE, 1);
    expect(convergence.bytesPerMs).toBe(10 * PAGE_SIZE);
  });

  test('is what short rounds say together, after a first one that was slow for all that it looked at and did not send', () => {
    const convergence = new Convergence({ ...options, roundsMax: 30 });
    convergence.sent(100, 100 * PAGE_SIZE, 2000);
    let rounds = 1;
    for (; !convergence.decide(500).last; rounds++) convergence.sent(500, 500 * PAGE_SIZE, 5);
    expect(rounds).toBe(5);
    expect(convergence.bytesPerMs).toBe(100 * PAGE_SIZE);
  });

  test('is unknown, and no nonsense, when nothing was sent in no time', () => {
    const convergence = new Convergence(options);
    convergence.sent(0, 24, 0);
    expect([convergence.bytesPerMs, convergence.decide(1).downtimeMs]).toEqual([0, Number.POSITIVE_INFINITY]);
  });
});

describe('a guest that writes faster than can be sent', () => {
  const shares = (autoConverge: boolean): number[] => {
    const convergence = new Convergence({ ...options, roundsMax: 1000, autoConverge });
    return Array.from({ length: 30 }, () => {
      convergence.sent(1000, 1000 * PAGE_SIZE, 100);
      return convergence.decide(5000).share;
    });
  };

  test('is slowed down more and more, and never stopped for it', () => {
    const seen = shares(true);
    expect(seen[0]).toBe(1);
    expect(seen[1]).toBe(0.25);
    expect(seen).toEqual(seen.toSorted((a, b) => b - a));
    expect(seen.at(-1)).toBe(0.01);
  });

  /** A guest that writes to the pages of a working set, over and over, while it is sent; returns what became of it. */
  function migrated(autoConverge: boolean) {
    const [memory, workingSet, pagesPerMs, writesPerMs] = [200_000, 150_000, 20, 200];
    const convergence = new Convergence({ ...options, roundsMax: 30, autoConverge });
    let [left, sent, elapsedMs, share] = [memory, 0, 0, 1];
    for (;;) {
      const decision = convergence.decide(left);
      if (decision.last) return { sent, elapsedMs, share, downtimeMs: decision.downtimeMs };
      share = decision.share;
      const roundMs = left / pagesPerMs;
      convergence.sent(left, left * PAGE_SIZE, roundMs);
      sent += left;
      elapsedMs += roundMs;
      // Each write hits any page of the working set, most of them one that was written before.
      left = Math.round(workingSet * (1 - Math.exp((-writesPerMs * share * roundMs) / workingSet)));
    }
  }

  test('is sent within a few rounds and stands still no longer than it may, where it would be sent over and over', () => {
    const [with_, without] = [migrated(true), migrated(false)];
    expect(with_.downtimeMs).toBeLessThanOrEqual(options.downtimeMsMax);
    expect(without.downtimeMs).toBeGreaterThan(10 * options.downtimeMsMax);
    expect(with_.sent).toBeLessThan(without.sent / 3);
    // Some five times its memory: what it works on has to be sent until it works slowly enough.
    expect(with_.sent).toBeLessThan(6 * 200_000);
    expect(with_.share).toBeGreaterThanOrEqual(0.01);
  });

  test('keeps all its time where less was not asked for', () => {
    expect(new Set(shares(false))).toEqual(new Set([1]));
  });
});
