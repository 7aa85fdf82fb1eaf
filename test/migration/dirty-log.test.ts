import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { type DirtyLog, SoftwareDirtyLog } from '../../src/migration/dirty-log.ts';
import { KernelDirtyLog } from '../../src/migration/kernel-dirty-log.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import type { OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { Mapping } from '../../src/sys/mapping.ts';

const WORDS_PER_PAGE = PAGE_SIZE / 4;

const kernelLogs = ((): string | undefined => {
  try {
    new KernelDirtyLog([]).close();
    return undefined;
  } catch (error) {
    return String(error);
  }
})();

if (kernelLogs !== undefined) console.warn(`Skipped: the log that the kernel keeps. ${kernelLogs}`);

const opened: { close(): void }[] = [];
const open = <T extends { close(): void }>(thing: T): T => {
  opened.push(thing);
  return thing;
};

afterEach(() => {
  for (const thing of opened.splice(0).reverse()) thing.close();
});

function memory(pages: number): { fd: OwnedFd; mapping: Mapping; words: Int32Array } {
  const fd = open(createMemfd({ name: 'aerostat-dirty-log', size: pages * PAGE_SIZE }));
  const mapping = open(Mapping.shared(fd.number, 0, pages * PAGE_SIZE));
  return { fd, mapping, words: new Int32Array(mapping.buffer, mapping.offset, mapping.length / 4) };
}

function taken(log: DirtyLog, slots: number, start = 0, count = slots): number[] {
  const into = new SlotBitmap(slots);
  const pages = log.collect(start, count, into);
  const list = Array.from({ length: slots }, (_, slot) => slot).filter(slot => into.has(slot));
  expect(pages).toBe(list.length);
  return list;
}

describe('the log that the guest keeps', () => {
  test('gives each page once, and only those that were asked for', () => {
    const log = new SoftwareDirtyLog(200);
    log.add(3, 1);
    log.add(30, 40);
    log.add(199, 1);
    log.add(3, 1);
    expect(taken(log, 200, 31, 33)).toEqual(Array.from({ length: 33 }, (_, i) => 31 + i));
    expect(taken(log, 200)).toEqual([3, 30, 64, 65, 66, 67, 68, 69, 199]);
    expect(taken(log, 200)).toEqual([]);
  });
});

describe.skipIf(kernelLogs)(`the log that the kernel keeps${kernelLogs ? ` (${kernelLogs})` : ''}`, () => {
  test('counts everything as written at first, then each page once', () => {
    const { mapping, words } = memory(100);
    const log = open(new KernelDirtyLog([{ start: 0, count: 100, address: mapping.address }]));
    expect(taken(log, 100)).toHaveLength(100);
    expect(taken(log, 100)).toEqual([]);
    for (const slot of [7, 8, 50, 99]) words[slot * WORDS_PER_PAGE] = 1;
    expect(taken(log, 100, 8, 42)).toEqual([8]);
    expect(taken(log, 100)).toEqual([7, 50, 99]);
  });

  test('does not count reading', () => {
    const { mapping, words } = memory(16);
    words[3 * WORDS_PER_PAGE] = 1;
    const log = open(new KernelDirtyLog([{ start: 0, count: 16, address: mapping.address }]));
    taken(log, 16);
    expect(words[3 * WORDS_PER_PAGE] + words[4 * WORDS_PER_PAGE]).toBe(1);
    expect(taken(log, 16)).toEqual([]);
  });

  test('follows several mappings of the same pages, more runs than one scan returns', () => {
    const pages = 6000;
    const { fd, mapping, words } = memory(pages);
    const second = open(Mapping.shared(fd.number, 1000 * PAGE_SIZE, 10 * PAGE_SIZE));
    const log = open(
      new KernelDirtyLog([
        { start: 0, count: pages, address: mapping.address },
        { start: 1000, count: 10, address: second.address },
      ]),
    );
    log.collect(0, pages, new SlotBitmap(pages));
    expect(taken(log, pages)).toEqual([]);
    for (let slot = 0; slot < pages; slot += 2) words[slot * WORDS_PER_PAGE] = 1;
    new Int32Array(second.buffer)[WORDS_PER_PAGE] = 1;
    const list = taken(log, pages);
    expect(list).toHaveLength(pages / 2 + 1);
    expect(list).toContain(1001);
    expect(taken(log, pages)).toEqual([]);
  });
});

