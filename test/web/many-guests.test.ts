/** A page of a hundred guests, of guests that tell next to nothing, and of a fleet. */
import type { Page } from 'playwright-core';
import { expect, test } from 'vitest';
import { statusOf } from '../../src/control/contract.ts';
import { type FleetPicture, NO_FLEET } from '../../src/control/fleet.ts';
import type { HostSeen } from '../../src/fleet/hosts-seen.ts';
import { type Report, VERSION } from '../../src/fleet/messages.ts';
import { fleetPicture } from '../../src/fleet/picture.ts';
import { size } from '../../web/src/format.ts';
import { orderOf, reportOf } from '../fleet/samples.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';
import { complaints } from './axe.ts';
import { describePages } from './pages.ts';

const POLL = { timeout: 60_000 } as const;
const GUESTS = 100;

/** A fleet of three hosts: one leads and is short, one has a guest on its way to it, one is silent. */
function fleet(): FleetPicture {
  const seen = (report: Report, ageMs: number | null): HostSeen => ({ report, revision: 1, ageMs });
  const order = orderOf('web', { from: 'host1', to: 'host2', reserveBytes: GIB });
  const [web] = reportOf('host1', { names: ['web'] }).guests;
  const [big] = reportOf('host1', { names: ['big'] }).guests;
  const host1 = {
    ...reportOf('host1'),
    reserveBytes: GIB,
    guests: [
      { ...web, dirtyBytesPerSecond: 12 * MIB, moving: { order: order.id, to: 'host2' } },
      { ...big, sizeBytes: 12 * GIB, residentBytes: 6 * GIB, needBytes: 9 * GIB },
    ],
    departures: [
      {
        ...{ order: order.id, guest: 'web', to: 'host2', status: 'copying' },
        ...{ sentBytes: 300 * MIB, remainingBytes: 212 * MIB },
      },
    ],
  };
  const host2 = {
    ...reportOf('host2'),
    incoming: [{ order: order.id, guest: 'web', from: 'host1', bytes: GIB }],
  };
  const hosts = [seen(host1, 300), seen(host2, 1200), seen(reportOf('host3', { guests: 2 }), 60_000)];
  const event = { version: VERSION, epoch: 7, event: 'leads', host: 'host1' } as const;
  return fleetPicture(
    {
      ...{ fleet: 'default', leader: { host: 'host1', epoch: 7 }, draining: [], hosts },
      ...{ orders: new Map([[order.id, order]]), reportsRefused: 0, seenAgoMs: 200, trouble: null },
      events: [{ sequence: 4, timeMs: 1_700_000_000_000, event }],
    },
    {},
  );
}

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

  test('shows hosts and guests of a fleet with the API’s figures, and what is old as old', async () => {
    const control = new FakeControl(guestStatus('vm1'));
    control.fleetPicture = fleet;
    const page = await open(control);
    await page.getByRole('link', { name: 'Fleet' }).click();
    await page.waitForSelector('[data-host]');
    const figure = (host: string, name: string) =>
      page.textContent(`[data-host="${host}"] > * [data-figure="${name}"]`);
    const { hosts, moves, events } = fleet();
    for (const {
      name,
      residentBytes,
      needBytes,
      incomingBytes,
      memoryBytes,
      reserveBytes,
      guests,
    } of hosts) {
      expect(await figure(name, 'resident')).toBe(size(residentBytes));
      expect(await figure(name, 'need')).toBe(size(needBytes));
      expect(await figure(name, 'reserved')).toBe(size(incomingBytes));
      expect(await figure(name, 'limit')).toBe(size(memoryBytes - reserveBytes));
      expect(await page.locator(`[data-host="${name}"] [data-fleet-guest]`).count()).toBe(guests?.length);
    }
    expect(await page.locator('[data-host] [data-figure="state"]').allTextContents()).toEqual([
      'short',
      'steady',
      'silent',
    ]);
    expect(await figure('host1', 'short')).toBe(`${size(hosts[0].shortBytes)} short`);
    expect(await figure('host3', 'age')).toBe('silent since 1 min');
    const dirty = (guest: string) => page.textContent(`[data-fleet-guest="${guest}"] [data-figure="dirty"]`);
    expect([await dirty('web'), await dirty('big')]).toEqual(['12 MiB', '–']);
    expect(await page.textContent('[data-move="web"]')).toMatch(/300 MiB sent, 212 MiB left/);
    expect(await page.textContent('[data-move="web"] .why')).toBe(moves[0].why);
    expect(await page.locator('[data-decision]').allTextContents()).toEqual([
      expect.stringContaining(events[0].words),
    ]);
    await page.locator('[data-host="host2"] .fold').focus();
    await page.keyboard.press('Enter');
    expect(await page.getAttribute('[data-host="host2"] .fold', 'aria-expanded')).toBe('false');
    expect(await complaints(page)).toEqual([]);

    control.fleetPicture = () => ({ ...fleet(), state: 'silent', trouble: 'no quorum', seenAgoMs: 42_000 });
    await expect.poll(() => page.textContent('.fleet .alarm'), POLL).toMatch(/no quorum.*42.0 s old/);
    control.fleetPicture = () => NO_FLEET;
    await expect.poll(() => page.textContent('.fleet'), POLL).toMatch(/No fleet.*aerostat fleet dashboard/s);
    expect(await page.textContent('body')).not.toMatch(/NaN|undefined|null|Infinity/);
  });
});
