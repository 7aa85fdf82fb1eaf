/** Deflations while a thread discards whose every punch takes 5 ms: they wait for a punch, and not for all that are pending. */
import { beforeAll, expect, test } from 'vitest';
import type { PendingDiscards } from '../../src/memory/pending-discards.ts';
import { build } from '../cli/built.ts';
import { FIRST_PAGE, openRig } from '../support/device-rig.ts';
import { startDiscarder } from '../support/discarder-thread.ts';

const PAGES = 2000;
const DEFLATIONS = 60;
/** The one in flight, and those that are made while this thread has no processor. The whole claim has 2,000. */
const PUNCHES_MAX = 20;

beforeAll(build);

/** Which of the pages is being punched. */
async function inFlightOf(pending: PendingDiscards, page: (index: number) => number): Promise<number> {
  for (;;) {
    for (let index = 0; index < PAGES - 3; index++) if (pending.inFlight(page(index), 1)) return index;
    await new Promise(resolve => setImmediate(resolve));
  }
}

test('a deflation waits for the punch of its pages, though thousands are pending beside them', async () => {
  const rig = openRig({ memory: 'shmem', memoryBytes: 32 * 2 ** 20, discardsElsewhere: true });
  const [account] = rig.device.accounts.all;
  const { pending } = account;
  const page = (index: number) => FIRST_PAGE + 2 * index;
  for (let index = 0; index < PAGES; index++) rig.touch(page(index), 1, 0x5a);
  for (let first = 0; first < PAGES; first += 250) {
    rig.inflate(...Array.from({ length: 250 }, (_, index) => [page(first + index), 1] as const));
    rig.forgetLists();
  }
  const script = new URL('./slow-discarder.mjs', import.meta.url);
  const { words, ended } = startDiscarder(script, account);
  const deflate = rig.queue('deflate');
  const punches: number[] = [];
  let kept = 0;
  try {
    for (let index = 0; index < DEFLATIONS; index++) {
      const next = await inFlightOf(pending, page);
      const before = Atomics.load(words, 2);
      let returned = rig.deflate(...[0, 1, 2].map(ahead => [page(next + ahead), 1] as const));
      rig.forgetLists();
      if (returned.length === 0) kept++;
      while (returned.length === 0) {
        const news = Atomics.load(words, 1);
        for (const ring of rig.device.resumable()) rig.device.serveQueue(ring);
        returned = deflate.collect();
        if (returned.length === 0) Atomics.wait(words, 1, news, 1000);
      }
      punches.push(Atomics.load(words, 2) - before);
      // The guest has its pages, and no discard takes what it writes.
      await new Promise(resolve => setImmediate(resolve));
    }
  } finally {
    Atomics.store(words, 0, 1);
    Atomics.notify(words, 0);
    await ended;
  }
  expect(kept).toBeGreaterThan(0);
  expect(Math.max(...punches)).toBeLessThan(PUNCHES_MAX);
});
