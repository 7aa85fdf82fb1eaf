/**
 * The guest's side of `bench inflate --peer qemu`, in a process of its own: guest memory laid out like a PC's, a kernel
 * that hands out its pages in the order that is measured, and our driver, on a device that is in another process: QEMU's
 * or ours. What it says is what the bench clocks; times are of the clock that all processes of a host share.
 */

import { profile } from '../../balloon/profiles.ts';
import { BalloonDriver } from '../../driver/balloon-driver.ts';
import { type Scheduler, schedulerOf } from '../../driver/scheduler.ts';
import { GFP_BALLOON } from '../../guest/gfp.ts';
import { GuestKernel } from '../../guest/kernel.ts';
import type { FileBacking } from '../../memory/file-backing.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { gpaOf, PAGE_SIZE } from '../../memory/page.ts';
import { NIL } from '../../memory/page-blocks.ts';
import { QtestMachine, q35Layout } from '../../peers/qemu/qtest-machine.ts';
import { AerostatError } from '../../sys/error.ts';
import { fileStatus } from '../../sys/file.ts';
import { monotonicMs, Reactor } from '../../sys/poll.ts';
import { VhostUserFrontend } from '../../vhost-user/frontend-session.ts';
import { createSharedMemory } from '../../vhost-user/shared-memory.ts';
import type { VirtioTransport } from '../../virtio/transport.ts';
import { cpuMsOf } from '../cpu-time.ts';
import { type PageOrder, shuffle } from '../page-order.ts';
import { tellBench, whenLetGo } from '../peer-side.ts';
import type { FromPeerGuest, PeerGuestData } from './peer-protocol.ts';

/** How often the host is asked what it holds. */
const LOOK_MS = 2;
/** A device that makes no progress for this long never will. */
const STALL_MS = 120_000;

/** A kernel that hands out the pages in a chosen order to the driver that inflates a balloon. */
class DealingKernel extends GuestKernel {
  #pfns = new Uint32Array(0);
  #dealt = 0;

  /** Takes so many pages out of the allocator and puts them in order; returns them. */
  preparePages(pages: number, order: PageOrder): Uint32Array {
    const pfns = new Uint32Array(pages);
    for (let index = 0; index < pages; index++) {
      const pfn = super.allocate(0, GFP_BALLOON);
      if (pfn === NIL)
        throw new AerostatError('AEROSTAT_BENCH', 'the guest has less memory than its balloon');
      pfns[index] = pfn;
    }
    pfns.sort();
    if (order === 'shuffled') shuffle(pfns);
    this.#pfns = pfns;
    return pfns;
  }

  override allocate(order: number, flags: number): number {
    if (flags === GFP_BALLOON && order === 0 && this.#dealt < this.#pfns.length) {
      return this.#pfns[this.#dealt++];
    }
    return super.allocate(order, flags);
  }
}

/** A device and all that a driver needs beside it. */
interface Side {
  readonly memory: GuestMemory;
  readonly transport: VirtioTransport;
  readonly scheduler: Scheduler;
  readonly qmpPath: string | null;
  residentBytes(): number;
  deviceCpuMs(): number | null;
  close(): Promise<void>;
}

async function startQemu({ memoryBytes }: PeerGuestData): Promise<Side> {
  const machine = await QtestMachine.start({ memoryBytes });
  const { pid, qmpPath } = machine.qemu;
  return {
    memory: machine.memory,
    transport: await machine.openBalloon(),
    scheduler: nodeScheduler,
    qmpPath,
    residentBytes: () => machine.residentBytes(),
    deviceCpuMs: () => cpuMsOf(pid),
    close: () => machine.close(),
  };
}

async function startOurs(socketPath: string, { memoryBytes }: PeerGuestData): Promise<Side> {
  const regions = q35Layout(memoryBytes).map(({ guestAddress, size }) => ({ guestAddress, size }));
  const memory = createSharedMemory({ regions });
  const { fd } = memory.regions[0].backing as FileBacking;
  const reactor = new Reactor();
  const running = new Promise(resolve => setImmediate(resolve)).then(() => reactor.run());
  const transport = await VhostUserFrontend.connect(socketPath, { reactor, memory });
  return {
    memory,
    transport,
    scheduler: schedulerOf(reactor, monotonicMs),
    qmpPath: null,
    residentBytes: () => fileStatus(fd).residentBytes,
    deviceCpuMs: () => null,
    close: async () => {
      transport.close();
      reactor.stop();
      await running;
      reactor.close();
      memory.close();
    },
  };
}

const nodeScheduler: Scheduler = {
  now: monotonicMs,
  schedule: (delayMs, run) => {
    const timer = setTimeout(run, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
};

async function run(data: PeerGuestData, side: Side): Promise<never> {
  const { memory, transport, scheduler } = side;
  const kernel = new DealingKernel({ memory });
  const pfns = kernel.preparePages(data.balloonBytes / PAGE_SIZE, data.order);
  for (const pfn of pfns) memory.setU32(gpaOf(pfn), 1);
  const driver = new BalloonDriver({
    kernel,
    transport,
    scheduler,
    profile: profile('virtio'),
    features: 0n,
    ...data.tuning,
  });
  const wait = (ms: number) => new Promise<void>(resolve => scheduler.schedule(ms, resolve));
  const until = async (met: () => boolean) => {
    for (const deadline = monotonicMs() + STALL_MS; !met(); ) {
      if (monotonicMs() > deadline) throw new AerostatError('AEROSTAT_BENCH', 'the device makes no progress');
      await wait(LOOK_MS);
    }
  };
  await driver.probe();
  const before = side.residentBytes();
  const cpuBefore = side.deviceCpuMs();
  tell({ kind: 'ready', qmpPath: side.qmpPath });

  await until(() => driver.targetPages > 0);
  await driver.settled();
  const settledMs = monotonicMs();
  // The driver's own rings and lists were touched too since, which is a page or two for each buffer.
  const slack = driver.ownPages * PAGE_SIZE;
  await until(() => side.residentBytes() <= before - data.balloonBytes + slack);
  const backMs = monotonicMs();
  const cpu = side.deviceCpuMs();
  tell({
    kind: 'inflated',
    settledMs,
    backMs,
    kicks: driver.counters.kicks,
    buffers: driver.counters.inflateBuffers,
    deviceCpuMs: cpu === null || cpuBefore === null ? null : cpu - cpuBefore,
  });

  await until(() => driver.targetPages === 0);
  await driver.settled();
  tell({ kind: 'deflated', settledMs: monotonicMs() });
  // The bench may still be asking the device. That it lets go of us, a reactor would never hear that slept for good.
  for (;;) await wait(LOOK_MS);
}

const tell = (message: FromPeerGuest): void => tellBench(message);

const data = JSON.parse(process.argv[2]) as PeerGuestData;
// The bench lets go of its guest when it is done with it, or ends itself. Ctrl-C reaches both of them, and is the bench's
// to answer: a QEMU has files that must be cleared away.
whenLetGo(() => process.exit());
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
let side: Side | undefined;
try {
  side = data.socketPath === null ? await startQemu(data) : await startOurs(data.socketPath, data);
  await run(data, side);
} catch (error) {
  tell({ kind: 'failed', message: error instanceof Error ? error.message : String(error) });
  await side?.close();
}
