/** The page in a real browser, on a real daemon with two embedded guests and one socket without a guest. */
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { missingPrograms } from '../../src/peers/programs.ts';
import { size } from '../../web/src/format.ts';
import { build } from '../cli/built.ts';
import { describePeer } from '../support/peers.ts';
import { complaints } from './axe.ts';
import { launch, openPage, type WatchedPage } from './browser.ts';
import { takePictures } from './pictures.ts';
import { MIB, PageWorld, TOKEN } from './world.ts';

/** Guests move, pages are drawn: far above what it takes. */
const POLL = { timeout: 60_000 } as const;

describePeer('the dashboard', missingPrograms('chromium'), () => {
  let world: PageWorld;
  let browser: Browser;
  let opened: WatchedPage[] = [];

  beforeAll(async () => {
    build();
    [world, browser] = await Promise.all([PageWorld.start(['vm1', 'vm2', 'absent']), launch()]);
    const [vm1] = await Promise.all([
      world.embeddedGuest('vm1', 256 * MIB),
      world.embeddedGuest('vm2', 128 * MIB),
    ]);
    await vm1.tell({ do: 'use', bytes: 64 * MIB });
    await vm1.tell({ do: 'touch' });
    await world.daemon.reach('vm2', 32 * MIB);
  }, 90_000);

  afterEach(async () => {
    for (const { page, blameless } of opened) {
      blameless();
      await page.context().close();
    }
    opened = [];
    await world.daemon.reach('vm1', 0);
  });

  afterAll(async () => {
    await browser?.close();
    await world?.close();
  });

  async function open(place = '', options = {}): Promise<Page> {
    const watched = await openPage(browser, world.origin, options);
    opened.push(watched);
    await watched.page.goto(world.entrance);
    await watched.page.waitForSelector('.guests');
    if (place !== '') {
      await watched.page.evaluate(`location.hash = ${JSON.stringify(place)}`);
      await watched.page.waitForSelector('.map canvas');
    }
    return watched.page;
  }

  const api = () => world.daemon.control;
  const figure = (page: Page, name: string) => page.textContent(`[data-figure="${name}"]`);
  const row = (page: Page, name: string) => page.textContent(`[data-guest="${name}"]`);

  test('asks for the token, takes no other, and keeps it out of the address', async () => {
    const watched = await openPage(browser, world.origin);
    opened.push(watched);
    const { page } = watched;
    await page.goto(world.origin);
    await page.getByLabel('Token').fill('not-the-token-of-this-daemon');
    await page.getByRole('button', { name: 'Enter' }).click();
    await expect.poll(() => page.textContent('.refused'), POLL).toMatch(/token is wrong/);
    await page.getByLabel('Token').fill(TOKEN);
    await page.getByRole('button', { name: 'Enter' }).click();
    await page.waitForSelector('.guests');
    expect(page.url()).not.toContain(TOKEN);
    const entered = await open();
    expect(entered.url()).not.toContain(TOKEN);
  });

  test('shows of every guest what the API says, and of the absent one that nothing is known', async () => {
    const page = await open();
    for (const name of ['vm1', 'vm2']) {
      const guest = await api().guest(name);
      await expect.poll(() => row(page, name), POLL).toContain(size(guest.residentBytes));
      const text = await row(page, name);
      expect(text).toContain(size(guest.memoryBytes));
      expect(text).toContain(size(guest.balloonedBytes));
    }
    expect(await row(page, 'absent')).toMatch(/waiting/);
    expect(await row(page, 'absent')).toMatch(/–/);
    const host = await api().host();
    expect(await page.textContent('.host')).toContain(size(host.totalBytes));
  });

  test('shows of one guest its figures and its statistics', async () => {
    const page = await open('#/guest/vm1');
    const guest = await api().guest('vm1');
    expect(await figure(page, 'memory')).toBe(size(guest.memoryBytes));
    expect(await figure(page, 'resident')).toBe(size(guest.residentBytes));
    expect(await figure(page, 'target')).toBe('0');
    const { statistics } = await api().statistics('vm1');
    expect(await page.textContent('[data-statistic="totalBytes"]')).toBe(size(statistics.totalBytes));
    const map = await api().map('vm1');
    expect(await page.textContent('[data-layer="resident"]')).toBe(size(map.totals.resident));
  });

  test('inflates when the slider is moved and set, and the map shows it', async () => {
    const page = await open('#/guest/vm1');
    const picture = () => page.evaluate('document.querySelector(".map canvas").toDataURL()');
    const before = await picture();
    await page.getByLabel('Target of the balloon, by slider').fill(String(96 * MIB));
    expect(await page.getByLabel('Target of the balloon', { exact: true }).inputValue()).toBe('96 MiB');
    expect((await api().guest('vm1')).targetBytes).toBe(0);
    await page.getByRole('button', { name: 'Set target' }).click();
    await world.daemon.untilGuest('vm1', guest => guest.actualBytes === 96 * MIB && guest.pendingBytes === 0);
    await expect.poll(() => figure(page, 'actual'), POLL).toBe('96 MiB');
    await expect.poll(() => page.textContent('[data-layer="ballooned"]'), POLL).toBe('96 MiB');
    const resident = size((await api().guest('vm1')).residentBytes);
    await expect.poll(() => figure(page, 'resident'), POLL).toBe(resident);
    await expect.poll(() => page.textContent('[data-layer="resident"]'), POLL).toBe(resident);
    expect(await picture()).not.toBe(before);
    await expect
      .poll(() => page.textContent('.events'), POLL)
      .toMatch(/target reached in [\d.]+ m?s.*target 96 MiB/);
  });

  test('follows a target that another client sets', async () => {
    const page = await open('#/guest/vm1');
    await world.daemon.reach('vm1', 48 * MIB);
    await expect.poll(() => figure(page, 'actual'), POLL).toBe('48 MiB');
    expect(await page.getByLabel('Target of the balloon', { exact: true }).inputValue()).toBe('48 MiB');
  });

  test('tells the figures of the moment that one points at in a chart, in all charts', async () => {
    const page = await open('#/guest/vm1');
    await expect.poll(() => page.locator('.chart-title').count(), POLL).toBe(3);
    await world.daemon.reach('vm1', 64 * MIB);
    await expect.poll(() => page.textContent('.charts'), POLL).toMatch(/target 64 MiB/);
    const plot = page.locator('.plot .u-over').first();
    const { width } = (await plot.boundingBox()) as { width: number };
    // Before the page was opened there is nothing but its first sample.
    await plot.hover({ position: { x: width / 4, y: 20 } });
    await expect
      .poll(() => page.locator('.chart-title').allTextContents(), POLL)
      .toEqual(Array(3).fill(expect.stringMatching(/ at \d\d:\d\d:\d\d$/)));
    expect(await page.textContent('.charts')).toMatch(/target 0/);
    await page.mouse.move(0, 0);
    await expect.poll(() => page.textContent('.charts'), POLL).toMatch(/target 64 MiB/);
  });

  test('asks twice before it takes more than the guest can spare', async () => {
    const page = await open('#/guest/vm1');
    const target = page.getByLabel('Target of the balloon', { exact: true });
    await expect.poll(() => page.textContent('.target .note'), POLL).toMatch(/can spare \d/);
    await target.fill('230M');
    await target.press('Enter');
    const question = page.getByRole('dialog');
    expect(await question.textContent()).toMatch(/It says that it can spare .* would be left to it/);
    // The answer that changes nothing has the focus.
    await page.keyboard.press('Enter');
    await question.waitFor({ state: 'hidden' });
    expect((await api().guest('vm1')).targetBytes).toBe(0);
    await target.fill('a lot');
    expect(await page.getByRole('button', { name: 'Set target' }).isDisabled()).toBe(true);
    await target.fill('230M');
    await target.press('Enter');
    await page.getByRole('button', { name: 'Take 230 MiB' }).click();
    await world.daemon.untilGuest('vm1', guest => guest.targetBytes === 230 * MIB);
  });

  test('runs a hint session', async () => {
    const page = await open('#/guest/vm1');
    const button = (name: string) => page.locator('.hint').getByRole('button', { name });
    await button('Start').click();
    await world.daemon.untilGuest('vm1', ({ hint }) => hint.state === 'stopped');
    const { hint } = await api().guest('vm1');
    await expect.poll(() => page.textContent('.hint'), POLL).toContain(size(hint.hintedBytes));
    await expect.poll(() => page.textContent('[data-layer="hinted"]'), POLL).toBe(size(hint.hintedBytes));
    await button('Done').click();
    await world.daemon.untilGuest('vm1', guest => guest.hint.state === 'done');
    await expect.poll(() => button('Done').isDisabled(), POLL).toBe(true);
  });

  test('walks through the map by the keyboard, down to pages and back', async () => {
    const page = await open('#/guest/vm1');
    const map = page.getByRole('application', { name: /Memory map/ });
    await map.focus();
    for (const key of ['ArrowDown', 'ArrowRight', 'ArrowRight']) await page.keyboard.press(key);
    await expect.poll(() => page.textContent('.readout'), POLL).toMatch(/^0x[0-9a-f_]+ \+ 64 KiB: /);
    await page.keyboard.press('Enter');
    await expect.poll(() => map.getAttribute('aria-label'), POLL).toMatch(/4096 cells of 4 KiB/);
    expect(await page.textContent('.trail')).toMatch(/16 MiB at/);
    await page.keyboard.press('Escape');
    await expect.poll(() => map.getAttribute('aria-label'), POLL).toMatch(/cells of 64 KiB/);
  });

  /** Goes on with Tab until it is there. */
  async function tabTo(page: Page, selector: string): Promise<void> {
    const there = `document.activeElement.matches(${JSON.stringify(selector)})`;
    for (let presses = 0; presses < 60 && !(await page.evaluate(there)); presses++) {
      await page.keyboard.press('Tab');
    }
    expect(await page.evaluate(there)).toBe(true);
  }

  test('needs nothing but the keyboard', async () => {
    const page = await open();
    const press = async (...keys: readonly string[]) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    const focused = () => page.evaluate('document.activeElement.textContent');
    await tabTo(page, '[data-guest="vm1"]');
    await press('Enter');
    await page.waitForSelector('.map canvas');

    await tabTo(page, '.map-box');
    await press('ArrowDown', 'ArrowRight', 'Enter');
    await expect.poll(() => page.textContent('.trail'), POLL).toMatch(/16 MiB at/);
    await expect.poll(() => page.textContent('.readout'), POLL).toMatch(/^0x\S+ \+ 4 KiB: /);
    await press('Escape');
    await expect.poll(() => page.textContent('.trail'), POLL).not.toMatch(/16 MiB at/);

    await expect.poll(() => page.textContent('.target .note'), POLL).toMatch(/can spare \d/);
    await tabTo(page, '.slider input');
    await press('End', 'Enter');
    await page.getByRole('dialog').waitFor();
    // The answer that changes nothing is first, and has the focus.
    expect(await focused()).toBe('Leave it');
    await press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'hidden' });
    expect((await api().guest('vm1')).targetBytes).toBe(0);
    await tabTo(page, '.slider input');
    await press('Home', 'ArrowRight', 'ArrowRight', 'Enter');
    const { targetBytes } = await world.daemon.untilGuest('vm1', guest => guest.targetBytes > 0);
    await expect.poll(() => figure(page, 'target'), POLL).toBe(size(targetBytes));
    await tabTo(page, '.slider input');
    await press('End', 'Enter');
    await page.getByRole('dialog').waitFor();
    await press('Tab');
    expect(await focused()).toMatch(/^Take /);
    await press('Enter');
    await world.daemon.untilGuest('vm1', guest => guest.targetBytes > targetBytes);

    await tabTo(page, '.hint button');
    expect(await focused()).toBe('Start');
    await tabTo(page, '.theme');
    await press('Enter');
    expect(await page.evaluate('document.documentElement.dataset.theme')).toBe('light');
    await tabTo(page, '.back');
    await press('Enter');
    await page.waitForSelector('.guests');
  });

  test('says when the daemon does not answer any more, and goes on by itself when it does', async () => {
    const page = await open();
    await world.goAway();
    await expect
      .poll(() => page.textContent('[role="status"]'), POLL)
      .toMatch(/Connection lost.*from \d\d:\d\d/s);
    await world.comeBack();
    await expect.poll(() => page.textContent('[role="status"]'), POLL).toBe('');
    await world.daemon.reach('vm1', 16 * MIB);
    await expect.poll(() => row(page, 'vm1'), POLL).toContain('16 MiB');
  });

  test.each(['light', 'dark'] as const)('is accessible, %s', async colorScheme => {
    const page = await open('', { colorScheme });
    expect(await complaints(page)).toEqual([]);
    await page.evaluate('location.hash = "#/guest/vm1"');
    await page.waitForSelector('.map canvas');
    await page.getByLabel('Target of the balloon', { exact: true }).fill('230M');
    expect(await complaints(page)).toEqual([]);
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    expect(await complaints(page)).toEqual([]);
  });

  test('uses the width of a wide screen, with the map and the charts side by side', async () => {
    const page = await open('#/guest/vm1', { viewport: { width: 1920, height: 900 } });
    const box = async (selector: string) => {
      const found = await page.locator(selector).boundingBox();
      return found ?? expect.fail(`there is no ${selector}`);
    };
    // Before, a third of the screen was margin.
    expect((await box('.guest')).width).toBeGreaterThan(0.9 * 1920);
    const [map, charts] = [await box('.card.map'), await box('.card.charts')];
    expect(charts.y).toBe(map.y);
    expect(charts.x).toBeGreaterThan(map.x + map.width);
  });

  test.each([320, 390, 768, 1920])('fits a screen of %i pixels', async width => {
    const page = await open('', { viewport: { width, height: 800 } });
    const excess = () =>
      page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth');
    expect(await excess()).toBe(0);
    await page.evaluate('location.hash = "#/guest/vm1"');
    await page.waitForSelector('.map canvas');
    expect(await excess()).toBe(0);
  });
});

if (process.env.AEROSTAT_SCREENSHOTS === '1') takePictures();
