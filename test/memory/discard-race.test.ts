/**
 * Threads that discard, against a guest that gives pages away, takes them back and writes to them, on real memory: the
 * promise of the pending set is that a page which was taken back, and whose discard was waited for, is never lost.
 */
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { PendingDiscards } from '../../src/memory/pending-discards.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { monotonicMs } from '../../src/sys/poll.ts';
import { build } from '../cli/built.ts';

const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_701);
const RACE_MS = 3000;
const SLICE_MS = 40;
const PAGES = 2048;
const WORDS = PAGE_SIZE / 4;
const DISCARDERS = 2;
/** Rounds have up to so many steps: short ones show what is lost, long ones keep the others at work. */
const STEPS_PER_ROUND_MAX = 3000;

beforeAll(build);
afterAll(() => expect(openDescriptorCount()).toBe(0));

/** The guest's side, in this thread. Every page that it has carries the stamp that it wrote last, at both ends. */
class Guest {
  readonly #pending: PendingDiscards;
  readonly #memory: Uint32Array;
  readonly #random: Random;
  readonly #stamps = new Uint32Array(PAGES);
  readonly #given = new Uint8Array(PAGES);
  #stamp = 0;
  kept = 0;
  taken = 0;

  constructor(pending: PendingDiscards, memory: Uint32Array, random: Random) {
    this.#pending = pending;
    this.#memory = memory;
    this.#random = random;
  }

  step(): void {
    const start = this.#random.below(PAGES);
    const count = Math.min(1 + this.#random.below(48), PAGES - start);
    switch (this.#random.below(4)) {
      case 0:
        this.#give(start, count);
        return;
      case 1:
        this.#take(start, count);
        return;
      case 2:
        this.#write(start, count);
        return;
      default:
        this.check(start, count);
    }
  }

  /** Gives pages away that it has, and others again: a page can be pending and in flight at once. */
  #give(start: number, count: number): void {
    this.#pending.mark(start, count);
    this.#given.fill(1, start, start + count);
  }

  #take(start: number, count: number): void {
    this.kept += this.#pending.retract(start, count);
    this.#pending.waitWhileInFlight(start, count);
    for (let page = start; page < start + count; page++) {
      if (this.#given[page] === 0) continue;
      this.taken++;
      this.#given[page] = 0;
      // It has what it had, or it is as new; and so it stays.
      const [first, last] = this.#ends(page);
      if (first !== last || (first !== 0 && first !== this.#stamps[page])) {
        throw new Error(
          `page ${page} holds ${first} and ${last} where ${this.#stamps[page]} or 0 was expected`,
        );
      }
      this.#stamps[page] = first;
    }
    this.#write(start, Math.ceil(count / 2));
  }

  #write(start: number, count: number): void {
    for (let page = start; page < start + count; page++) {
      if (this.#given[page] !== 0) continue;
      this.#stamps[page] = ++this.#stamp;
      this.#memory[page * WORDS] = this.#stamp;
      this.#memory[page * WORDS + WORDS - 1] = this.#stamp;
    }
  }

  check(start = 0, count = PAGES): void {
    for (let page = start; page < start + count; page++) {
      const [first, last] = this.#ends(page);
      if (this.#given[page] === 0 && (first !== this.#stamps[page] || last !== first)) {
        throw new Error(`page ${page} lost ${this.#stamps[page]}: it holds ${first} and ${last}`);
      }
    }
  }

  /** After everything was discarded: pages that are given hold nothing. */
  checkGiven(): void {
    for (let page = 0; page < PAGES; page++) {
      if (this.#given[page] !== 0) expect(this.#ends(page)).toEqual([0, 0]);
    }
  }

  #ends(page: number): [number, number] {
    return [this.#memory[page * WORDS], this.#memory[page * WORDS + WORDS - 1]];
  }
}

describe(`threads that discard what a guest gives away (AEROSTAT_SEED=${SEED})`, () => {
  test.each([
    ['claims of single words', 2 ** 21],
    ['one claim for all', PAGE_SIZE],
  ])('never take a page that was taken back: %s', async (_, unitBytes) => {
    const size = PAGES * PAGE_SIZE;
    const backing = new FileBacking(createMemfd({ name: 'aerostat-race', size }), 0, size);
    // The unit's size only says how much is claimed at once: here every unit is a page.
    const pending = PendingDiscards.create(PAGES, unitBytes);
    const control = new SharedArrayBuffer(4);
    const workerData = {
      shared: pending.shared,
      units: PAGES,
      unitBytes,
      pageBytes: PAGE_SIZE,
      fd: backing.fd.number,
      control,
    };
    const workers = Array.from({ length: DISCARDERS }, () => {
      const worker = new Worker(new URL('./discard-racer.mjs', import.meta.url), { workerData });
      const messages: unknown[] = [];
      let ready = (): void => {};
      const started = new Promise<void>(resolve => {
        ready = resolve;
      });
      worker.on('message', message => {
        messages.push(message);
        ready();
      });
      const ended = new Promise<void>((resolve, reject) => {
        worker.once('error', reject);
        worker.once('exit', () => resolve());
      });
      return { started, ended, messages };
    });
    const stop = async (): Promise<void> => {
      Atomics.store(new Int32Array(control), 0, 1);
      Atomics.notify(new Int32Array(control), 0);
      await Promise.all(workers.map(({ ended }) => ended));
    };

    const discard = (start: number, count: number) => backing.discard(start * PAGE_SIZE, count * PAGE_SIZE);
    const random = new Random(SEED);
    const guest = new Guest(pending, backing.window(0).u32, random);
    try {
      await Promise.all(workers.map(({ started }) => started));
      const endMs = monotonicMs() + RACE_MS;
      while (monotonicMs() < endMs) {
        const sliceMs = monotonicMs() + SLICE_MS;
        while (monotonicMs() < sliceMs) {
          const stepsMax = random.chance(0.5) ? 100 : STEPS_PER_ROUND_MAX;
          for (let steps = random.between(1, stepsMax); steps > 0; steps--) guest.step();
          // This thread may discard as well, beside the others. Then nothing is left: no unit was lost or counted twice.
          pending.discardAll(discard);
          expect(pending.outstanding).toBe(0);
        }
        guest.check();
        guest.checkGiven();
        await new Promise(resolve => setImmediate(resolve));
      }
      // Closed, no racer discards any more, though they go on trying.
      for (let time = 0; time < 500; time++) guest.step();
      pending.close();
      const { u32 } = backing.window(0);
      u32.fill(0xfeed);
      pending.mark(0, PAGES);
      await new Promise(resolve => setTimeout(resolve, SLICE_MS));
      expect(u32.every(word => word === 0xfeed)).toBe(true);
    } finally {
      await stop();
      backing.close();
    }
    // It was a race: both sides won at times, and every thread took part.
    expect(guest.taken).toBeGreaterThan(guest.kept);
    expect(guest.kept).toBeGreaterThan(0);
    for (const { messages } of workers)
      expect(messages.at(-1)).toMatchObject({ discards: expect.any(Number) });
    expect(pending.failures).toBe(0);
    expect(pending.discards).toBeGreaterThan(0);
  });
});
