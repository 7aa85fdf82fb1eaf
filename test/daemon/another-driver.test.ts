/**
 * A driver that begins without saying so: its front-end disables the rings (and may ask for their bases, or say
 * RESET_OWNER), negotiates the same features and describes the rings from their beginning. Cloud Hypervisor and
 * StratoVirt reset a guest like that. A pause looks nearly the same and is none.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { RING_EVENT_IDX, RING_PACKED } from '../../src/virtio/features.ts';
import { freeHugePages, HUGE_PAGE_SIZE, reserveHugePages } from '../support/huge-pages.ts';
import { FIRST_PAGE as P } from './hand-guest.ts';
import { OneDaemon } from './one-daemon.ts';
import type { SpokenGuest, SpokenGuestOptions } from './spoken-guest.ts';

const H = HUGE_PAGE_SIZE / PAGE_SIZE;
const GIVEN = 1000;

const one = new OneDaemon();
let seen = { resets: 0, refused: 0 };

/** What was counted since the last look. */
async function counted(): Promise<{ readonly resets: number; readonly refused: number }> {
  const { resets, badPages, badBuffers, badRequests, brokenRings } = (await one.daemon.control.guest('a'))
    .counters;
  const refused = badPages + badBuffers + badRequests + brokenRings;
  const since = { resets: resets - seen.resets, refused: refused - seen.refused };
  seen = { resets, refused };
  return since;
}

async function start(options: Partial<SpokenGuestOptions> = {}): Promise<SpokenGuest> {
  const guest = await one.start(options);
  await counted();
  return guest;
}

const untilDiscarded = () => one.daemon.untilGuest('a', ({ pendingBytes }) => pendingBytes === 0);

/** How front-ends end a driver without a word of it. */
const ENDS: readonly [string, (guest: SpokenGuest) => Promise<unknown>][] = [
  ['SET_VRING_ENABLE 0', guest => guest.disableAll()],
  ['GET_VRING_BASE', guest => guest.stopRings()],
  [
    'SET_VRING_ENABLE 0 and GET_VRING_BASE',
    async guest => {
      await guest.disableAll();
      await guest.stopRings();
    },
  ],
  [
    'SET_VRING_ENABLE 0 and RESET_OWNER',
    async guest => {
      await guest.disableAll();
      guest.frontEnd.say('RESET_OWNER');
    },
  ],
];

const RINGS: readonly [string, bigint][] = [
  ['split rings', 0n],
  ['split rings with event indices', RING_EVENT_IDX],
  ['packed rings', RING_PACKED],
];

describe.each(RINGS)('on %s', (_, ringFeatures) => {
  test.each(ENDS)(
    'a new driver after %s finds nothing of the last one, and resets the device once',
    async (_, end) => {
      const guest = await start({ ringFeatures });
      await guest.inflate(P, GIVEN);
      await guest.writeActual(GIVEN);
      await guest.postStatistics();
      await one.daemon.control.hint('a', { action: 'start' });
      await end(guest);
      await guest.sayFeatures();
      await guest.startDriver();
      const fresh = await one.daemon.control.guest('a');
      expect(fresh).toMatchObject({ balloonedBytes: 0, actualBytes: 0, pendingBytes: 0 });
      expect(fresh.hint.state).toBe('idle');
      await guest.inflate(P + 5000, 10);
      expect((await untilDiscarded()).balloonedBytes).toBe(10 * PAGE_SIZE);
      expect(await counted()).toEqual({ resets: 1, refused: 0 });
    },
  );

  test('a new driver is served where its predecessor had given statistics and nothing else', async () => {
    const guest = await start({ ringFeatures });
    await guest.postStatistics();
    await guest.disableAll();
    await guest.sayFeatures();
    await guest.startDriver();
    await guest.inflate(P, 10);
    await guest.postStatistics();
    const fresh = one.daemon.control.statistics('a', { freshMs: 0, timeoutMs: 30_000 });
    await guest.queue('stats').returned(1);
    await guest.postStatistics();
    expect((await fresh).ageMs).not.toBeNull();
    expect((await counted()).refused).toBe(0);
  });

  test('a guest that was paused by SET_VRING_ENABLE 0 goes on, with its account and its statistics buffer', async () => {
    const guest = await start({ ringFeatures });
    await guest.inflate(P, GIVEN);
    await guest.writeActual(GIVEN);
    await guest.postStatistics();
    for (let pause = 0; pause < 3; pause++) {
      await guest.disableAll();
      // Some negotiate again before they enable the rings.
      if (pause === 1) await guest.sayFeatures();
      await guest.enableAll();
    }
    await guest.deflate(P, 400);
    const status = await untilDiscarded();
    expect(status).toMatchObject({ balloonedBytes: 600 * PAGE_SIZE, actualBytes: GIVEN * PAGE_SIZE });
    expect(await counted()).toEqual({ resets: 0, refused: 0 });
    // The buffer that the device kept is still there to be asked with.
    const fresh = one.daemon.control.statistics('a', { freshMs: 0, timeoutMs: 30_000 });
    await guest.queue('stats').returned(1);
    await guest.postStatistics();
    expect((await fresh).ageMs).not.toBeNull();
  });

  test('a guest whose rings come back at the bases that GET_VRING_BASE replied goes on', async () => {
    const guest = await start({ ringFeatures });
    await guest.inflate(P, GIVEN);
    await guest.postStatistics();
    for (let pause = 0; pause < 2; pause++) {
      if (pause === 1) await guest.disableAll();
      const bases = await guest.stopRings();
      await guest.sayFeatures();
      await guest.describeRings(index => bases[index]);
    }
    await guest.deflate(P, 400);
    expect((await untilDiscarded()).balloonedBytes).toBe(600 * PAGE_SIZE);
    expect(await counted()).toEqual({ resets: 0, refused: 0 });
  });

  test('rings that come back elsewhere in memory are another driver’s, whatever their base', async () => {
    const guest = await start({ ringFeatures });
    await guest.inflate(P, GIVEN);
    const bases = await guest.stopRings();
    await guest.sayFeatures();
    await guest.startDriver({ at: (P + 6000) * PAGE_SIZE, base: index => bases[index] });
    // A ring that begins in the middle may have had pages before: that is not known, and not the last driver's.
    expect([0, null]).toContain((await one.daemon.control.guest('a')).balloonedBytes);
    expect((await counted()).resets).toBe(1);
  });
});

