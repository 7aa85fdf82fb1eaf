/** Guests of QEMU whose memory is something else than small pages of a memfd: a file on a disk, and huge pages. */

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { cacheDirectory } from '../../../src/peers/cache.ts';
import { freeMemory, useMemory } from '../../../src/peers/linux/workloads.ts';
import { DaemonProcess } from '../../support/daemon.ts';
import { HUGE_PAGE_SIZE, reserveHugePages } from '../../support/huge-pages.ts';
import { describePeer } from '../../support/peers.ts';
import { checksummedFiles, verifyFiles } from '../linux/checked-workloads.ts';
import type { VhostUserGuest } from '../qemu/vhost-user-guest.ts';
import { bootGenericDevice, missingForGenericDevice } from './front-ends.ts';

const MIB = 2 ** 20;
const KERNEL = 'linux-6.12';
const GUEST_BYTES = 384 * MIB;
const USED_BYTES = 128 * MIB;
const BALLOON_BYTES = 128 * MIB;
const TIMEOUT_MS = 400_000;

describePeer('a QEMU guest on memory of another kind', missingForGenericDevice(KERNEL), () => {
  const steps: (() => unknown)[] = [];
  afterEach(async () => {
    for (const step of steps.splice(0).reverse()) await step();
  });

  async function boot(memoryBackend: string): Promise<{ daemon: DaemonProcess; guest: VhostUserGuest }> {
    // Free memory that is reported would be given back before the balloon gets it.
    const daemon = await DaemonProcess.start(['g'], ['--without', 'reporting']);
    steps.push(() => daemon.stop());
    const socket = daemon.socketOf('g');
    const guest = await bootGenericDevice(KERNEL, { memoryBytes: GUEST_BYTES, memoryBackend, socket });
    steps.push(() => guest.shutdown());
    await checksummedFiles(guest, 16 * MIB);
    await useMemory(guest, USED_BYTES);
    await freeMemory(guest);
    return { daemon, guest };
  }

  test(
    'gives back blocks of a file on a disk, and finds what it kept',
    async () => {
      // Beside the cache, which is on a disk where /tmp may not be.
      const directory = mkdtempSync(join(cacheDirectory(), 'memory-'));
      steps.push(() => rmSync(directory, { recursive: true, force: true }));
      const file = join(directory, 'ram');
      const { daemon, guest } = await boot(`memory-backend-file,mem-path=${file},share=on`);
      const before = statSync(file).blocks * 512;
      const { balloonedBytes, lastError } = await daemon.reach('g', BALLOON_BYTES);
      expect(balloonedBytes).toBe(BALLOON_BYTES);
      expect(lastError).toBeNull();
      await verifyFiles(guest);
      // What was never written has no blocks to give back, so it is less than the balloon holds.
      expect(before - statSync(file).blocks * 512).toBeGreaterThan(BALLOON_BYTES / 4);
      await daemon.reach('g', 0);
      await useMemory(guest, USED_BYTES);
      await verifyFiles(guest);
    },
    TIMEOUT_MS,
  );

  test(
    'gives back huge pages that are ballooned whole, and keeps those that are not',
    async context => {
      const pages = reserveHugePages(GUEST_BYTES / HUGE_PAGE_SIZE);
      if (pages.missing !== undefined) return context.skip(pages.missing);
      steps.push(() => pages.release());
      const { daemon, guest } = await boot('memory-backend-memfd,hugetlb=on,hugetlbsize=2M,share=on');
      const before = (await daemon.control.guest('g')).residentBytes ?? 0;
      const { balloonedBytes, residentBytes, lastError } = await daemon.reach('g', BALLOON_BYTES);
      expect(balloonedBytes).toBe(BALLOON_BYTES);
      expect(lastError).toBeNull();
      expect(before - (residentBytes ?? 0)).toBeGreaterThan(BALLOON_BYTES / 4);
      await verifyFiles(guest);
      await daemon.reach('g', 0);
      await useMemory(guest, USED_BYTES);
      await verifyFiles(guest);
    },
    TIMEOUT_MS,
  );
});
