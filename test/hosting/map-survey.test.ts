/** Maps of real files: what is resident is the kernel's word, and every other layer the accounts'. */
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  decodeShares,
  type MapLayer,
  type MapOptions,
  type MemoryMap,
} from '../../src/control/memory-map.ts';
import { PageAccount } from '../../src/device/page-account.ts';
import { mapSources } from '../../src/hosting/map-sources.ts';
import { MapSurvey } from '../../src/hosting/map-survey.ts';
import { FileBacking } from '../../src/memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE, PFN_LIMIT } from '../../src/memory/page.ts';
import { PageSet } from '../../src/memory/page-set.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';

const MIB = 2 ** 20;

function guest(...sizes: readonly number[]) {
  let address = 0;
  const regions = sizes.map(size => {
    const backing = new FileBacking(createMemfd({ name: 'aerostat-test', size }), 0, size);
    const region = new MemoryRegion({ guestAddress: address, size, userAddress: address }, backing);
    // A gap as below 4 GiB of a PC.
    address += size + 64 * MIB;
    return region;
  });
  const memory = new GuestMemory(regions);
  onTestFinished(() => memory.close());
  const accounts = regions.map(region => new PageAccount(region));
  const hinted = new PageSet(PFN_LIMIT);
  const survey = new MapSurvey();
  const draw = (options: MapOptions = {}) => survey.draw('vm1', mapSources(accounts, hinted), options);
  const touch = (page: number, count: number, region = regions[0]) =>
    memory.fill(region.guestAddress + page * PAGE_SIZE, 0x5a, count * PAGE_SIZE);
  return { memory, regions, accounts, hinted, draw, touch };
}

function sharesOf(map: MemoryMap, layer: MapLayer): number[] {
  return [...decodeShares(map.layers[layer] ?? '', Math.ceil(map.bytes / map.cellBytes))];
}