describe('what a new driver may use', () => {
  test('is not discarded from the moment that the rings are disabled', async () => {
    // With a discard before each acknowledgement nothing would ever be pending.
    await one.daemon.control.change('a', { discard: 'after-ack' });
    const guest = await start();
    guest.touch(P, GIVEN);
    // Disabled in the same breath, before anything can be discarded: all of it waits.
    await guest.inflate(P, GIVEN);
    await guest.disableAll();
    const discarded = (await one.daemon.control.guest('a')).discardedBytes;
    guest.touch(P, GIVEN, 0x11);
    await guest.sayFeatures();
    await guest.startDriver();
    await guest.inflate(P + 5000, 1);
    await untilDiscarded();
    const status = await one.daemon.control.guest('a');
    expect(status.discardedBytes - discarded).toBeLessThanOrEqual(PAGE_SIZE);
    for (let page = P; page < P + GIVEN; page++) expect(guest.contentOf(page)).toBe(0x11);
  });

  test('what waited is discarded when a paused guest goes on, or when its front-end asks for the base', async () => {
    for (const resume of [
      (guest: SpokenGuest) => guest.enableAll(),
      (guest: SpokenGuest) => guest.stopRings(),
    ]) {
      const guest = await start();
      guest.touch(P, GIVEN);
      const resident = guest.residentBytes;
      await guest.inflate(P, GIVEN);
      await guest.disableAll();
      await resume(guest);
      await untilDiscarded();
      expect(resident - guest.residentBytes).toBe(GIVEN * PAGE_SIZE);
      one.guests.pop()?.close();
      await one.daemon.untilGuest('a', ({ connected }) => !connected);
    }
  });
});

const pool = reserveHugePages(32);
afterAll(() => pool.release());

describe.skipIf(pool.missing !== undefined)('on huge pages of the host', () => {
  const memory = async () => {
    await one.loop.turnUntil(() => freeHugePages() >= 16);
    return createSharedMemory({
      regions: [{ guestAddress: 0, size: 16 * HUGE_PAGE_SIZE }],
      hugePageSize: HUGE_PAGE_SIZE,
    });
  };

  test.each(ENDS)(
    'a new driver after %s loses no page of a huge page that the last one gave in part',
    async (_, end) => {
      const guest = await start({ memory: await memory() });
      const { discardedBytes } = await one.daemon.control.guest('a');
      await guest.inflate(P, H - 12);
      await end(guest);
      await guest.sayFeatures();
      await guest.startDriver();
      // The next kernel uses what its predecessor gave, and gives the rest.
      guest.touch(P, H - 12, 0x42);
      await guest.inflate(P + H - 12, 12);
      await untilDiscarded();
      for (const page of [P, P + 100, P + H - 13]) expect(guest.contentOf(page)).toBe(0x42);
      expect(await one.daemon.control.guest('a')).toMatchObject({
        balloonedBytes: 12 * PAGE_SIZE,
        discardedBytes,
      });
    },
  );

  test('a guest that was paused completes its huge page', async () => {
    const guest = await start({ memory: await memory() });
    guest.touch(P, H);
    const { discardedBytes } = await one.daemon.control.guest('a');
    await guest.inflate(P, H - 12);
    expect(await one.daemon.control.guest('a')).toMatchObject({
      balloonedBytes: (H - 12) * PAGE_SIZE,
      incompleteBytes: (H - 12) * PAGE_SIZE,
      pendingBytes: 0,
      discardedBytes,
    });
    await guest.disableAll();
    await guest.enableAll();
    await guest.inflate(P + H - 12, 12);
    const after = await untilDiscarded();
    expect(after.discardedBytes - discardedBytes).toBe(HUGE_PAGE_SIZE);
    expect(after).toMatchObject({ balloonedBytes: HUGE_PAGE_SIZE, incompleteBytes: 0 });
    expect(guest.contentOf(P)).toBe(0);
  });
});
