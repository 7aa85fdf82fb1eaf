/** The page with a real Linux kernel behind it: what is seen on it is what the kernel itself says. */
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freeMemory, useMemory } from '../../src/peers/linux/workloads.ts';
import { missingPrograms } from '../../src/peers/programs.ts';
import { UmlGuest } from '../../src/peers/uml/guest.ts';
import { size } from '../../web/src/format.ts';
import { build } from '../cli/built.ts';
import { describePeer, missingForUml } from '../support/peers.ts';
import { launch, openPage } from './browser.ts';
import { MIB, PageWorld } from './world.ts';

const POLL = { timeout: 60_000 } as const;

describePeer('the dashboard of a Linux guest', missingForUml() ?? missingPrograms('chromium'), () => {
  let world: PageWorld;
  let browser: Browser;
  let guest: UmlGuest;

  beforeAll(async () => {
    build();
    // Without reporting, what was freed stays at the host until the balloon takes it.
    [world, browser] = await Promise.all([PageWorld.start(['linux'], ['--without', 'reporting']), launch()]);
    guest = await UmlGuest.boot({ memoryBytes: 512 * MIB, sockets: [world.daemon.socketOf('linux')] });
    world.keep({ close: () => guest.shutdown() });
    await useMemory(guest, 300 * MIB);
    await freeMemory(guest);
  }, 90_000);

  afterAll(async () => {
    await browser?.close();
    await world?.close();
  });

  test('moves its memory to the host by the slider, and shows where it was', async () => {
    const { page, blameless } = await openPage(browser, world.origin);
    await page.goto(world.entrance);
    await page.click('[data-guest="linux"]');
    await page.waitForSelector('.map canvas');
    const text = (selector: string) => page.textContent(selector);
    const before = await world.daemon.control.guest('linux');
    const { MemFree, MemTotal } = await guest.meminfo();
    await expect.poll(() => text('[data-statistic="totalBytes"]'), POLL).toBe(size(MemTotal));
    expect(await text('[data-figure="resident"]')).toBe(size(before.residentBytes));

    await page.getByLabel('Target of the balloon, by slider').fill(String(256 * MIB));
    await page.getByRole('button', { name: 'Set target' }).click();
    const after = await world.daemon.untilGuest(
      'linux',
      ({ actualBytes, pendingBytes }) => actualBytes === 256 * MIB && pendingBytes === 0,
    );
    await expect.poll(() => text('[data-figure="actual"]'), POLL).toBe('256 MiB');
    await expect.poll(() => text('[data-layer="ballooned"]'), POLL).toBe('256 MiB');
    await expect.poll(() => text('[data-figure="resident"]'), POLL).toBe(size(after.residentBytes));
    expect(after.residentBytes).toBeLessThan((before.residentBytes ?? 0) - 200 * MIB);
    const left = await guest.meminfo();
    expect(MemFree - left.MemFree).toBeGreaterThan(200 * MIB);
    blameless();
    await page.context().close();
  });
});
