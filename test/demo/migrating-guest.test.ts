/** The demonstration's guest that moves: there and back, called back, and found under its name wherever it is. */
import { pathToFileURL } from 'node:url';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { combinedControl } from '../../src/control/combined-control.ts';
import type { GuestEvent } from '../../src/control/contract.ts';
import type { GuestControl } from '../../src/control/operations.ts';
import type { MigratingGuest as TravellerType } from '../../src/demo/migrating-guest.ts';
import { build, program } from '../cli/built.ts';

const MIB = 2 ** 20;
const POLL = { timeout: 60_000, interval: 20 } as const;

let MigratingGuest: typeof TravellerType;
let traveller: TravellerType | undefined;

beforeAll(async () => {
  build();
  // Its threads run what was compiled.
  ({ MigratingGuest } = await import(
    new URL('../dist/demo/migrating-guest.js', pathToFileURL(program)).href
  ));
});

afterEach(async () => {
  await traveller?.close();
  traveller = undefined;
});

async function start(): Promise<{ guest: TravellerType; control: GuestControl; events: GuestEvent[] }> {
  traveller = await MigratingGuest.start({
    name: 'traveller',
    memoryBytes: 96 * MIB,
    workloads: [{ kind: 'build' }],
    pagesPerSecondMax: 2000,
  });
  const control = combinedControl([traveller.route]);
  const events: GuestEvent[] = [];
  control.subscribe(event => events.push(event));
  return { guest: traveller, control, events };
}

const arrivals = (events: readonly GuestEvent[]): string[] => [
  ...new Set(events.filter(({ detail }) => detail.status === 'done').map(({ detail }) => String(detail.to))),
];

test('goes to the place that waits, and back to where it was awaited next', async () => {
  const { guest, control, events } = await start();
  await control.change('traveller', { targetBytes: 16 * MIB });
  const places: string[] = [];
  for (let journey = 0; journey < 3; journey++) {
    const to = guest.destination;
    places.push(to);
    await guest.travel();
    await expect
      .poll(async () => (await control.migration('traveller')).migration?.report?.totalMs ?? 0, POLL)
      .toBeGreaterThan(0);
    expect((await control.migration('traveller')).migration?.to).toBe(to);
    // Another place waits before it is asked again.
    await expect.poll(() => guest.destination, POLL).not.toBe(to);
    await expect.poll(async () => (await control.migration('traveller')).obstacle, POLL).toBeNull();
    expect((await control.guest('traveller')).balloonedBytes).toBe(16 * MIB);
    const { minorFaults } = (await control.statistics('traveller', { freshMs: 0 })).statistics;
    await expect
      .poll(async () => {
        const { statistics } = await control.statistics('traveller', { freshMs: 0 });
        return Number(statistics.minorFaults);
      }, POLL)
      .toBeGreaterThan(Number(minorFaults));
  }
  expect(new Set(places).size).toBe(2);
  expect(arrivals(events)).toEqual(places.slice(0, 2));
}, 60_000);

test('stays when it is called back, and can set out again', async () => {
  const { guest, control } = await start();
  await control.migrate('traveller', { to: guest.destination, bandwidthBytesPerSecond: MIB });
  await expect.poll(async () => (await control.migration('traveller')).migration?.state.round, POLL).toBe(1);
  const to = guest.destination;
  await control.cancelMigration('traveller');
  await expect
    .poll(async () => (await control.migration('traveller')).migration?.error?.code, POLL)
    .toBe('AEROSTAT_MIGRATION_CANCELLED');
  // It takes a moment until the place waits again.
  await expect
    .poll(async () => {
      const status = (await control.migration('traveller')).migration;
      if (status?.error !== null) await guest.travel().catch(() => {});
      return status?.report?.totalMs ?? 0;
    }, POLL)
    .toBeGreaterThan(0);
  expect((await control.migration('traveller')).migration?.to).toBe(to);
}, 60_000);

test('ends while it is under way', async () => {
  const { guest, control } = await start();
  await control.migrate('traveller', { to: guest.destination, bandwidthBytesPerSecond: MIB });
  await expect.poll(async () => (await control.migration('traveller')).migration?.state.round, POLL).toBe(1);
  await guest.close();
});
