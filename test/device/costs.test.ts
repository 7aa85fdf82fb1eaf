/**
 * What a guest's worst lists cost: every step counts as work, a turn ends when its work is done, also in the middle of a
 * list or a run, and nothing is lost or seen too early by that.
 */
import { describe, expect, test } from 'vitest';
import { pageChunks } from '../../src/balloon/formats/page-chunks.ts';
import { pfnArray } from '../../src/balloon/formats/pfn-array.ts';
import { DeviceCounters } from '../../src/device/counters.ts';
import { ListWalk } from '../../src/device/list-walk.ts';
import { PageAccounts } from '../../src/device/page-accounts.ts';
import { WORK_PER_TURN } from '../../src/device/turn.ts';
import { BLOCK_PAGES } from '../../src/memory/block-bitmap.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { RING_PACKED } from '../../src/virtio/features.ts';
import { FIRST_PAGE, openRig } from '../support/device-rig.ts';
import { UntouchableBacking } from '../support/untouchable-backing.ts';

const TIB_PAGES = 2 ** 28;

function openAccounts(regions: readonly (readonly [firstPfn: number, pages: number])[]) {
  let looks = 0;
  const accounts = new PageAccounts(new DeviceCounters());
  for (const [firstPfn, pages] of regions) {
    const addresses = { guestAddress: firstPfn * PAGE_SIZE, size: pages * PAGE_SIZE, userAddress: 0 };
    const region = new MemoryRegion(addresses, new UntouchableBacking(pages * PAGE_SIZE));
    accounts.open(
      new Proxy(region, {
        get: (target, name) => {
          if (name === 'firstPfn') looks++;
          return Reflect.get(target, name, target);
        },
      }),
    );
  }
  return { accounts, looks: () => looks };
}

/** Takes a list in as many turns as it wants; gives the work of each. */
function turnsOf(accounts: PageAccounts, walk: ListWalk): number[] {
  const turns: number[] = [];
  for (let done = false; !done; ) {
    const before = accounts.budget.spent;
    accounts.budget.begin();
    done = walk.resumeList(accounts);
    accounts.budget.end();
    turns.push(accounts.budget.spent - before);
  }
  return turns;
}

describe('a list whose pages alternate between 500 regions', () => {
  test('costs each page a search, and not a walk over regions', () => {
    const regions = 500;
    const { accounts, looks } = openAccounts(Array.from({ length: regions }, (_, index) => [index * 64, 16]));
    const walk = new ListWalk();
    const pages = 2 ** 13;
    walk.list.reserve(pages * 4);
    walk.list.length = pages * 4;
    // Never the same region twice in a row, nor the one next to it.
    for (let at = 0; at < pages; at++) walk.list.u32[at] = ((at * 7) % regions) * 64 + (at >>> 9);
    let named = 0;
    walk.begin(pfnArray, { add: (pfn, count) => accounts.forEachPart(pfn, count, () => named++) }, accounts);
    const before = looks();
    turnsOf(accounts, walk);
    expect(named).toBe(Math.min(pages, regions * 16));
    expect((looks() - before) / pages).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(regions)));
  });
});

