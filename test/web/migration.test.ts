/** A machine's page: what its guest is asked for, and its way to another host, begun, watched and called back there. */
import { get } from 'node:http';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { expect, test } from 'vitest';
import { MachineProcess } from '../vm/processes.ts';
import { complaints } from './axe.ts';
import { describePages } from './pages.ts';
import { MIB } from './world.ts';

const POLL = { timeout: 60_000 } as const;
/** Where no host listens: the port is reserved. */
const NOWHERE = '127.0.0.1:1';

describePages('the page of a machine', ({ keep, open }) => {
  /** A machine with something to send, and its page. */
  async function machine(...words: string[]): Promise<{ vm: MachineProcess; page: Page }> {
    const vm = keep(await MachineProcess.vm('--memory', '128M', ...words));
    await vm.tell({ do: 'use', bytes: 48 * MIB });
    const page = await open(vm.control);
    await page.click('[data-guest="vm"]');
    await page.waitForSelector('.map canvas');
    return { vm, page };
  }

  async function place(): Promise<{ there: MachineProcess; address: string }> {
    const { machine: there, address } = await MachineProcess.place();
    return { there: keep(there), address };
  }

  const button = (page: Page, name: string) => page.getByRole('button', { name, exact: true });
  const text = (page: Page, selector: string) => page.locator(selector).textContent({ timeout: 10_000 });
  const fact = (page: Page, name: string) => text(page, `[data-migration="${name}"]`);

  /** Says where to, and no faster than what can be watched. */
  async function order(page: Page, to: string, rate: string): Promise<void> {
    await page.getByLabel('Destination').fill(to);
    await page.getByLabel('At most, a second').fill(rate);
    await button(page, 'Move…').click();
  }

  test('is served by the machine itself', async () => {
    const vm = await MachineProcess.vm('--memory', '64M');
    keep(vm);
    const page = await new Promise<string>((resolve, reject) => {
      get({ socketPath: join(vm.directory, 'api.sock'), path: '/' }, response => {
        let body = '';
        response.setEncoding('utf8').on('data', (piece: string) => {
          body += piece;
        });
        response.once('end', () => resolve(body));
      }).once('error', reject);
    });
    expect(page).toContain('<title>Aerostat</title>');
  });

  test('asks the guest for its unused pages, and shows the answer', async () => {
    const { page } = await machine('--profile', 'page-chunks');
    await button(page, 'Unused pages').click();
    await expect
      .poll(() => text(page, '.answer'), POLL)
      .toMatch(/^Unused pages: [\d.]+ MiB unused, in \d+ lists?, after \d/);
  });

  test('asks twice before the guest loses its page cache', async () => {
    const { vm, page } = await machine('--profile', 'page-order');
    const cache = async () =>
      (await vm.control.statistics('vm', { freshMs: 0 })).statistics.cacheBytes ?? Number.NaN;
    await vm.tell({ do: 'cache', bytes: 32 * MIB });
    expect(await cache()).toBeGreaterThan(30 * MIB);
    await button(page, 'Drop cache').click();
    const question = page.getByRole('dialog');
    expect(await question.textContent()).toMatch(/slow for a while/);
    await question.getByRole('button', { name: 'Leave it' }).click();
    expect(await cache()).toBeGreaterThan(30 * MIB);
    await button(page, 'Drop cache').click();
    await question.getByRole('button', { name: 'Drop cache' }).click();
    await expect.poll(() => text(page, '.answer'), POLL).toMatch(/^Drop cache: done, after \d/);
    expect(await cache()).toBeLessThan(4 * MIB);
  });

  test('asks nothing of a guest whose ABI has no requests, and says why', async () => {
    const { page } = await machine();
    for (const name of ['Unused pages', 'Drop cache', 'Shrink']) {
      expect(await button(page, name).isDisabled()).toBe(true);
    }
    expect(await text(page, '.request')).toMatch(/virtio, has no queue for requests/);
  });

  test('moves the guest, shows how far it is, and where it runs then', async () => {
    const { page } = await machine();
    const { there, address } = await place();
    await order(page, address, '8M');
    const question = page.getByRole('dialog');
    expect(await question.textContent()).toMatch(/runs there and not here/);
    // The answer that changes nothing has the focus.
    await page.keyboard.press('Enter');
    await question.waitFor({ state: 'hidden' });
    expect(await page.locator('.migration progress').count()).toBe(0);

    await button(page, 'Move…').click();
    await button(page, 'Move it').click();
    await expect.poll(() => fact(page, 'round'), POLL).toMatch(/^[1-9]/);
    expect(await fact(page, 'remaining')).toMatch(/MiB/);
    await expect.poll(() => fact(page, 'rate'), POLL).toMatch(/MiB\/s/);
    // A page that is still to be sent shows on the map.
    await expect.poll(() => text(page, '[data-layer="dirty"]'), POLL).toMatch(/MiB/);
    expect(await text(page, '.guest-head')).toMatch(/migrating/);
    expect(await complaints(page)).toEqual([]);

    await expect.poll(() => text(page, '.outcome'), { timeout: 60_000 }).toContain(`Runs at tcp:${address}`);
    expect(await text(page, '.outcome')).toMatch(/stood still for \d/);
    await there.event('ready');
    expect((await there.tell({ do: 'verify' })).checkedBytes).toBeGreaterThanOrEqual(48 * MIB);
    // The machine has ended with that, which is no loss.
    await expect
      .poll(() => text(page, '[role="status"] .trouble'), POLL)
      .toContain(`vm runs at tcp:${address} now`);
    await expect.poll(() => text(page, '.events'), POLL).toContain(`runs at tcp:${address}`);
  }, 90_000);

  test('says why the guest did not leave, and lets one try again', async () => {
    const { vm, page } = await machine();
    await order(page, NOWHERE, '');
    await button(page, 'Move it').click();
    await expect
      .poll(() => text(page, '.outcome'), { timeout: 40_000 })
      .toMatch(/^To tcp:127\.0\.0\.1:1: .*the guest runs on here/);
    expect((await vm.tell({ do: 'verify' })).checkedBytes).toBeGreaterThanOrEqual(48 * MIB);
    expect(await button(page, 'Move…').isEnabled()).toBe(true);
    await page.getByLabel('Destination').fill('somewhere');
    expect(await text(page, 'section.migration')).toMatch(/like host2:4444/);
    expect(await button(page, 'Move…').isDisabled()).toBe(true);
  }, 60_000);

  test('calls the guest back', async () => {
    const { vm, page } = await machine();
    const { address } = await place();
    await order(page, address, '4M');
    await button(page, 'Move it').click();
    await expect.poll(() => fact(page, 'round'), POLL).toBe('1');
    await button(page, 'Call it back').click();
    await expect.poll(() => text(page, '.outcome'), POLL).toMatch(/^To tcp:.*it was called back$/);
    expect((await vm.tell({ do: 'verify' })).checkedBytes).toBeGreaterThanOrEqual(48 * MIB);
    expect((await vm.control.guest('vm')).connected).toBe(true);
  });
});
