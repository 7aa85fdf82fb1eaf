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
    expect(seen[1]).toBeCloseTo(0.8);
    expect(seen[3]).toBeCloseTo(0.7);
    expect(seen).toEqual(seen.toSorted((a, b) => b - a));
    expect(seen.at(-1)).toBeCloseTo(0.01);
  });

  test('keeps all its time where nobody asked for less', () => {
    expect(new Set(shares(false))).toEqual(new Set([1]));
  });
});