describe('a map', () => {
  test('shows what the host holds, to the page', async () => {
    const { draw, touch } = guest(MIB);
    touch(3, 2);
    touch(255, 1);
    const map = await draw();
    expect(map).toMatchObject({ memoryBytes: MIB, fromBytes: 0, bytes: MIB, cellBytes: PAGE_SIZE });
    const expected = new Array<number>(256).fill(0);
    for (const page of [3, 4, 255]) expected[page] = 255;
    expect(sharesOf(map, 'resident')).toEqual(expected);
    expect(map.totals.resident).toBe(3 * PAGE_SIZE);
    expect(map.residentAgeMs).toBeGreaterThanOrEqual(0);
  });

  test('shows what was ballooned, what of it is pending, and what left both', async () => {
    const { draw, accounts } = guest(MIB);
    const [account] = accounts;
    account.give(0, 128, true);
    let map = await draw({ cells: 4 });
    expect(map.cellBytes).toBe(MIB / 4);
    expect(sharesOf(map, 'ballooned')).toEqual([255, 255, 0, 0]);
    expect(sharesOf(map, 'pending')).toEqual([255, 255, 0, 0]);
    account.take(0, 32);
    account.drain();
    map = await draw({ cells: 4 });
    expect(sharesOf(map, 'ballooned')).toEqual([128, 255, 0, 0]);
    expect(map.totals).toMatchObject({ ballooned: 96 * PAGE_SIZE, pending: 0 });
  });

  test('shows hints and reports', async () => {
    const { draw, touch, accounts, hinted } = guest(MIB);
    hinted.add(64, 64);
    accounts[0].reported.set(128, 64);
    const map = await draw({ cells: 4 });
    expect(sharesOf(map, 'hinted')).toEqual([0, 255, 0, 0]);
    expect(sharesOf(map, 'reported')).toEqual([0, 0, 255, 0]);
    // What is used again, or given away, is not free any more.
    accounts[0].give(128, 16, false);
    touch(160, 16);
    await expect.poll(async () => sharesOf(await draw({ cells: 4 }), 'reported')).toEqual([0, 0, 128, 0]);
  });

  test('counts through regions as if there were no gap, and says where they are', async () => {
    const { draw, touch, accounts, regions, hinted } = guest(MIB, 2 * MIB);
    touch(0, 256, regions[1]);
    accounts[1].give(256, 256, false);
    hinted.add(regions[1].firstPfn, 512);
    const map = await draw({ cells: 3 });
    expect(map).toMatchObject({ memoryBytes: 3 * MIB, cellBytes: MIB });
    expect(map.regions).toEqual([
      { guestAddress: 0, bytes: MIB },
      { guestAddress: 65 * MIB, bytes: 2 * MIB },
    ]);
    expect(sharesOf(map, 'resident')).toEqual([0, 255, 0]);
    expect(sharesOf(map, 'ballooned')).toEqual([0, 0, 255]);
    expect(sharesOf(map, 'hinted')).toEqual([0, 255, 255]);
  });

  test('zooms to a part, in whole cells', async () => {
    const { draw, touch } = guest(8 * MIB);
    touch(1000, 24);
    const map = await draw({ fromBytes: 1001 * PAGE_SIZE, bytes: 30 * PAGE_SIZE, cells: 8 });
    expect(map).toMatchObject({
      fromBytes: 1000 * PAGE_SIZE,
      bytes: 32 * PAGE_SIZE,
      cellBytes: 4 * PAGE_SIZE,
    });
    expect(sharesOf(map, 'resident')).toEqual([255, 255, 255, 255, 255, 255, 0, 0]);
  });

  test('asked for beyond the end shows the end', async () => {
    const { draw } = guest(3 * MIB);
    const map = await draw({ fromBytes: 2 ** 50, bytes: 2 ** 50 });
    expect(map).toMatchObject({ fromBytes: 3 * MIB - PAGE_SIZE, bytes: PAGE_SIZE });
    const cut = await draw({ cells: 2 });
    expect(cut).toMatchObject({ cellBytes: 2 * MIB, bytes: 3 * MIB });
    expect(sharesOf(cut, 'ballooned')).toEqual([0, 0]);
  });

  test('follows what changes, and leaves no descriptor open', async () => {
    const { draw, touch, regions } = guest(32 * MIB);
    const open = openDescriptorCount();
    expect((await draw()).totals.resident).toBe(0);
    touch(0, 4096);
    await expect.poll(async () => (await draw()).totals.resident).toBe(16 * MIB);
    regions[0].backing.discard(0, 8 * MIB);
    await expect.poll(async () => (await draw()).totals.resident).toBe(8 * MIB);
    expect(openDescriptorCount()).toBe(open);
  });

  test('of a guest without memory is refused', async () => {
    await expect(guest().draw()).rejects.toMatchObject({ code: 'AEROSTAT_GUEST_STATE' });
  });
});

describe('a map of 12 TiB of sparse memory', () => {
  const SIZE = 2 ** 42;

  test('is drawn in slices, in time, and says what was not looked at yet', async () => {
    const { draw, accounts, touch } = guest(SIZE, SIZE, SIZE);
    touch(7, 1);
    for (const account of accounts) account.give(0, account.region.pageCount, false);
    accounts[1].take(5, 1);
    accounts[0].pending.mark(9, 1);
    let drawing = true;
    let longestMs = 0;
    let lastMs = performance.now();
    const startedMs = lastMs;
    const watch = (): void => {
      const nowMs = performance.now();
      longestMs = Math.max(longestMs, nowMs - lastMs);
      lastMs = nowMs;
      if (drawing) setImmediate(watch);
    };
    setImmediate(watch);
    const map = await draw();
    drawing = false;
    // Others had their turns all the while.
    expect(longestMs).toBeLessThan((performance.now() - startedMs) / 3);
    expect(map.memoryBytes).toBe(3 * SIZE);
    expect(map.totals).toMatchObject({ ballooned: 3 * SIZE - PAGE_SIZE, pending: PAGE_SIZE });
    expect(map.totals.resident).toBe(PAGE_SIZE);
    expect(map.unseenBytes).toBeGreaterThan(0);
    expect(map.unseenBytes).toBeLessThan(3 * SIZE);
    expect(map.residentAgeMs).toBeNull();
    // Of a part that was seen nothing is missing.
    const part = await draw({ fromBytes: 0, bytes: MIB });
    expect(part).toMatchObject({ unseenBytes: 0, residentAgeMs: expect.any(Number) });
  });
});
