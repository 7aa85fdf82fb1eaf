/**
 * The main promise: an unmodified Linux kernel's own virtio_balloon driver on our device, memory really back at
 * the host, and nothing of the guest's harmed. The daemon is the real program in a process of its own.
 */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import {
  checksummedFiles,
  dropCaches,
  eatMemory,
  freeMemory,
  useMemory,
  verifyFiles,
} from '../../src/peers/linux/workloads.ts';
import { UmlGuest } from '../../src/peers/uml/guest.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { describeLinux } from '../support/peers.ts';

const MIB = 2 ** 20;
const GUEST_BYTES = 1024 * MIB;
/** What the guest does with memory on the side while it is looked at: logs, page tables, caches of its kernel. */
const SLACK_BYTES = 48 * MIB;

// Booting kernels and moving hundreds of megabytes takes its time on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

let daemon: DaemonProcess | undefined;
let guests: UmlGuest[] = [];

async function start(names: readonly string[], words: readonly string[] = []): Promise<DaemonProcess> {
  daemon = await DaemonProcess.start(names, words);
  return daemon;
}

beforeEach(() => {
  guests = [];
});

afterEach(async () => {
  for (const guest of guests) await guest.shutdown();
  await daemon?.stop();
  daemon = undefined;
});

describeLinux('a Linux guest on the device', kernel => {
  async function boot(socket: string, memoryBytes = GUEST_BYTES): Promise<UmlGuest> {
    const guest = await UmlGuest.boot({ memoryBytes, sockets: [socket], kernel });
    guests.push(guest);
    return guest;
  }

  /** A guest that wrote to `bytes` of its memory and freed it, so that the host holds all of that. */
  async function touched(socket: string, bytes: number): Promise<UmlGuest> {
    const guest = await boot(socket);
    await useMemory(guest, bytes);
    await freeMemory(guest);
    return guest;
  }

  // Both kinds of ring, and both orders of acknowledging and discarding.
  test.each([
    ['packed rings, acknowledged first', []],
    ['split rings, acknowledged first', ['--without', 'ring-packed']],
    ['split rings without event indices', ['--without', 'ring-packed,ring-event-idx,ring-indirect-desc']],
    ['discarding before acknowledging', ['--discard', 'before-ack']],
  ] as const)('inflates and deflates to the exact page: %s', async (_, words) => {
    const { control, socketOf, reach } = await bound(start(['g'], words));
    const guest = await boot(socketOf('g'));
    const idle = await idleFree(guest);
    const pages = 50_001;
    const inflated = await reach('g', pages * PAGE_SIZE);
    expect(inflated.balloonedBytes).toBe(pages * PAGE_SIZE);
    expect(inflated.counters.pages).toBe(pages);
    expect(inflated.discardedBytes).toBe(pages * PAGE_SIZE);
    expect(inflated.counters.badBuffers + inflated.counters.badPages).toBe(0);
    await freeSettles(guest, idle - pages * PAGE_SIZE);
    const odd = await reach('g', 777 * PAGE_SIZE);
    expect(odd.balloonedBytes).toBe(777 * PAGE_SIZE);
    const deflated = await reach('g', 0);
    expect(deflated.balloonedBytes).toBe(0);
    await freeSettles(guest, idle);
    expect((await control.guest('g')).lastError).toBeNull();
  });

  test('gives the host what was inflated, lets the guest use it again, and harms nothing else', async () => {
    const { control, socketOf, reach } = await bound(start(['g'], ['--without', 'reporting']));
    const guest = await boot(socketOf('g'));
    await checksummedFiles(guest, 128 * MIB);
    await useMemory(guest, 600 * MIB);
    await freeMemory(guest);
    const full = (await control.guest('g')).residentBytes ?? 0;
    const balloon = 512 * MIB;
    const inflated = await reach('g', balloon);
    expect(full - (inflated.residentBytes ?? 0)).toBeGreaterThan(balloon - SLACK_BYTES);
    await verifyFiles(guest);
    await reach('g', 0);
    await useMemory(guest, 600 * MIB);
    await verifyFiles(guest);
    const used = (await control.guest('g')).residentBytes ?? 0;
    expect(used - (inflated.residentBytes ?? 0)).toBeGreaterThan(balloon - SLACK_BYTES);
  });

  test('reports statistics that match its /proc/meminfo', async () => {
    const { control, socketOf } = await bound(start(['g']));
    const guest = await boot(socketOf('g'));
    await useMemory(guest, 100 * MIB);
    const { statistics, ageMs } = await control.statistics('g', { freshMs: 0, timeoutMs: 10_000 });
    const meminfo = await guest.meminfo();
    expect(ageMs).not.toBeNull();
    expect(statistics.totalBytes).toBe(meminfo.MemTotal);
    expect(Math.abs((statistics.freeBytes ?? 0) - meminfo.MemFree)).toBeLessThan(SLACK_BYTES);
    expect(Math.abs((statistics.availableBytes ?? 0) - meminfo.MemAvailable)).toBeLessThan(SLACK_BYTES);
    expect(statistics.cacheBytes).toBeGreaterThan(100 * MIB);
    expect(statistics.swapInBytes).toBe(0);
    expect(statistics.minorFaults).toBeGreaterThan(0);
  });

  test('is asked for statistics at the interval, and answers', async () => {
    const { untilGuest, socketOf } = await bound(start(['g'], ['--poll-interval', '50ms']));
    await boot(socketOf('g'));
    await untilGuest('g', guest => guest.counters.statsBuffers > 5);
  });

  test('deflates by itself when it is in need (DEFLATE_ON_OOM)', async () => {
    const { socketOf, reach, untilGuest } = await bound(start(['g']));
    const guest = await boot(socketOf('g'));
    const target = 700 * MIB;
    await reach('g', target);
    const { exitCode } = await eatMemory(guest, 500 * MIB, { holdMs: 200 });
    expect(exitCode).toBe(0);
    await untilGuest('g', ({ counters }) => counters.deflatedPages > 0);
  });

  test('gives freed memory back by reporting, without any balloon', async () => {
    const { socketOf, untilGuest, control } = await bound(start(['g']));
    const guest = await touched(socketOf('g'), 600 * MIB);
    const reported = await untilGuest('g', ({ reportedBytes }) => reportedBytes > 500 * MIB);
    expect(reported.balloonedBytes).toBe(0);
    await checksummedFiles(guest, 200 * MIB);
    await verifyFiles(guest);
    expect((await control.guest('g')).residentBytes).toBeLessThan(400 * MIB);
  });

  test('names its free memory in a hint session, keeps it, and takes DONE', async () => {
    const { control, socketOf, untilGuest } = await bound(start(['g'], ['--without', 'reporting']));
    const guest = await touched(socketOf('g'), 600 * MIB);
    const before = await control.guest('g');
    const { MemFree } = await guest.meminfo();
    await control.hint('g', { action: 'start' });
    // The guest ends the session by itself when it has named everything.
    const named = await untilGuest('g', ({ hint }) => hint.state === 'stopped');
    expect(named.hint.hintedBytes).toBeGreaterThan(MemFree * 0.7);
    expect(named.hint.hintedBytes).toBeLessThanOrEqual(MemFree + SLACK_BYTES);
    // Hints are for skipping: nothing was given back for them.
    expect(Math.abs((named.residentBytes ?? 0) - (before.residentBytes ?? 0))).toBeLessThan(SLACK_BYTES);
    expect((await control.hint('g', { action: 'done' })).state).toBe('done');
    await daemonOf().until(
      async () => MemFree - (await guest.meminfo()).MemFree < SLACK_BYTES,
      () => 'the guest keeps what it hinted after DONE',
    );
    // A second session is a new one.
    const first = named.hint.commandId ?? 0;
    expect((await control.hint('g', { action: 'start' })).commandId).toBe(first + 1);
    await untilGuest('g', ({ hint }) => hint.state === 'stopped' && hint.hintedBytes > 0);
    await control.hint('g', { action: 'done' });
  });

  test('shares a daemon with another guest without either noticing', async () => {
    const { control, socketOf, reach } = await bound(start(['a', 'b'], ['--without', 'reporting']));
    const [a, b] = await Promise.all([boot(socketOf('a'), 512 * MIB), boot(socketOf('b'), 512 * MIB)]);
    await Promise.all([checksummedFiles(a, 64 * MIB), checksummedFiles(b, 64 * MIB)]);
    await Promise.all([reach('a', 200 * MIB), reach('b', 300 * MIB)]);
    expect((await control.guest('a')).balloonedBytes).toBe(200 * MIB);
    expect((await control.guest('b')).balloonedBytes).toBe(300 * MIB);
    await a.kill();
    guests = [b];
    await Promise.all([verifyFiles(b), reach('b', 100 * MIB)]);
    expect((await control.guest('b')).connected).toBe(true);
  });

  test('is killed and leaves the daemon serving the next guest, with the target kept', async () => {
    const { socketOf, reach, untilGuest } = await bound(start(['g']));
    const first = await boot(socketOf('g'), 512 * MIB);
    await reach('g', 200 * MIB);
    await first.kill();
    const gone = await untilGuest('g', ({ connected }) => !connected);
    expect(gone.targetBytes).toBe(200 * MIB);
    expect(gone.balloonedBytes).toBe(0);
    expect(gone.memoryBytes).toBeNull();
    await boot(socketOf('g'), 512 * MIB);
    await untilGuest('g', ({ actualBytes, pendingBytes }) => actualBytes === 200 * MIB && pendingBytes === 0);
  });

  test('unloads its driver, which takes every page back, and loads it again', async () => {
    const { socketOf, reach, untilGuest } = await bound(start(['g']));
    const guest = await boot(socketOf('g'), 512 * MIB);
    await checksummedFiles(guest, 64 * MIB);
    await reach('g', 200 * MIB);
    await guest.unloadBalloonDriver();
    await dropCaches(guest);
    await verifyFiles(guest);
    await guest.loadBalloonDriver(1);
    await untilGuest(
      'g',
      ({ actualBytes, balloonedBytes }) => actualBytes === 200 * MIB && balloonedBytes === 200 * MIB,
    );
    await verifyFiles(guest);
  });

  test('costs an idle daemon no processor time', async () => {
    const { socketOf, reach } = await bound(start(['g'], ['--without', 'reporting']));
    await boot(socketOf('g'), 512 * MIB);
    await reach('g', 100 * MIB);
    await new Promise(resolve => setTimeout(resolve, 500));
    const before = daemonOf().cpuMs();
    await new Promise(resolve => setTimeout(resolve, 3000));
    // The kernel counts in steps of 10 ms, and Node itself wakes now and then.
    expect(daemonOf().cpuMs() - before).toBeLessThanOrEqual(30);
  });
});

/**
 * Free memory of a guest that has just booted. Pages that it is reporting are taken off its free lists meanwhile, up to
 * 128 MiB at a time.
 */
async function idleFree(guest: UmlGuest): Promise<number> {
  const { MemTotal } = await guest.meminfo();
  await freeSettles(guest, MemTotal);
  return (await guest.meminfo()).MemFree;
}

/** Settles when free memory is near `bytes`. */
async function freeSettles(guest: UmlGuest, bytes: number): Promise<void> {
  const distance = async () => Math.abs(bytes - (await guest.meminfo()).MemFree);
  await expect.poll(distance).toBeLessThan(SLACK_BYTES);
}

const daemonOf = (): DaemonProcess => {
  if (daemon === undefined) throw new Error('no daemon');
  return daemon;
};

/** The daemon's functions as words of their own. */
async function bound(starting: Promise<DaemonProcess>) {
  const started = await starting;
  return {
    control: started.control,
    socketOf: (name: string) => started.socketOf(name),
    reach: (name: string, bytes: number) => started.reach(name, bytes),
    untilGuest: started.untilGuest.bind(started),
  };
}
