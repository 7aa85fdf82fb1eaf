/**
 * The main promise, on any front-end: an unmodified Linux kernel's own virtio_balloon driver on our device, memory
 * really back at the host, and nothing of the guest's harmed. The daemon is the real program in a process of its own.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, expect, test, vi } from 'vitest';
import { PAGE_SIZE } from '../../../src/memory/page.ts';
import type { LinuxGuest } from '../../../src/peers/linux/guest.ts';
import { freeMemory, useMemory } from '../../../src/peers/linux/workloads.ts';
import { describePeer } from '../../support/peers.ts';
import { checksummedFiles, dropCaches, eatMemory, verifyFiles } from '../linux/checked-workloads.ts';
import type { FrontEnd } from './front-ends.ts';
import { type Wanted, Worlds } from './worlds.ts';

// An emulated processor on a busy machine.
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 });

const MIB = 2 ** 20;
/** What the guest does with memory on the side while it is looked at: logs, page tables, caches of its kernel. */
const SLACK_BYTES = 48 * MIB;
/** 98 MiB and a page: no whole number of huge pages, blocks or lists. */
const ODD_PAGES = 25_089;
/** Without reporting, what the host holds changes only by what the test asks for. */
const QUIET = { without: ['reporting'] } as const;

/** A daemon's own interval of statistics. */
const POLL_INTERVAL_MS = 10_000;
/** What Node itself may use of 3 s: the kernel counts in steps of 10 ms, and Node wakes now and then. */
const IDLE_MS = 30;
const IDLE_WINDOWS = 10;
/** So often free memory is looked at until it has been the same. */
const LOOKS = 10;
const LOOK_INTERVAL_MS = 30;

/**
 * `rings`: what goes over the rings, to the page, for pairs of a kernel and a kind of ring of which each has a larger suite
 * in another pair. `essential`: one daemon and one guest, with what rings and kernels can make different. `whole`: all
 * of it, with hints, two guests, kills, and what the host gets back. AEROSTAT_EXTENT=whole runs all of it on all.
 */
export type Extent = 'rings' | 'essential' | 'whole';

/** What the next smaller suite leaves out, for those who read its output. */
const LEFT_OUT: Readonly<Record<Exclude<Extent, 'whole'>, string>> = {
  rings: 'statistics against /proc/meminfo, need, reporting, drivers that are unloaded',
  essential: 'memory back at the host, hint sessions, two guests, kill -9, an idle daemon',
};

const leftOut = (extent: Extent): string =>
  [...(extent === 'rings' ? [LEFT_OUT.rings] : []), ...(extent === 'whole' ? [] : [LEFT_OUT.essential])].join(
    ', ',
  );

/** The tests of a front-end that is here, as a suite of their own, or its skipping. */
export function linuxGuestSuite(frontEnd: FrontEnd, least: Extent = 'whole'): void {
  const { title, missing } = frontEnd;
  const extent = process.env.AEROSTAT_EXTENT === 'whole' ? 'whole' : least;
  if (extent !== 'whole' && missing === undefined) {
    console.info(`${title}: not run, since other front-ends run it: ${leftOut(extent)}`);
  }
  describePeer(`a Linux guest on the device: ${title}`, missing, () => linuxGuestTests(frontEnd, extent));
}

