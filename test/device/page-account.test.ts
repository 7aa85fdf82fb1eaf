/** The account of a region beyond what a device's tests see of it: what it costs when there is nothing to account for. */
import { expect, test } from 'vitest';
import { PageAccount } from '../../src/device/page-account.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { UntouchableBacking } from '../support/untouchable-backing.ts';

const MIB = 2 ** 20;
const TIB = 2 ** 40;

const openAccount = (size: number, unit = PAGE_SIZE) =>
  new PageAccount(
    new MemoryRegion({ guestAddress: 0, size, userAddress: 0 }, new UntouchableBacking(size, unit)),
  );

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

test('a run of huge pages is pending as one, and discarded in few calls', () => {
  const account = openAccount(2 ** 30, 2 * MIB);
  // It begins and ends in the middle of huge pages.
  account.give(5, 2 ** 18 - 10, true);
  expect(account.pendingPages).toBe(510 * 512);
  expect(account.incompletePages).toBe(507 + 507);
  expect(account.drain()).toBeUndefined();
  expect(account.pendingPages).toBe(0);
  expect(account.pending.discardedUnits).toBe(510);
  // Claims have 32 huge pages: the first and the last of them are not whole, and those between go together.
  expect(account.pending.discards).toBeLessThan(10);
});

test('runs of huge pages are accounted for as the same pages one by one', () => {
  const [long, short] = [openAccount(256 * MIB, 2 * MIB), openAccount(256 * MIB, 2 * MIB)];
  let state = 7;
  const random = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % below;
  };
  for (let step = 0; step < 300; step++) {
    const page = random(long.pageCount);
    const count = 1 + random(Math.min(4096, long.pageCount - page));
    const gives = random(3) > 0;
    let taken = 0;
    if (gives) long.give(page, count, true);
    else taken = long.take(page, count);
    for (let at = page; at < page + count; at++) {
      if (gives) short.give(at, 1, true);
      else taken -= short.take(at, 1);
    }
    expect(taken).toBe(0);
    for (const figure of ['balloonedPages', 'incompletePages', 'pendingPages'] as const)
      expect(long[figure]).toBe(short[figure]);
    if (step % 20 === 0) for (const account of [long, short]) expect(account.drain()).toBeUndefined();
  }
});

test('a huge page that is pending counts as a few small ones, by what the kernel takes for it', () => {
  const [small, huge] = [openAccount(256 * MIB), openAccount(256 * MIB, 2 * MIB)];
  for (const account of [small, huge]) account.give(0, account.pageCount, true);
  expect([small.pendingPages, small.pendingWork]).toEqual([65_536, 65_536]);
  expect([huge.pendingPages, huge.pendingWork]).toEqual([65_536, 2048]);
});
