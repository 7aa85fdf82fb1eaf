/**
 * The proposed ABIs in a real Linux kernel: the driver of linux/ on our device, every generation and both kinds of ring,
 * to the page, with everything that the guest holds unharmed. One guest has a device for each generation.
 *
 * With AEROSTAT_LINUX_DEBUG_KERNEL=DIRECTORY they run under a kernel that looks for faults (KASAN, lockdep and more), which
 * `npm run build:linux -- --debug-kernel` builds; it takes a while, so that CI does not.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { DRAFT_NAMES, PROFILE_NAMES, type ProfileName, profile } from '../../../src/balloon/profiles.ts';
import type { DeviceGuestStatus, GuestRequest } from '../../../src/control/contract.ts';
import { driverModule, driverModuleComplaint } from '../../../src/peers/uml/driver-module.ts';
import { UmlGuest } from '../../../src/peers/uml/guest.ts';
import { findUmlKernels, type UmlKernel } from '../../../src/peers/uml/kernel.ts';
import { checksummedFiles, eatMemory, verifyFiles } from '../linux/checked-workloads.ts';

// Its threads run from what is compiled.
const { startDaemon }: typeof import('../../../src/daemon/daemon.ts') = await import(
  new URL('../../../dist/daemon/daemon.js', import.meta.url).href
);

/** A kernel that looks at every access takes many times as long. */
const SLOWNESS = process.env.AEROSTAT_LINUX_DEBUG_KERNEL === undefined ? 1 : 5;
vi.setConfig({ testTimeout: SLOWNESS * 120_000, hookTimeout: SLOWNESS * 400_000 });

const MIB = 2 ** 20;
const PAGE = 4096;
const MEMORY_BYTES = 512 * MIB;
const KEPT_BYTES = 16 * MIB;
/** No multiple of any block's size. */
const BALLOON_BYTES = 140 * MIB + 3 * PAGE;
const ODD_BYTES = 777 * PAGE;
/** What a guest's kernel does on the side while it is looked at. */
const SLACK_BYTES = 16 * MIB;
const PATIENCE_MS = SLOWNESS * 60_000;

/** What the module has: the drafts of 2026 are the standard to it. */
const GENERATIONS = PROFILE_NAMES.filter(name => !DRAFT_NAMES.includes(name));

/** The kernel reports free pages to one device: to the first in its list that asks for it. */
const ORDERS: Readonly<
  Record<
    string,
    {
      readonly without: readonly string[];
      readonly names: readonly ProfileName[];
      readonly kernelArguments: readonly string[];
    }
  >
> = {
  packed: { without: [], names: GENERATIONS, kernelArguments: [] },
  // What the stock kernel has to find memory that is written behind its end, or after it was freed.
  split: {
    without: ['ring-packed'],
    names: GENERATIONS.toReversed(),
    kernelArguments: ['slub_debug=FZP', 'slab_nomerge'],
  },
};

const debugDirectory = process.env.AEROSTAT_LINUX_DEBUG_KERNEL;
const debugKernel: UmlKernel | undefined =
  debugDirectory === undefined
    ? undefined
    : {
        program: join(debugDirectory, 'vmlinux'),
        version: readFileSync(join(debugDirectory, 'version'), 'utf8').trim(),
        balloonModule: join(debugDirectory, 'aerostat_balloon.ko'),
        origin: 'private',
      };
const kernel =
  debugKernel ??
  findUmlKernels().find(found => found.fault === undefined && driverModuleComplaint(found) === undefined);