describe('one range of 12 TiB of sparse memory', () => {
  const SPARSE = [1, 2, 3].map(index => [index * 4 * TIB_PAGES, 4 * TIB_PAGES] as const);

  function walkOver(accounts: PageAccounts, use: Parameters<PageAccounts['forEachPart']>[2]): ListWalk {
    const walk = new ListWalk();
    const view = walk.list.view;
    walk.list.length = 24;
    [1n, BigInt(4 * TIB_PAGES * PAGE_SIZE), BigInt(12 * TIB_PAGES * PAGE_SIZE)].forEach((value, index) => {
      view.setBigUint64(index * 8, value, true);
    });
    walk.begin(pageChunks, { add: (pfn, count) => accounts.forEachPart(pfn, count, use) }, accounts);
    return walk;
  }

  test('is given in turns that each end in time, and is accounted to the page', () => {
    const { accounts } = openAccounts(SPARSE);
    const turns = turnsOf(
      accounts,
      walkOver(accounts, (account, page, count) => account.give(page, count, false)),
    );
    expect(accounts.balloonedPages).toBe(12 * TIB_PAGES);
    // To a turn's work the part is added that it was in.
    for (const work of turns) expect(work).toBeLessThan(2 * WORK_PER_TURN);
  });

  test('is pending by stretches, which give the bitmaps no memory', () => {
    const { accounts } = openAccounts(SPARSE);
    const residentBefore = process.memoryUsage.rss();
    const pages = 12 * TIB_PAGES;
    const turns = turnsOf(
      accounts,
      walkOver(accounts, (account, page, count) => account.give(page, count, true)),
    );
    expect(accounts.all.reduce((total, account) => total + account.pendingPages, 0)).toBe(pages);
    const work = turns.reduce((total, turn) => total + turn, 0);
    expect(work).toBeLessThan((pages / BLOCK_PAGES) * 300);
    let taken = 0;
    turnsOf(
      accounts,
      walkOver(accounts, (account, page, count) => {
        taken += account.take(page, count);
      }),
    );
    expect(taken).toBe(pages);
    expect(accounts.all.map(({ pendingPages, keptUnits }) => [pendingPages, keptUnits])).toEqual(
      SPARSE.map(([, count]) => [0, count]),
    );
    expect(process.memoryUsage.rss() - residentBefore).toBeLessThan(64 * 2 ** 20);
  });

  test('is taken back by blocks, and what was never given costs no words', () => {
    const { accounts } = openAccounts(SPARSE);
    const residentBefore = process.memoryUsage.rss();
    const [account] = accounts.all;
    account.give(5, 1, true);
    const pages = 12 * TIB_PAGES;
    let taken = 0;
    const turns = turnsOf(
      accounts,
      walkOver(accounts, (one, page, count) => {
        taken += one.take(page, count);
      }),
    );
    expect(taken).toBe(1);
    expect(account.pendingPages).toBe(0);
    const work = turns.reduce((total, turn) => total + turn, 0);
    expect(work).toBeLessThan((pages / BLOCK_PAGES) * 100);
    expect(process.memoryUsage.rss() - residentBefore).toBeLessThan(64 * 2 ** 20);
  });
});

describe.each([
  ['split', 0n],
  ['packed', RING_PACKED],
])('a list of a megabyte on a %s ring', (_, ringFeatures) => {
  const MEMORY_BYTES = 64 * 2 ** 20;
  const LIST_AT = 8 * 2 ** 20;
  const NUMBERS = 2 ** 18;

  /** Every other page, up and down again: more runs than a turn takes. */
  function rigWithList() {
    const rig = openRig({ memoryBytes: MEMORY_BYTES, ringFeatures });
    const pages = MEMORY_BYTES / PAGE_SIZE - 4096;
    const list = new Uint32Array(NUMBERS);
    for (let at = 0; at < NUMBERS; at++) list[at] = 4096 + ((2 * at) % pages);
    rig.memory.write(LIST_AT, new Uint8Array(list.buffer));
    return { rig, pages: Math.min(NUMBERS, pages / 2), longList: [[LIST_AT, NUMBERS * 4] as const] };
  }

  test('takes several turns, others have theirs in between, and it comes back when all of it is taken', () => {
    const { rig, pages, longList } = rigWithList();
    const inflate = rig.queue('inflate');
    inflate.add({ outAt: longList });
    inflate.driver.publish(rig.memory);
    let turns = 1;
    const spent: number[] = [];
    for (let more = true; more; turns++) {
      const before = rig.device.accounts.budget.spent;
      more = rig.device.serveQueue(inflate.index);
      spent.push(rig.device.accounts.budget.spent - before);
      if (!more) break;
      expect(inflate.collect()).toEqual([]);
      // A deflation of another ring is served meanwhile.
      const page = new Uint8Array(Uint32Array.of(FIRST_PAGE).buffer);
      expect(rig.queue('deflate').exchange({ out: [page] })).toHaveLength(1);
    }
    expect(turns).toBeGreaterThan(4);
    // The first has to read it.
    for (const [turn, work] of spent.entries()) {
      expect(work).toBeLessThan(2 * WORK_PER_TURN + (turn === 0 ? NUMBERS * 4 : 0));
    }
    expect(inflate.collect()).toHaveLength(1);
    expect(rig.balloonedPages).toBe(pages);
    expect(rig.device.counters).toMatchObject({ inflateBuffers: 1, badBuffers: 0 });
  });

  test('is taken again whole when its ring was paused in the middle of it', () => {
    const { rig, pages, longList } = rigWithList();
    const inflate = rig.queue('inflate');
    inflate.add({ outAt: longList });
    inflate.driver.publish(rig.memory);
    expect(rig.device.serveQueue(inflate.index)).toBe(true);
    expect(rig.balloonedPages).toBeLessThan(pages);
    rig.device.stopQueue(inflate.index, 'paused');
    inflate.start();
    while (rig.device.serveQueue(inflate.index));
    expect(inflate.collect()).toHaveLength(1);
    expect(rig.balloonedPages).toBe(pages);
  });
});
