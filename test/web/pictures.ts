/**
 * Takes the pictures in docs/assets anew: AEROSTAT_SCREENSHOTS=1 npx vitest run test/web/dashboard. Otherwise a test run
 * leaves the project's files alone.
 */
import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { build } from '../cli/built.ts';
import { MachineProcess } from '../vm/processes.ts';
import { launch, openPage } from './browser.ts';
import { entranceTo, MIB, PageWorld, servePageOf } from './world.ts';

const ASSETS = fileURLToPath(new URL('../../docs/assets/', import.meta.url));
/** A place with a name that says nothing, for it is seen on the pictures. */
const SOCKETS = join(tmpdir(), 'aerostat');
/** For the charts to have something to show. */
const SECONDS_OF_HISTORY = 16;

const OVERVIEW = '#/';
const GUEST = '#/guest/builder';

const PICTURES = [
  { file: 'dashboard-light.png', place: GUEST, colorScheme: 'light', width: 1280, height: 860 },
  { file: 'dashboard-dark.png', place: GUEST, colorScheme: 'dark', width: 1280, height: 860 },
  { file: 'dashboard-overview.png', place: OVERVIEW, colorScheme: 'light', width: 1280, height: 400 },
  { file: 'dashboard-wide.png', place: GUEST, colorScheme: 'light', width: 1920, height: 860 },
  { file: 'dashboard-narrow.png', place: GUEST, colorScheme: 'light', width: 390, height: 844 },
] as const;

export function takePictures(): void {
  describe('pictures of the dashboard', picturing);
}

function picturing(): void {
  let world: PageWorld;
  let browser: Browser;

  beforeAll(async () => {
    build();
    mkdirSync(ASSETS, { recursive: true });
    mkdirSync(SOCKETS, { recursive: true, mode: 0o700 });
    const guests = ['builder', 'database', 'web-1', 'web-2', 'spare'];
    [world, browser] = await Promise.all([
      PageWorld.start(guests, ['--without', 'reporting'], { directory: SOCKETS }),
      launch(),
    ]);
    const [builder, database, web1, web2] = await Promise.all([
      world.embeddedGuest('builder', 512 * MIB),
      world.embeddedGuest('database', 384 * MIB),
      world.embeddedGuest('web-1', 128 * MIB),
      world.embeddedGuest('web-2', 128 * MIB, ['--seed', '2']),
    ]);
    await builder.tell({ do: 'touch', bytes: 320 * MIB });
    await builder.tell({ do: 'age', degree: 0.15 });
    await builder.tell({ do: 'cache', bytes: 90 * MIB });
    await builder.tell({ do: 'use', bytes: 70 * MIB });
    await database.tell({ do: 'use', bytes: 200 * MIB });
    await database.tell({ do: 'cache', bytes: 100 * MIB });
    await web1.tell({ do: 'touch' });
    await web2.tell({ do: 'use', bytes: 40 * MIB });
    await world.daemon.reach('web-2', 48 * MIB);
    await world.daemon.reach('database', 32 * MIB);
  }, 120_000);

  afterAll(async () => {
    await browser?.close();
    await world?.close();
  });

  test('dashboard-migration.png', async () => {
    const vm = await MachineProcess.vm('--memory', '512M', '--workload', 'build', '--rate', '48M');
    const { machine: there, address } = await MachineProcess.place();
    const server = await servePageOf(vm.control);
    try {
      await vm.tell({ do: 'use', bytes: 160 * MIB });
      await vm.control.change('vm', { targetBytes: 64 * MIB });
      const { page } = await openPage(browser, entranceTo(server).origin, {
        colorScheme: 'light',
        viewport: { width: 1280, height: 1300 },
      });
      await page.goto(entranceTo(server).href);
      await page.click('[data-guest="vm"]');
      await delay(SECONDS_OF_HISTORY * 500);
      await vm.control.migrate('vm', { to: `tcp:${address}`, bandwidthBytesPerSecond: 48 * MIB });
      await page.waitForSelector('.migration progress');
      await delay(3500);
      await page.screenshot({ path: join(ASSETS, 'dashboard-migration.png') });
      await page.context().close();
    } finally {
      await server.close();
      await vm.close();
      await there.close();
    }
  }, 60_000);

  test.each(PICTURES)(
    '$file',
    async ({ file, place, colorScheme, width, height }) => {
      await world.daemon.reach('builder', 64 * MIB);
      const { page } = await openPage(browser, world.origin, { colorScheme, viewport: { width, height } });
      await page.goto(world.entrance);
      await page.waitForSelector('.guests');
      await page.evaluate(`location.hash = ${JSON.stringify(place)}`);
      await delay(SECONDS_OF_HISTORY * 500);
      await world.daemon.reach('builder', 160 * MIB);
      await world.daemon.control.hint('builder', { action: 'start' });
      await delay(SECONDS_OF_HISTORY * 500);
      await page.screenshot({ path: join(ASSETS, file) });
      await page.context().close();
      await world.daemon.control.hint('builder', { action: 'done' });
    },
    60_000,
  );
}
