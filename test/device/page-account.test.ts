/** The account of a region beyond what a device's tests see of it: what it costs when there is nothing to account for. */
import { expect, test } from 'vitest';
import { PageAccount } from '../../src/device/page-account.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { UntouchableBacking } from '../support/untouchable-backing.ts';

const MIB = 2 ** 20;
const TIB = 2 ** 40;

const openAccount = (size: number) =>
  new PageAccount(new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, new UntouchableBacking(size)));

test('a guest of 4 TiB that starts over without having given anything away costs the host no memory', () => {
  const account = openAccount(4 * TIB);
  const before = process.memoryUsage.rss();
  for (let again = 0; again < 100; again++) account.forget();
  account.pending.close();
  expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MIB);
});

test('a guest that starts over has given nothing away, and reported nothing', () => {
  const account = openAccount(MIB);
  account.give(3, 5, true);
  account.noteReported(100, 7);
  account.forget();
  expect(account.ballooned.total).toBe(0);
  expect(account.reported.total).toBe(0);
  expect(account.balloonedPages).toBe(0);
  expect(account.pendingPages).toBe(0);
  expect(account.pending.countIn(0, account.pending.units)).toBe(0);
  account.give(3, 1, true);
  expect(account.balloonedPages).toBe(1);
  expect(account.pendingPages).toBe(1);
});

test('pages that come one by one, the short way, are accounted for and cost as runs of one page', () => {
  const [long, short] = [openAccount(256 * MIB), openAccount(256 * MIB)];
  let state = 1;
  for (let step = 0; step < 20_000; step++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const page = (state >>> 8) % 512;
    if (state >>> 30 !== 0) {
      long.give(page, 1, true);
      if (!short.giveOne(page)) short.give(page, 1, true);
    } else {
      const taken = short.takeOne(page);
      expect(taken < 0 ? short.take(page, 1) : taken).toBe(long.take(page, 1));
    }
    if (step % 1000 === 0) for (const account of [long, short]) account.drain();
  }
  expect(short.balloonedPages).toBeGreaterThan(0);
  expect(short.keptUnits).toBeGreaterThan(0);
  for (const of of ['balloonedPages', 'pendingPages', 'keptUnits', 'work'] as const)
    expect([of, short[of]]).toEqual([of, long[of]]);
});
