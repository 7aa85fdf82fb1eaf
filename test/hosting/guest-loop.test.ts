/** The thread's loop as several guests see it, with descriptors that are always ready and steps that take their time. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { GuestLoop } from '../../src/hosting/guest-loop.ts';
import { SPAN_MS, ThreadTurns } from '../../src/hosting/thread-turns.ts';
import { createEventFd, drainEvent, openDescriptorCount, ring } from '../../src/sys/fd.ts';
import { Reactor } from '../../src/sys/poll.ts';
import { simulatedClock } from '../support/simulated-clock.ts';

let openBefore: number;
let clock: ReturnType<typeof simulatedClock>;
let reactor: Reactor;
let turns: ThreadTurns;
const owned: { close(): void }[] = [];

beforeEach(() => {
  openBefore = openDescriptorCount();
  clock = simulatedClock();
  reactor = new Reactor();
  turns = new ThreadTurns();
});

afterEach(() => {
  vi.restoreAllMocks();
  for (const closable of owned.splice(0)) closable.close();
  reactor.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

function join(): GuestLoop {
  const loop = new GuestLoop(reactor, turns.join());
  owned.push(loop);
  return loop;
}

/** A descriptor that is always ready. */
function readyBell() {
  const fd = createEventFd();
  ring(fd);
  owned.push(fd);
  return fd;
}

const burn = (ms: number): void => clock.pass(ms);

/** What a turn of the loop itself takes. */
const TURN_MS = 0.01;

function turnFor(ms: number): number {
  const startedMs = clock.nowMs;
  while (clock.nowMs - startedMs < ms) {
    reactor.turn(0);
    clock.pass(TURN_MS);
  }
  return clock.nowMs - startedMs;
}

/** Does `costly` without end beside a guest that comes as often as it is served; returns the share of the time that it took. */
function shareOf(begin: (guest: GuestLoop, costly: () => void) => void): number {
  const [greedy, waits] = [join(), join()];
  let usedMs = 0;
  let served = 0;
  waits.watch(readyBell(), () => served++);
  begin(greedy, () => {
    burn(1);
    usedMs += 1;
  });
  const tookMs = turnFor(200);
  expect(served).toBeGreaterThan(0);
  expect(usedMs).toBeGreaterThan(0);
  return usedMs / tookMs;
}

describe('a guest that would have all of the thread leaves half of it to one that comes again and again', () => {
  test('by a descriptor that is always ready', () => {
    expect(shareOf((guest, costly) => guest.watch(readyBell(), costly))).toBeLessThan(0.5);
  });

  test('and more than that by messages, which set off work elsewhere', () => {
    // A fifth, where what it asks for by its rings may have two.
    expect(shareOf((guest, costly) => guest.messages.watch(readyBell(), costly))).toBeLessThan(0.25);
  });

  test('by several descriptors', () => {
    const share = shareOf((guest, costly) => {
      for (let bell = 0; bell < 5; bell++) guest.watch(readyBell(), costly);
    });
    expect(share).toBeLessThan(0.5);
  });

  test('by steps that are never at their end', () => {
    const share = shareOf((guest, costly) => {
      const step = (): void => {
        costly();
        guest.stepLater(step);
      };
      guest.step(step);
    });
    expect(share).toBeLessThan(0.5);
  });

  test('by descriptors that come while it rests', () => {
    const share = shareOf((guest, costly) => {
      const watchNew = (): void => {
        const fd = readyBell();
        const watch = guest.watch(fd, () => {
          costly();
          watch.stop();
          drainEvent(fd);
          watchNew();
        });
      };
      watchNew();
    });
    expect(share).toBeLessThan(0.5);
  });
});

test('a guest that has the thread for itself never rests', () => {
  const guest = join();
  guest.step(() => burn(4 * SPAN_MS));
  expect(guest.resting).toBe(false);
});

test('what others asked of a guest counts as its own', () => {
  const [asked, waits] = [join(), join()];
  waits.step(() => burn(SPAN_MS));
  asked.charge(clock.nowMs);
  expect(asked.resting).toBe(false);
  const fromMs = clock.nowMs;
  burn(4 * SPAN_MS);
  asked.charge(fromMs);
  expect(asked.resting).toBe(true);
  let done = 0;
  asked.step(() => done++);
  expect(done).toBe(0);
  asked.charge(clock.nowMs);
  while (asked.resting) turnFor(TURN_MS);
  expect(done).toBe(1);
});

test('a step that throws is clocked, and the guest is served on', () => {
  const [one, other] = [join(), join()];
  other.step(() => burn(SPAN_MS));
  expect(() =>
    one.step(() => {
      burn(4 * SPAN_MS);
      throw new Error('a bug of ours');
    }),
  ).toThrow('a bug of ours');
  expect(one.resting).toBe(true);
  while (one.resting) turnFor(TURN_MS);
  let done = 0;
  one.step(() => done++);
  expect(done).toBe(1);
});

test('a guest that leaves while it rests is served no more, and the next has the thread for itself', () => {
  const [one, other] = [join(), join()];
  other.step(() => burn(SPAN_MS));
  one.step(() => burn(4 * SPAN_MS));
  one.step(() => expect.unreachable());
  one.close();
  turnFor(10);
  other.step(() => burn(4 * SPAN_MS));
  expect(other.resting).toBe(false);
});
