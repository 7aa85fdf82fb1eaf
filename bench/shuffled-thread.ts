/**
 * The second thread of `bench:micro -- shuffled`: goes ahead of the one that punches and asks the kernel for its next
 * stretches, in one of several ways, or punches every other stretch itself.
 */
import { openSync, readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { PAGE_SIZE } from '../src/memory/page.ts';
import { punchHole } from '../src/sys/file.ts';
import { libc } from '../src/sys/libc.ts';
import { ResidentPages } from '../src/sys/mapping.ts';
import { STRETCH_BYTES } from './shuffled-memory.ts';

/** What it does with a stretch. */
export type Ahead = 'mincore' | 'pagemap' | 'populate' | 'punch';

export interface ThreadWork {
  readonly ahead: Ahead;
  readonly fd: number;
  readonly address: number;
  readonly stretches: number;
}

/** Words that both threads share: stretches that the other one has punched, and whether this one is through. */
export const PUNCHED_WORD = 0;
export const DONE_WORD = 1;
/** It is no further ahead than so many stretches: what it brought into the caches is to be there still. */
const AHEAD_MAX = 2;
const MADV_POPULATE_READ = 22;
const ENTRY_BYTES = 8;

const words = new Int32Array(workerData as SharedArrayBuffer);
const resident = new ResidentPages(STRETCH_BYTES / PAGE_SIZE);
const entries = new Uint8Array((STRETCH_BYTES / PAGE_SIZE) * ENTRY_BYTES);
const pagemap = openSync('/proc/self/pagemap', 'r');

const ways: Record<Ahead, (work: ThreadWork, stretch: number) => void> = {
  // Of a mapping of its own, which has no page table: the kernel looks at the pages themselves.
  mincore: ({ fd }, stretch) => resident.ask(fd, stretch * STRETCH_BYTES, STRETCH_BYTES),
  pagemap: ({ address }, stretch) => {
    const at = ((address + stretch * STRETCH_BYTES) / PAGE_SIZE) * ENTRY_BYTES;
    readSync(pagemap, entries, 0, entries.length, at);
  },
  populate: ({ address }, stretch) =>
    void libc.madvise(address + stretch * STRETCH_BYTES, STRETCH_BYTES, MADV_POPULATE_READ),
  punch: ({ fd }, stretch) => {
    if (stretch % 2 === 1) punchHole({ number: fd }, stretch * STRETCH_BYTES, STRETCH_BYTES);
  },
};

parentPort?.on('message', (work: ThreadWork) => {
  const way = ways[work.ahead];
  for (let stretch = 1; stretch < work.stretches; stretch++) {
    for (;;) {
      const punched = Atomics.load(words, PUNCHED_WORD);
      // One that fell behind goes on where it helps.
      if (work.ahead !== 'punch') stretch = Math.max(stretch, punched + 1);
      if (work.ahead === 'punch' || stretch <= punched + AHEAD_MAX) break;
      Atomics.wait(words, PUNCHED_WORD, punched);
    }
    if (stretch < work.stretches) way(work, stretch);
  }
  Atomics.store(words, DONE_WORD, 1);
  Atomics.notify(words, DONE_WORD);
});
parentPort?.postMessage('ready');
