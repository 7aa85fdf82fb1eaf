/** The account of a region beyond what a device's tests see of it: what it costs when there is nothing to account for. */
import { expect, test } from 'vitest';
import { PageAccount } from '../../src/device/page-account.ts';
import type { Backing } from '../../src/memory/backing.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';

const MIB = 2 ** 20;
const TIB = 2 ** 40;

/** Memory of which nothing is ever touched. */
function untouched(size: number): Backing {
  const window = () => {
    throw new Error('touched');
  };
  return {
    kind: 'shmem',
    size,
    discardUnit: PAGE_SIZE,
    window,
    discard() {},
    residentBytes: () => 0,
    close() {},
  };
}

const openAccount = (size: number) =>
  new PageAccount(new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, untouched(size)));

test('a guest of 4 TiB that starts over without having given anything away costs the host no memory', () => {
  const account = openAccount(4 * TIB);
  const before = process.memoryUsage.rss();
  for (let again = 0; again < 100; again++) account.forget();
  account.pending.close();
  expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MIB);
});

test('whoever starts over has given nothing away, and reported nothing', () => {
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
