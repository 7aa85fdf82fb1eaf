/** What happens to a page on a bad day: guests that vanish or do not answer, addresses and tokens that are broken. */
import type { Page } from 'playwright-core';
import { expect, test } from 'vitest';
import { statusOf } from '../../src/control/contract.ts';
import { SILENCE_MS_MAX } from '../../src/server/event-parser.ts';
import { AerostatError } from '../../src/sys/error.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';
import { complaints } from './axe.ts';
import { describePages } from './pages.ts';
import { TOKEN } from './world.ts';

const POLL = { timeout: 20_000 } as const;

describePages('a page on a bad day', ({ prepare, open }) => {
  const resident = (page: Page) => page.textContent('[data-figure="resident"]');

  test('the guest that one looks at is gone while it moves: it says so, and the others are there', async () => {
    const control = new FakeControl(
      guestStatus('vm1', { targetBytes: GIB, actualBytes: 0 }),
      guestStatus('vm2'),
    );
    const page = await open(control);
    await page.click('[data-guest="vm1"]');
    await page.waitForSelector('.guest .mark.calm');
    control.known.delete('vm1');
    await expect.poll(() => page.textContent('main'), POLL).toMatch(/serves no guest called vm1/);
    await expect.poll(() => page.textContent('.connection'), POLL).toMatch(/^live/);
    await page.getByRole('link', { name: 'All guests', exact: true }).click();
    await page.waitForSelector('[data-guest="vm2"]');
  });

  test('the hypervisor of a guest does not say whether it can be moved: all else is shown', async () => {
    const control = new FakeControl(guestStatus('vm1'));
    control.migration = async () => {
      throw new AerostatError('AEROSTAT_QMP_TIMEOUT', 'QEMU does not answer');
    };
    const page = await open(control);
    await page.click('[data-guest="vm1"]');
    for (const gib of [2, 3]) {
      control.alter('vm1', { residentBytes: gib * GIB });
      await expect.poll(() => resident(page), POLL).toBe(`${gib} GiB`);
    }
    expect(await page.textContent('.connection')).toMatch(/^live/);
  });

  test('most of a balloon waits for whole huge pages: the list and the guest say so', async () => {
    const balloon = { targetBytes: 31 * MIB, actualBytes: 31 * MIB, balloonedBytes: 31 * MIB };
    const control = new FakeControl(guestStatus('vm1', { ...balloon, incompleteBytes: 31 * MIB }));
    const page = await open(control);
    await expect
      .poll(() => page.getAttribute('[data-guest="vm1"] .mark.noted', 'title'), POLL)
      .toMatch(/31 MiB wait for whole huge pages/);
    await page.click('[data-guest="vm1"]');
    const told = () => page.textContent('[data-figure="incomplete"]');
    await expect.poll(told, POLL).toMatch(/^31 MiB wait for whole huge pages: .*the host keeps them/);
  });

  test('the token is wrong: the right one is taken from an address that is opened in the same tab', async () => {
    const { watched, address } = await prepare(new FakeControl(guestStatus('vm1')));
    const { page } = watched;
    await page.goto(`${address.origin}/#token=that-of-the-dashboard-before`);
    await page.waitForSelector('.locked');
    await page.goto(address.href);
    await page.waitForSelector('.guests');
    expect(page.url()).not.toContain(TOKEN);
  });

  test('the token is one that no request can carry: that is said, and another is taken', async () => {
    const { watched, address } = await prepare(new FakeControl(guestStatus('vm1')));
    const { page } = watched;
    await page.goto(`${address.origin}/#token=schl%C3%BCssel%E2%80%A6`);
    await page.getByLabel('Token').fill('a-token-cut-short…');
    await page.keyboard.press('Enter');
    await expect.poll(() => page.textContent('.refused'), POLL).toMatch(/no token/);
    await page.getByLabel('Token').fill(TOKEN);
    await page.keyboard.press('Enter');
    await page.waitForSelector('.guests');
  });

  test.each(['#/guest/%', '#/guest/100%25%', '#token=%'])(
    'the address is broken, %s: all guests are shown',
    async fragment => {
      const { watched, address } = await prepare(new FakeControl(guestStatus('vm1')));
      const { page } = watched;
      await page.goto(address.href);
      await page.waitForSelector('.guests');
      await page.goto('about:blank');
      await page.goto(`${address.origin}/${fragment}`);
      await page.waitForSelector('[data-guest="vm1"]');
    },
  );

  test('the stream of events fell silent: another is opened', async () => {
    const control = new FakeControl(guestStatus('vm1'));
    const { watched, address } = await prepare(control);
    const { page } = watched;
    let streams = 0;
    page.on('request', request => {
      if (new URL(request.url()).pathname === '/v1/events') streams++;
    });
    await page.clock.install();
    await page.goto(address.href);
    await page.waitForSelector('.guests');
    await expect.poll(() => streams, POLL).toBe(1);
    await page.clock.fastForward(SILENCE_MS_MAX);
    await expect.poll(() => streams, POLL).toBe(2);
  });

  test('a guest has the longest name that there can be, and the screen is small', async () => {
    const name = 'm'.repeat(64);
    const control = new FakeControl(
      guestStatus(name, { targetBytes: 2.25 * GIB, balloonedBytes: 1.25 * GIB, lastError: 'no' }),
    );
    const page = await open(control, { viewport: { width: 320, height: 700 } });
    const excess = (selector: string) =>
      page.evaluate(
        `(element => element.scrollWidth - element.clientWidth)(document.querySelector('${selector}'))`,
      );
    expect(await excess('html')).toBe(0);
    expect(await excess('.guests .row')).toBe(0);
    await page.click(`[data-guest="${name}"]`);
    await page.waitForSelector('.guest h1');
    expect(await excess('html')).toBe(0);
  });

  test('the daemon serves nobody: it says how it would', async () => {
    const { watched, address } = await prepare(new FakeControl());
    const { page } = watched;
    await page.goto(address.href);
    await page.waitForSelector('.overview');
    expect(await page.textContent('.overview')).toMatch(/No guests.*--socket-path/s);
    expect(await page.locator('.legend').count()).toBe(0);
    expect(await complaints(page)).toEqual([]);
  });

  test('something failed once: the page does not say that nothing did', async () => {
    const control = new FakeControl(guestStatus('vm1', { lastError: 'the front-end hung up' }));
    const page = await open(control);
    await page.click('[data-guest="vm1"]');
    const rings = page.getByRole('region', { name: 'Rings and discards' });
    expect(await rings.textContent()).toMatch(/the front-end hung up/);
    expect(await rings.textContent()).not.toMatch(/nothing failed/);
  });

  test('a hypervisor forgot the target of its balloon, which holds memory: it can be emptied', async () => {
    const control = new FakeControl(
      statusOf('qemu', {
        connected: true,
        memoryBytes: 2 * GIB,
        actualBytes: 512 * MIB,
        targetBytes: null,
      }) as ReturnType<typeof guestStatus>,
    );
    const page = await open(control);
    await page.click('[data-guest="qemu"]');
    const target = page.getByLabel('Target of the balloon', { exact: true });
    expect(await target.inputValue()).toBe('512 MiB');
    await target.fill('0');
    await target.press('Enter');
    await expect.poll(() => control.calls, POLL).toContainEqual(['change', 'qemu', { targetBytes: 0 }]);
  });
});