/** Declares the tests of a front-end in the suite that is being declared. */
export function linuxGuestTests(frontEnd: FrontEnd, extent: Extent = 'whole'): void {
  const { keptBytes, memoryBytes } = frontEnd;
  /** What a guest uses that is busy, and what a balloon takes of it in turn. */
  const usedBytes = Math.floor((memoryBytes * 0.58) / MIB) * MIB;
  const balloonBytes = memoryBytes / 2;
  const worlds = new Worlds(frontEnd);
  const lease = (wanted?: Wanted) => worlds.lease(wanted);
  afterAll(() => worlds.end());

  async function takesExactPages(words: readonly string[]): Promise<void> {
    const world = await lease({ words });
    const { control, reach } = world;
    const guest = world.guest();
    const idle = await idleFree(guest);
    const { counters, discardedBytes } = await control.guest('g');
    const inflated = await reach(ODD_PAGES * PAGE_SIZE);
    expect(inflated.balloonedBytes).toBe(ODD_PAGES * PAGE_SIZE);
    expect(inflated.counters.pages - counters.pages).toBe(ODD_PAGES);
    expect(inflated.discardedBytes - discardedBytes).toBe(ODD_PAGES * PAGE_SIZE);
    expect(inflated.counters.badBuffers + inflated.counters.badPages).toBe(0);
    await freeSettles(guest, idle - ODD_PAGES * PAGE_SIZE);
    const odd = await reach(777 * PAGE_SIZE);
    expect(odd.balloonedBytes).toBe(777 * PAGE_SIZE);
    const deflated = await reach(0);
    expect(deflated.balloonedBytes).toBe(0);
    await freeSettles(guest, idle);
    expect((await control.guest('g')).lastError).toBeNull();
  }

  test('inflates and deflates to the exact page', () => takesExactPages([]));

  test('is asked for statistics at the interval, and answers', async () => {
    const { control, untilGuest } = await lease();
    const { counters } = await control.guest('g');
    await control.change('g', { pollIntervalMs: 50 });
    await untilGuest('g', guest => guest.counters.statsBuffers > counters.statsBuffers + 5);
    await control.change('g', { pollIntervalMs: POLL_INTERVAL_MS });
  });

  if (extent === 'rings') return;

  test('reports statistics that match its /proc/meminfo', async () => {
    const world = await lease();
    const guest = world.guest();
    await useMemory(guest, 100 * MIB);
    const ask = () => world.control.statistics('g', { freshMs: 0, timeoutMs: 30_000 });
    const near = (a: number | null, b: number) => a !== null && Math.abs(a - b) < SLACK_BYTES;
    // What the kernel reports at the moment counts as used, and the two are asked for one after the other.
    await world.daemon.until(
      async () => {
        const { freeBytes, availableBytes } = (await ask()).statistics;
        const { MemFree, MemAvailable } = await guest.meminfo();
        return near(freeBytes, MemFree) && near(availableBytes, MemAvailable);
      },
      async () => `${JSON.stringify(await ask())} is not ${JSON.stringify(await guest.meminfo())}`,
    );
    const { statistics, ageMs } = await ask();
    expect(ageMs).not.toBeNull();
    expect(statistics.totalBytes).toBe((await guest.meminfo()).MemTotal);
    expect(statistics.cacheBytes).toBeGreaterThan(100 * MIB);
    expect(statistics.swapInBytes).toBe(0);
    expect(statistics.minorFaults).toBeGreaterThan(0);
  });

  test('deflates by itself when it is in need (DEFLATE_ON_OOM)', async () => {
    const world = await lease();
    const { deflatedPages } = (await world.reach(Math.floor((memoryBytes * 0.68) / MIB) * MIB)).counters;
    // The kernel asks the balloon for a MiB at a time, and looks everywhere else before each.
    const needed = Math.ceil((await mostFree(world.guest())) / MIB) * MIB + 32 * MIB;
    const { exitCode } = await eatMemory(world.guest(), needed, { holdMs: 200 });
    expect(exitCode).toBe(0);
    await world.untilGuest('g', ({ counters }) => counters.deflatedPages > deflatedPages);
  });

  test('gives freed memory back by reporting, without any balloon', async () => {
    const world = await lease();
    const guest = world.guest();
    await useMemory(guest, usedBytes);
    const used = await world.control.guest('g');
    await freeMemory(guest);
    // A guest that is kept from test to test may also report now what an earlier test freed.
    const reported = await world.untilGuest(
      'g',
      ({ reportedBytes, residentBytes }) =>
        reportedBytes - used.reportedBytes > usedBytes * 0.85 &&
        used.residentBytes! - residentBytes! > usedBytes * 0.85 - SLACK_BYTES,
    );
    expect(reported.balloonedBytes).toBe(0);
    await checksummedFiles(guest, keptBytes);
    await verifyFiles(guest);
  });

  test('unloads its driver, which takes every page back, and loads it again', async () => {
    const world = await lease();
    const guest = world.guest();
    await checksummedFiles(guest, keptBytes / 2);
    await world.reach(200 * MIB);
    await guest.unloadBalloonDriver();
    await dropCaches(guest);
    await verifyFiles(guest);
    await guest.loadBalloonDriver(1);
    await world.untilGuest(
      'g',
      ({ actualBytes, balloonedBytes }) => actualBytes === 200 * MIB && balloonedBytes === 200 * MIB,
    );
    await verifyFiles(guest);
  });

  if (extent === 'essential') return;

  test('is killed and leaves the daemon serving the next guest, with the target kept', async () => {
    const world = await lease();
    await world.reach(200 * MIB);
    await world.kill();
    const gone = await world.untilGuest('g', ({ connected }) => !connected);
    expect(gone.targetBytes).toBe(200 * MIB);
    expect(gone.balloonedBytes).toBe(0);
    expect(gone.memoryBytes).toBeNull();
    await world.boot();
    await world.untilGuest(
      'g',
      ({ actualBytes, pendingBytes }) => actualBytes === 200 * MIB && pendingBytes === 0,
    );
  });

  test('shares a daemon with another guest without either noticing', async () => {
    const world = await lease({ ...QUIET, pair: true });
    const { control, reach } = world;
    const [g, h] = [world.guest('g'), world.guest('h')];
    await Promise.all([checksummedFiles(g, keptBytes / 2), checksummedFiles(h, keptBytes / 2)]);
    await Promise.all([reach(200 * MIB, 'g'), reach(300 * MIB, 'h')]);
    expect((await control.guest('g')).balloonedBytes).toBe(200 * MIB);
    expect((await control.guest('h')).balloonedBytes).toBe(300 * MIB);
    await world.kill('h');
    await Promise.all([verifyFiles(g), reach(100 * MIB, 'g')]);
    expect((await control.guest('g')).connected).toBe(true);
    await world.untilGuest('h', ({ connected }) => !connected);
  });

  test('gives the host what was inflated, lets the guest use it again, and harms nothing else', async () => {
    const world = await lease(QUIET);
    const { control, reach } = world;
    const guest = world.guest();
    await checksummedFiles(guest, keptBytes);
    await useMemory(guest, usedBytes);
    await freeMemory(guest);
    const full = (await control.guest('g')).residentBytes ?? 0;
    const inflated = await reach(balloonBytes);
    expect(full - (inflated.residentBytes ?? 0)).toBeGreaterThan(balloonBytes - SLACK_BYTES);
    await verifyFiles(guest);
    await reach(0);
    await useMemory(guest, usedBytes);
    await verifyFiles(guest);
    const used = (await control.guest('g')).residentBytes ?? 0;
    expect(used - (inflated.residentBytes ?? 0)).toBeGreaterThan(balloonBytes - SLACK_BYTES);
  });

  test('names its free memory in a hint session, keeps it, and takes DONE', async () => {
    const world = await lease(QUIET);
    const { control, daemon, untilGuest } = world;
    const guest = world.guest();
    await useMemory(guest, usedBytes);
    await freeMemory(guest);
    const before = await control.guest('g');
    const { MemFree } = await guest.meminfo();
    await control.hint('g', { action: 'start' });
    // The guest ends the session by itself when it has named everything.
    const named = await untilGuest('g', ({ hint }) => hint.state === 'stopped');
    expect(named.hint.hintedBytes).toBeGreaterThan(MemFree * 0.7);
    expect(named.hint.hintedBytes).toBeLessThanOrEqual(MemFree + SLACK_BYTES);
    // Hints are for skipping: nothing was given back for them. It may be more: kernels that clear what they allocate
    // (init_on_alloc, as Debian's do) touch the pages that they hint.
    expect((before.residentBytes ?? 0) - (named.residentBytes ?? 0)).toBeLessThan(SLACK_BYTES);
    expect((await control.hint('g', { action: 'done' })).state).toBe('done');
    await daemon.until(
      async () => MemFree - (await guest.meminfo()).MemFree < SLACK_BYTES,
      () => 'the guest keeps what it hinted after DONE',
    );
    // A second session is a new one.
    const first = named.hint.commandId ?? 0;
    expect((await control.hint('g', { action: 'start' })).commandId).toBe(first + 1);
    await untilGuest('g', ({ hint }) => hint.state === 'stopped' && hint.hintedBytes > 0);
    await control.hint('g', { action: 'done' });
  });

  test('costs an idle daemon no processor time', async () => {
    const { daemon, reach } = await lease(QUIET);
    await reach(100 * MIB);
    // Node compiles and collects garbage for a while after work, longer on a busy machine. What wakes without a reason
    // does so in every window.
    let least = Number.POSITIVE_INFINITY;
    for (let windows = 0; windows < IDLE_WINDOWS && least > IDLE_MS; windows++) {
      const before = daemon.cpuMs();
      await delay(3000);
      least = Math.min(least, daemon.cpuMs() - before);
    }
    expect(least).toBeLessThanOrEqual(IDLE_MS);
  });

  // Each has a daemon of its own, so they come last.
  test.each(Object.entries(frontEnd.variants))('inflates and deflates to the exact page: %s', (_, words) =>
    takesExactPages(words),
  );
}

/**
 * Free memory of a guest that does nothing. Pages that it is reporting are taken off its free lists meanwhile, up to
 * 128 MiB at a time.
 */
async function idleFree(guest: LinuxGuest): Promise<number> {
  return freeSettles(guest, (await guest.meminfo()).MemTotal);
}

/** What is free when nothing is being reported, which counts as used meanwhile. */
async function mostFree(guest: LinuxGuest): Promise<number> {
  let most = 0;
  for (let looks = 0; looks < LOOKS; looks++) {
    const { MemFree } = await guest.meminfo();
    if (MemFree > most + MIB) looks = 0;
    most = Math.max(most, MemFree);
    await delay(LOOK_INTERVAL_MS);
  }
  return most;
}

/** Settles when free memory is near `bytes`, with what it is then. */
async function freeSettles(guest: LinuxGuest, bytes: number): Promise<number> {
  let free = 0;
  const distance = async () => {
    free = (await guest.meminfo()).MemFree;
    return Math.abs(bytes - free);
  };
  await expect.poll(distance, { timeout: 180_000 }).toBeLessThan(SLACK_BYTES);
  return free;
}
