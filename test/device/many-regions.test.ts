/** Guest memory in as many regions as a front-end may bring: the account and the discards are exact over all of them. */
import { expect, test } from 'vitest';
import { HeapBacking } from '../../src/memory/backing.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { MEM_SLOTS_MAX } from '../../src/vhost-user/protocol.ts';
import { openRig, type Run } from '../support/device-rig.ts';

/** Where the small regions lie: eight pages each, and a hole of eight behind each. */
const FIRST = 0x1_0000;
const STRIDE = 16;
const REGION_PAGES = 8;

// An account that leaves a region out fails it.
test.each(['virtio', 'page-bitmap', 'sg'])(
  '509 regions: the account is exact to the page (profile %s)',
  name => {
    const rig = openRig({ profile: name });
    expect(MEM_SLOTS_MAX).toBe(509);
    const starts = Array.from({ length: MEM_SLOTS_MAX - 1 }, (_, index) => FIRST + index * STRIDE);
    // Not in order of their addresses, which is how machines plug.
    const plugged = [
      ...starts.filter((_, index) => index % 2 === 1),
      ...starts.filter((_, index) => index % 2 === 0),
    ];
    for (const start of plugged) rig.addRegion(start * PAGE_SIZE, new HeapBacking(REGION_PAGES * PAGE_SIZE));
    expect(rig.device.accounts.all).toHaveLength(MEM_SLOTS_MAX);
    for (const start of starts) rig.touch(start, REGION_PAGES, 0x6b);

    const given: Run[] = starts.map(start => [start + 2, 5]);
    rig.inflate(...given);
    rig.device.drain();
    expect(rig.balloonedPages).toBe(5 * starts.length);
    expect(rig.device.inflation.discards.bytes).toBe(5 * starts.length * PAGE_SIZE);
    for (const start of [starts[0], starts[254], starts[507]]) {
      const contents = Array.from({ length: REGION_PAGES }, (_, page) => rig.contentOf(start + page));
      expect(contents).toEqual([0x6b, 0x6b, 0, 0, 0, 0, 0, 0x6b]);
    }

    rig.deflate(...starts.map((start): Run => [start + 3, 2]));
    expect(rig.balloonedPages).toBe(3 * starts.length);
    for (const { region, ballooned } of rig.device.accounts.all.filter(
      account => account.region.firstPfn > 0,
    )) {
      const runs: [number, number][] = [];
      ballooned.forEachRun((page, count) => runs.push([page, count]));
      expect(runs, `region at page ${region.firstPfn}`).toEqual([
        [2, 1],
        [5, 2],
      ]);
    }
    expect(rig.device.counters).toMatchObject({
      badPages: 0,
      badBuffers: 0,
      deflatedPages: 2 * starts.length,
    });
    expect(rig.device.accounts.pagesOutside).toBe(0);

    // What is left, one region after the other, the last plugged first.
    for (const start of plugged.toReversed().slice(0, 20)) rig.deflate([start + 2, 1], [start + 5, 2]);
    expect(rig.balloonedPages).toBe(3 * (starts.length - 20));
    rig.deflate(
      ...plugged
        .toReversed()
        .slice(20)
        .flatMap((start): Run[] => [
          [start + 2, 1],
          [start + 5, 2],
        ])
        .sort(([a], [b]) => a - b),
    );
    expect(rig.balloonedPages).toBe(0);
    expect(rig.device.counters.badPages).toBe(0);
  },
);