function suite(rings: string): void {
  const { without, names } = ORDERS[rings];
  // A debugging kernel looks at every access by itself, and red zones would be faults to it.
  const kernelArguments = debugKernel === undefined ? ORDERS[rings].kernelArguments : ['slub_debug=-'];
  const reporting = names.find(name => name === 'virtio' || name === 'hinting')!;
  let directory: string;
  let daemon: Awaited<ReturnType<typeof startDaemon>>;
  let guest: UmlGuest;
  const log: string[] = [];

  beforeAll(async () => {
    const balloonModule = debugKernel?.balloonModule ?? (await driverModule(kernel!));
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    const socketOf = (name: string) => join(directory, `${name}.sock`);
    daemon = await startDaemon({
      guests: names.map(name => ({
        name,
        socketPath: socketOf(name),
        targetBytes: 0,
        profile: name,
        discard: 'auto',
        without,
        pollIntervalMs: 0,
      })),
      log: ({ level, message }) => {
        if (level === 'warn' || level === 'error') log.push(message);
      },
    });
    guest = await UmlGuest.boot({
      memoryBytes: MEMORY_BYTES,
      sockets: names.map(socketOf),
      moduleParameters: [`generation=${names.join(',')}`],
      kernelArguments,
      kernel: { ...kernel!, balloonModule },
    });
    await checksummedFiles(guest, KEPT_BYTES);
  });

  afterAll(async () => {
    await guest?.shutdown();
    await daemon?.close();
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  });

  const of = (name: string) => daemon.control.guest(name);

  async function until(name: string, met: (guest: DeviceGuestStatus) => boolean): Promise<DeviceGuestStatus> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      const status = await of(name);
      if (met(status)) return status;
      if (performance.now() > deadline) throw new Error(`never came to it: ${JSON.stringify(status)}`);
      await delay(5);
    }
  }

  async function reach(name: string, targetBytes: number): Promise<DeviceGuestStatus> {
    await daemon.control.change(name, { targetBytes, force: true });
    return until(name, status => status.actualBytes === targetBytes && status.pendingBytes === 0);
  }

  const POLL = { timeout: PATIENCE_MS } as const;
  const memFree = async () => (await guest.meminfo()).MemFree;

  let mostFree = 0;

  /**
   * What is free without a balloon. For moments less is, and on a busy host for seconds, since blocks that the kernel reports
   * (up to 32 of 4 MiB) are on no list meanwhile: so it is as much as ever before.
   */
  async function freeBytes(): Promise<number> {
    await guest.check('echo 3 >/proc/sys/vm/drop_caches');
    for (let look = 0; look < 3; look++) {
      mostFree = Math.max(mostFree, await memFree());
      await delay(30);
    }
    let free = 0;
    const missing = async () => {
      free = await memFree();
      return mostFree - free;
    };
    await expect.poll(missing, POLL).toBeLessThan(SLACK_BYTES);
    return free;
  }

  const freeComesTo = (bytes: number) =>
    expect.poll(async () => Math.abs((await memFree()) - bytes), POLL).toBeLessThan(SLACK_BYTES);

  describe.each(names)('%s', name => {
    const abi = profile(name);

    test('inflates and deflates to the page, and harms nothing', async () => {
      const idle = await freeBytes();
      const before = await of(name);
      expect(before.features).toEqual(
        expect.arrayContaining([`${abi.formatFeature === 0n ? 'stats-vq' : abi.features[3].name}`]),
      );
      expect(before.features.includes('ring-packed')).toBe(rings === 'packed');
      const inflated = await reach(name, BALLOON_BYTES);
      expect(inflated.balloonedBytes).toBe(BALLOON_BYTES);
      expect(inflated.counters.pages - before.counters.pages).toBe(BALLOON_BYTES / PAGE);
      expect(inflated.discardedBytes - before.discardedBytes).toBe(BALLOON_BYTES);
      await freeComesTo(idle - BALLOON_BYTES);
      // Runs of 4 MiB, or 256 pages: what the formats are about.
      const lists = inflated.counters.inflateBuffers - before.counters.inflateBuffers;
      if (abi.formatFeature === 0n) expect(lists).toBe(Math.ceil(BALLOON_BYTES / PAGE / 256));
      else if (name !== 'sg') expect(lists).toBeLessThan(10);
      await verifyFiles(guest);
      expect((await reach(name, ODD_BYTES)).balloonedBytes).toBe(ODD_BYTES);
      expect((await reach(name, 0)).balloonedBytes).toBe(0);
      await freeComesTo(idle);
      const { counters } = await of(name);
      expect(counters.badBuffers + counters.badPages).toBe(0);
    });

    test('sends statistics that match its /proc/meminfo', async () => {
      await expect
        .poll(async () => {
          const { statistics } = await daemon.control.statistics(name, { freshMs: 0, timeoutMs: 20_000 });
          const { MemTotal, MemFree } = await guest.meminfo();
          return statistics.totalBytes === MemTotal && Math.abs((statistics.freeBytes ?? 0) - MemFree);
        }, POLL)
        .toSatisfy(difference => difference !== false && difference < SLACK_BYTES);
    });

    if (abi.freePages.kind === 'request') {
      test('names its unused pages, drops its cache, and shrinks, when it is asked to', async () => {
        const free = await freeBytes();
        const ask = (request: GuestRequest) => daemon.control.request(name, { request, timeoutMs: 20_000 });
        // Pages that the processor keeps for itself are free and on no list.
        const named = (request: GuestRequest) =>
          expect
            .poll(async () => Math.abs((await ask(request)).unusedBytes - free), POLL)
            .toBeLessThan(SLACK_BYTES);
        await named('unused-pages');
        const { Cached } = await guest.meminfo();
        expect(await ask('drop-cache')).toMatchObject({ unusedBytes: 0, lists: 1 });
        expect((await guest.meminfo()).Cached).toBeLessThanOrEqual(Cached + MIB);
        await named('shrink');
        await verifyFiles(guest);
      });
    }

    if (abi.freePages.kind === 'session') {
      test('hints what it does not use', async () => {
        const free = await freeBytes();
        await daemon.control.hint(name, { action: 'start' });
        const { hint } = await until(name, status => status.hint.state === 'stopped');
        expect(hint.hintedBytes).toBeGreaterThan(free / 2);
        expect(hint.hintedBytes).toBeLessThanOrEqual(free + SLACK_BYTES);
        await daemon.control.hint(name, { action: 'done' });
        if (abi.freePages.kind === 'session' && abi.freePages.hasDone) {
          await expect.poll(memFree, POLL).toBeGreaterThan(free - SLACK_BYTES);
        }
        await verifyFiles(guest);
      });
    }

    if (name === reporting) {
      test('reports what it frees', async () => {
        const { reportedBytes } = await of(name);
        expect((await eatMemory(guest, 200 * MIB)).exitCode).toBe(0);
        await until(name, status => status.reportedBytes - reportedBytes > 150 * MIB);
        await verifyFiles(guest);
      });
    }

    // Rings make no difference to it.
    if (rings === 'split') return;
    test('gives pages back to a guest in need', async () => {
      const free = await freeBytes();
      const before = await reach(name, Math.floor((free * 0.75) / MIB) * MIB);
      expect((await eatMemory(guest, Math.floor((free * 0.5) / MIB) * MIB)).exitCode).toBe(0);
      await until(name, ({ counters }) => counters.deflatedPages > before.counters.deflatedPages);
      await reach(name, 0);
      await verifyFiles(guest);
    });
  });

  test('gives every page back when it is unloaded, and starts anew when it is loaded again', async () => {
    const idle = await freeBytes();
    for (const name of names) await reach(name, 32 * MIB + PAGE);
    await guest.unloadBalloonDriver();
    await freeComesTo(idle);
    for (const name of names) expect((await of(name)).balloonedBytes ?? 0).toBe(0);
    // It goes to the targets at once.
    await guest.loadBalloonDriver(names.length, [`generation=${names.join(',')}`]);
    for (const name of names) await until(name, ({ balloonedBytes }) => balloonedBytes === 32 * MIB + PAGE);
    await verifyFiles(guest);
    for (const name of names) await reach(name, 0);
  });

  test('left nothing to complain of, here or in the guest', async () => {
    for (const name of names) expect((await of(name)).lastError).toBeNull();
    expect(log).toEqual([]);
    const redZones = await guest.check('cat /sys/kernel/slab/kmalloc-64/red_zone');
    expect(redZones.trim()).toBe(kernelArguments.includes('slub_debug=FZP') ? '1' : '0');
    const told = await guest.kernelLog();
    expect(told).not.toMatch(/BUG|WARNING|Call Trace|Oops|INFO: |UBSAN/);
  });
}

for (const rings of Object.keys(ORDERS)) {
  const title = `the proposed ABIs in a real kernel, ${rings} rings`;
  const [newest] = findUmlKernels();
  if (kernel !== undefined) describe(`${title} (Linux ${kernel.version})`, () => suite(rings));
  else {
    const why =
      newest === undefined
        ? 'no User Mode Linux is here'
        : (driverModuleComplaint(newest)?.message ?? newest.fault);
    console.warn(`Skipped: ${title}. ${why}`);
    describe.skip(`${title} (skipped: ${why})`, () => test('runs', () => {}));
  }
}