/** In each round, writes to random pages of the mapping and marks each in the software log; ends in round 0. */
const WRITER = `
  const { workerData: data } = require('node:worker_threads');
  const koffi = require('koffi');
  const words = new Int32Array(koffi.view(data.address, data.pages * 4096));
  const log = new Int32Array(data.log);
  const rounds = new Int32Array(data.rounds);
  let random = data.seed >>> 0, serial = 0;
  for (let round = 1; ; round++) {
    Atomics.wait(rounds, 0, round - 1);
    if (Atomics.load(rounds, 0) === 0) break;
    for (let store = 0; store < data.stores; store++) {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      const page = Math.floor((random / 2 ** 32) ** 2 * data.pages);
      words[page * 1024 + (random & 1023)] = ++serial;
      Atomics.or(log, page >>> 5, 1 << (page & 31));
    }
    Atomics.add(rounds, 1, 1);
  }
`;

/** Threads that write at the same time, also to the same pages. */
const WRITERS = 3;

test.skipIf(kernelLogs)('neither log misses a write of other threads that the other one saw', async () => {
  const pages = 4096;
  const { mapping, words } = memory(pages);
  words.fill(0);
  const software = new SoftwareDirtyLog(pages);
  const kernel = open(new KernelDirtyLog([{ start: 0, count: pages, address: mapping.address }]));
  kernel.collect(0, pages, new SlotBitmap(pages));
  // The round that the writers are asked for, and how many rounds all of them have done.
  const rounds = new Int32Array(new SharedArrayBuffer(8));
  const workers = Array.from(
    { length: WRITERS },
    (_, index) =>
      new Worker(WRITER, {
        eval: true,
        workerData: {
          address: mapping.address,
          pages,
          stores: 8000,
          log: software.words.buffer,
          rounds: rounds.buffer,
          seed: 4 + index,
        },
      }),
  );
  const failed = Promise.race(
    workers.map(worker => new Promise<never>((_, reject) => worker.once('error', reject))),
  );
  const copies = [software, kernel].map(log => ({ log, words: new Int32Array(words.length), pages: 0 }));
  const seen = copies.map(() => new SlotBitmap(pages));
  const copyWhatIsNew = (index: number) => {
    const copy = copies[index];
    const found = new SlotBitmap(pages);
    copy.pages += copy.log.collect(0, pages, found);
    for (let from = 0; found.drain(from, pages, 64); from = found.start) {
      const at = found.start * WORDS_PER_PAGE;
      copy.words.set(words.subarray(at, at + found.count * WORDS_PER_PAGE), at);
      seen[index].set(found.start, found.count);
    }
  };
  const run = async () => {
    for (let round = 1; round <= 20; round++) {
      Atomics.store(rounds, 0, round);
      Atomics.notify(rounds, 0);
      for (let sync = 0; Atomics.load(rounds, 1) < round * WRITERS; sync++) {
        copyWhatIsNew(sync % 2);
        await new Promise(resolve => setTimeout(resolve, 0));
      }
      for (const index of [0, 1]) {
        copyWhatIsNew(index);
        expect(
          Buffer.compare(
            Buffer.from(copies[index].words.buffer),
            Buffer.from(mapping.buffer, mapping.offset, mapping.length),
          ),
        ).toBe(0);
      }
      // What one of them reported between two stops, the other one did, too.
      expect(seen[1].words).toEqual(seen[0].words);
      for (const bitmap of seen) bitmap.words.fill(0);
    }
    for (const copy of copies) expect(copy.pages).toBeGreaterThan(pages);
  };
  const ended = Promise.all(workers.map(worker => new Promise(resolve => worker.once('exit', resolve))));
  try {
    await Promise.race([run(), failed]);
  } finally {
    Atomics.store(rounds, 0, 0);
    Atomics.notify(rounds, 0);
    await ended;
  }
});
