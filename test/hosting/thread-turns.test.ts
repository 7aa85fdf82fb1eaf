/** Guests that share a thread get their share of its time, whatever one of them costs. Clock and guests are simulated. */
import { describe, expect, test } from 'vitest';
import { WORK_PER_SHARED_TURN, WORK_PER_TURN } from '../../src/device/turn.ts';
import {
  ACTIVE_MS,
  DEALT_OUT,
  type GuestTurns,
  REST_MS_MAX,
  ThreadTurns,
} from '../../src/hosting/thread-turns.ts';

/** A guest that takes `costMs` each time it is served, and comes again `pauseMs` after that. */
interface Sketch {
  readonly costMs: number;
  readonly pauseMs: number;
}

interface Simulated extends Sketch {
  readonly turns: GuestTurns;
  dueMs: number;
  restsUntilMs: number;
  usedMs: number;
  served: number;
  worstMs: number;
}

const SIMULATED_MS = 500;

/** A thread that serves all who are due, one after the other, as its loop does. */
function simulate(sketches: readonly Sketch[], forMs = SIMULATED_MS): readonly Simulated[] {
  const thread = new ThreadTurns();
  const guests: Simulated[] = sketches.map(sketch => ({
    ...sketch,
    turns: thread.join(),
    dueMs: 0,
    restsUntilMs: 0,
    usedMs: 0,
    served: 0,
    worstMs: 0,
  }));
  for (let nowMs = 0; nowMs < forMs; ) {
    const ready = guests.filter(({ dueMs, restsUntilMs }) => Math.max(dueMs, restsUntilMs) <= nowMs);
    if (ready.length === 0) {
      nowMs = Math.min(...guests.map(({ dueMs, restsUntilMs }) => Math.max(dueMs, restsUntilMs)));
      continue;
    }
    for (const guest of ready) {
      const fromMs = nowMs;
      nowMs += guest.costMs;
      guest.usedMs += guest.costMs;
      guest.served++;
      guest.worstMs = Math.max(guest.worstMs, nowMs - guest.dueMs);
      guest.dueMs = nowMs + guest.pauseMs;
      guest.restsUntilMs = nowMs + guest.turns.served(fromMs, nowMs);
    }
  }
  return guests;
}

const GREEDY = { pauseMs: 0 };
/** It waits for each of its buffers. */
const WAITS = { costMs: 0.008, pauseMs: 0.012 };

/** How often the guests of `sketches` are served beside `neighbour`, in proportion to how often beside one that rests. */
function shareBeside(neighbour: Sketch, ...sketches: readonly Sketch[]): number {
  const idle = { costMs: 0, pauseMs: Number.POSITIVE_INFINITY };
  const [, ...beside] = simulate([neighbour, ...sketches]);
  const [, ...before] = simulate([idle, ...sketches]);
  return Math.min(...beside.map((guest, index) => guest.served / before[index].served));
}

describe('a guest that waits for each of its buffers', () => {
  test.each([0.002, 0.02, 0.1, 0.6, 3, 20])(
    'has half of what it has alone beside one that takes %f ms at a time',
    costMs => {
      expect(shareBeside({ ...GREEDY, costMs }, WAITS)).toBeGreaterThan(0.48);
    },
  );

  test('has its part beside one that is greedy and others like itself', () => {
    // Together they would have more than the thread has, so each has a fourth of it at most.
    const sketches = [WAITS, WAITS, WAITS];
    const [greedy, ...guests] = simulate([{ ...GREEDY, costMs: 0.5 }, ...sketches]);
    expect(greedy.usedMs / SIMULATED_MS).toBeLessThan(0.3);
    for (const { usedMs } of guests) expect(usedMs / SIMULATED_MS).toBeGreaterThan(0.15);
  });

  test('waits for one turn of the other at most, however long it goes on', () => {
    const [, guest] = simulate([{ ...GREEDY, costMs: 0.6 }, WAITS]);
    expect(guest.worstMs).toBeLessThan(0.6 + 2 * WAITS.costMs);
  });
});

describe('a guest that would have all of the thread', () => {
  test('has it while the others are at rest', () => {
    const [greedy] = simulate([
      { ...GREEDY, costMs: 0.1 },
      { costMs: 0.01, pauseMs: 100 * ACTIVE_MS },
    ]);
    expect(greedy.usedMs / SIMULATED_MS).toBeGreaterThan(0.95);
  });

  test('shares it with others of its kind, and none of it is lost', () => {
    const guests = simulate([0.1, 0.1, 0.7, 2].map(costMs => ({ ...GREEDY, costMs })));
    for (const { usedMs } of guests) expect(usedMs / SIMULATED_MS).toBeGreaterThan(0.15);
    expect(guests.reduce((total, { usedMs }) => total + usedMs, 0) / SIMULATED_MS).toBeGreaterThan(0.95);
  });

  test('has its share beside one that never has enough of it either', () => {
    const [greedy] = simulate([{ ...GREEDY, costMs: 0.1 }, WAITS]);
    expect(greedy.usedMs / SIMULATED_MS).toBeGreaterThan((DEALT_OUT / 2) * 0.9);
  });

  test('rests for a bounded time, whatever it cost', () => {
    const thread = new ThreadTurns();
    const [one, other] = [thread.join(), thread.join()];
    other.served(0, 1);
    expect(one.served(1, 10_001)).toBe(REST_MS_MAX);
  });

  test('pays for what others ask about it, but is not taken for active because of that', () => {
    const thread = new ThreadTurns();
    const [one, other] = [thread.join(), thread.join()];
    one.cost(0, 1);
    expect(other.served(1, 2)).toBe(0);
    expect(one.cost(2, 3)).toBeGreaterThan(0);
  });
});

test('a guest that has the thread for itself is alone there, also when the others have left', () => {
  const thread = new ThreadTurns();
  const one = thread.join();
  expect(one.alone).toBe(true);
  const other = thread.join();
  expect([one.alone, other.alone]).toEqual([false, false]);
  other.leave();
  expect(one.alone).toBe(true);
});

test('turns are short while guests alternate, and long for one that is alone', () => {
  const thread = new ThreadTurns();
  const [one, other] = [thread.join(), thread.join()];
  expect(one.work).toBe(WORK_PER_TURN);
  expect(one.work).toBe(WORK_PER_TURN);
  for (const guest of [other, one, one, other]) expect(guest.work).toBe(WORK_PER_SHARED_TURN);
  let short = 0;
  while (other.work === WORK_PER_SHARED_TURN) short++;
  expect(short).toBeGreaterThan(10);
  expect(other.work).toBe(WORK_PER_TURN);
  expect(one.work).toBe(WORK_PER_SHARED_TURN);
});
