/** A page of a hundred guests, and of guests that tell next to nothing. */
import type { Page } from 'playwright-core';
import { expect, test } from 'vitest';
import { statusOf } from '../../src/control/contract.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';
import { complaints } from './axe.ts';
import { describePages } from './pages.ts';

const POLL = { timeout: 60_000 } as const;
const GUESTS = 100;

describePages('a page', ({ open }) => {
  const hundred = () =>
    new FakeControl(
      ...Array.from({ length: GUESTS }, (_, at) =>
        guestStatus(`vm${at + 1}`, { residentBytes: (at + 1) * 16 * MIB }),
      ),
    );
  const names = (page: Page) => page.locator('.guests [data-guest] .name b').allTextContents();

  test('shows a hundred guests in the order that one likes, and finds one', async () => {
    const page = await open(hundred());
    expect(await page.textContent('h1')).toBe('100 guests');
    expect(await names(page)).toEqual(Array.from({ length: GUESTS }, (_, at) => `vm${at + 1}`));
    await page.getByRole('button', { name: 'Resident' }).click();
    expect((await names(page))[0]).toBe('vm100');
    await page.getByLabel('Find a guest by its name').fill('vm7');
    expect((await names(page)).sort()).toEqual(
      ['vm7', ...Array.from({ length: 10 }, (_, at) => `vm7${at}`)].sort(),
    );
    expect(await complaints(page)).toEqual([]);
  });

  test('asks no more often for a hundred guests than for one, and follows each', async () => {
    const control = hundred();
    const page = await open(control);
    const asked = new Map<string, number>();
    page.on('request', request => {
      const { pathname } = new URL(request.url());
      asked.set(pathname, (asked.get(pathname) ?? 0) + 1);
    });
    const resident = (name: string) => page.textContent(`[data-guest="${name}"] .figure.resident`);
    for (const [look, name] of ['vm1', 'vm50', 'vm100'].entries()) {
      control.alter(name, { residentBytes: (look + 2) * GIB });
      await expect.poll(() => resident(name), POLL).toContain(`${look + 2} GiB`);
    }
    const looks = asked.get('/v1/guests') ?? 0;
    expect(looks).toBeGreaterThan(0);
    expect([...asked.keys()].filter(path => path.startsWith('/v1/guests/'))).toEqual([]);
    for (const times of asked.values()) expect(times).toBeLessThanOrEqual(looks + 1);
  });

  test('answers while it shows a hundred guests that all change', async () => {
    const control = hundred();
    const page = await open(control);
    let round = 0;
    const changing = setInterval(() => {
      round++;
      for (const name of control.known.keys()) {
        control.alter(name, { balloonedBytes: (round % 7) * 256 * MIB, residentBytes: GIB + round * MIB });
      }
    }, 100);
    try {
      for (const at of [3, 42, 97]) {
        await page.click(`[data-guest="vm${at}"]`);
        await expect.poll(() => page.textContent('h1'), POLL).toBe(`vm${at}`);
        await page.getByRole('link', { name: '← All guests' }).click();
        await page.waitForSelector('.guests');
      }
      const before = await page.textContent('[data-guest="vm1"]');
      await expect.poll(() => page.textContent('[data-guest="vm1"]'), POLL).not.toBe(before);
    } finally {
      clearInterval(changing);
    }
  });

  test.each([
    ['of which nothing is known', statusOf('vm1', {})],
    ['that is connected, and shows no memory', statusOf('vm1', { connected: true })],
    [
      'of a hypervisor that tells little',
      statusOf('vm1', { connected: true, memoryBytes: GIB, actualBytes: 0, targetBytes: null }),
    ],
  ])('says what it does not know of a guest %s', async (_, status) => {
    const control = new FakeControl();
    control.known.set('vm1', status as ReturnType<typeof guestStatus>);
    control.sample = null;
    control.hostStatus = {
      totalBytes: null,
      availableBytes: null,
      sharedBytes: null,
      swapTotalBytes: null,
      swapFreeBytes: null,
      pressure: null,
    };
    const page = await open(control);
    expect(await page.textContent('.pressure')).toMatch(/not known/);
    expect(await page.textContent('[data-guest="vm1"]')).toMatch(/–/);
    await page.click('[data-guest="vm1"]');
    await page.waitForSelector('.guest .migration');
    const text = (await page.textContent('body')) ?? '';
    expect(text).toMatch(/sent no statistics/);
    expect(text).not.toMatch(/NaN|undefined|null|Infinity/);
    expect(await complaints(page)).toEqual([]);
  });
});
