/**
 * Memory that a front-end hands over anew while its guest runs: at another address of its own, as one region where
 * there were two, or the other way round. The account goes with the file and the guest address.
 */
import { afterAll, describe, expect, test } from 'vitest';
import type { FileBacking } from '../../src/memory/file-backing.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { freeHugePages, HUGE_PAGE_SIZE, reserveHugePages } from '../support/huge-pages.ts';
import { payloads, type RegionFields, regionFields } from '../vhost-user/conversation.ts';
import { FIRST_PAGE as P } from './hand-guest.ts';
import { OneDaemon } from './one-daemon.ts';
import { regionMessage } from './raw-front-end.ts';
import type { SpokenGuest } from './spoken-guest.ts';

const MIB = 2 ** 20;
const HALF = 32 * MIB;
/** The first page of the upper half. */
const UPPER = HALF / PAGE_SIZE;

const one = new OneDaemon();
let guest: SpokenGuest;
let badPagesBefore: number;

/** A guest with 10 pages of its lower half in the balloon, and 1000 that lie on both sides of the middle. */
async function start(hugePageSize?: number): Promise<void> {
  if (hugePageSize !== undefined) await one.loop.turnUntil(() => freeHugePages() >= 32);
  const memory = createSharedMemory({
    regions: [
      { guestAddress: 0, size: HALF },
      { guestAddress: HALF, size: HALF },
    ],
    ...(hugePageSize === undefined ? {} : { hugePageSize }),
  });
  guest = await one.start({ memory });
  await guest.inflate(P, 10);
  await guest.inflate(UPPER - 500, 1000);
  badPagesBefore = (await one.daemon.control.guest('a')).counters.badPages;
}

const lower = () => regionFields(guest.memory.regions[0]);
const upper = () => regionFields(guest.memory.regions[1]);
const whole = (): RegionFields => ({ ...lower(), size: 2 * HALF });
/** The file that all of it is in. */
const file = () => (guest.memory.regions[0].backing as FileBacking).fd;

async function table(...regions: readonly RegionFields[]): Promise<void> {
  guest.frontEnd.say('SET_MEM_TABLE', payloads.table(regions), regions.map(file));
  await guest.heard();
}

async function add(region: RegionFields): Promise<void> {
  expect(await guest.frontEnd.accepts('ADD_MEM_REG', regionMessage(region), [file()])).toBe(true);
}

async function remove(region: RegionFields): Promise<void> {
  expect(await guest.frontEnd.accepts('REM_MEM_REG', regionMessage(region))).toBe(true);
}

const moved = (region: RegionFields): RegionFields => ({ ...region, userAddress: region.userAddress * 2 });

const WAYS: readonly [string, () => Promise<void>][] = [
  ['at another address of the front-end’s', () => table(lower(), moved(upper()))],
  ['as one region where there were two', () => table(whole())],
  [
    'as two regions where there was one, cut elsewhere',
    async () => {
      await table(whole());
      const cut = HALF + 2 * MIB;
      await table(
        { ...lower(), size: cut },
        {
          guestAddress: cut,
          size: 2 * HALF - cut,
          userAddress: lower().userAddress + cut,
          mmapOffset: cut,
        },
      );
    },
  ],
  [
    'region by region',
    async () => {
      await remove(upper());
      await add(moved(upper()));
    },
  ],
  [
    'region by region, as one where there were two',
    async () => {
      await remove(lower());
      await remove(upper());
      await add(whole());
    },
  ],
];

const pool = reserveHugePages(32);
afterAll(() => pool.release());

describe.each([
  ['4 KiB', undefined],
  ['2 MiB', HUGE_PAGE_SIZE],
] as const)('in units of %s', (_, hugePageSize) => {
  test.skipIf(hugePageSize !== undefined && pool.missing !== undefined).each(WAYS)(
    'memory that comes back %s keeps its account',
    async (_, handOver) => {
      await start(hugePageSize);
      await handOver();
      expect((await one.daemon.control.guest('a')).balloonedBytes).toBe(1010 * PAGE_SIZE);
      await guest.deflate(UPPER - 500, 1000);
      const { balloonedBytes, counters } = await one.daemon.control.guest('a');
      expect(balloonedBytes).toBe(10 * PAGE_SIZE);
      expect(counters.badPages).toBe(badPagesBefore);
    },
  );
});

test('memory of another file has no account', async () => {
  await start();
  const other = createSharedMemory({ regions: [{ guestAddress: HALF, size: HALF }] });
  await remove(upper());
  const [region] = other.regions;
  const { fd } = region.backing as FileBacking;
  expect(await guest.frontEnd.accepts('ADD_MEM_REG', regionMessage(regionFields(region)), [fd])).toBe(true);
  expect((await one.daemon.control.guest('a')).balloonedBytes).toBe(510 * PAGE_SIZE);
  other.close();
});

test('what a guest takes back while its memory is away is not in its balloon when that comes back', async () => {
  await start();
  await remove(upper());
  await guest.deflate(UPPER, 1);
  await add(upper());
  expect((await one.daemon.control.guest('a')).balloonedBytes).toBe(510 * PAGE_SIZE);
});

test('a new driver has nothing of the last one’s in memory that comes back', async () => {
  await start();
  await remove(upper());
  await guest.disableAll();
  await guest.startDriver();
  await add(upper());
  expect((await one.daemon.control.guest('a')).balloonedBytes).toBe(0);
});
