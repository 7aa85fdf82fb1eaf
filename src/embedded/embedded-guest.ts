/**
 * The embedded guest as a machine: guest kernel, balloon driver, vhost-user front-end and shared memory, on one reactor
 * in the thread that starts it. What it can be told is commands.ts's; how it is reached from another process,
 * console.ts's and guest-process.ts's.
 *
 *     const guest = await EmbeddedGuest.start({ socketPath, memoryBytes: 2 ** 30 });
 *     await guest.driver.settled();
 *     await guest.close();
 *
 * The thread blocks in poll(2) while the guest has nothing to do; between turns Node's own loop is visited.
 */
import { DEFAULT_PROFILE, profile } from '../balloon/profiles.ts';
import { BalloonDriver } from '../driver/balloon-driver.ts';
import { DEFAULT_TUNING } from '../driver/options.ts';
import { schedulerOf } from '../driver/scheduler.ts';
import { Guest, type WorkloadSpec } from '../guest/guest.ts';
import type { GuestKernel } from '../guest/kernel.ts';
import type { Process } from '../guest/process.ts';
import type { Workload, WorkloadKind } from '../guest/workloads/workload.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { AerostatError } from '../sys/error.ts';
import { monotonicMs, Reactor } from '../sys/poll.ts';
import { VhostUserFrontend } from '../vhost-user/frontend-session.ts';
import { createSharedMemory } from '../vhost-user/shared-memory.ts';
import { RING_PACKED } from '../virtio/features.ts';
import { Connection } from './connection.ts';
import { type EmbeddedGuestOptions, GUEST_BYTES_MIN } from './options.ts';
import { Processor } from './processor.ts';

export class EmbeddedGuest {
  readonly guest: Guest;
  readonly driver: BalloonDriver;
  readonly transport: VhostUserFrontend;
  readonly memory: GuestMemory;
  readonly processor: Processor;
  readonly reactor: Reactor;
  /** Processes that were told to use memory, and keep it. */
  readonly users = new Set<Process>();
  readonly connection: Connection;
  /** Settles when the guest has ended; rejects when it ended because a page lost its content. */
  readonly ended: Promise<void>;
  readonly #machine: Machine;
  #end: (failure?: unknown) => void = () => {};
  #closing = false;

  private constructor(machine: Machine, options: EmbeddedGuestOptions) {
    this.#machine = machine;
    this.reactor = machine.reactor;
    this.memory = machine.memory;
    this.transport = machine.transport;
    const { seed = 1, coverage, poison, onEvent = () => {} } = options;
    this.guest = Guest.boot({
      memory: this.memory,
      clock: { now: monotonicMs },
      seed,
      ...(coverage === undefined ? {} : { coverage }),
      ...(poison === undefined ? {} : { poison }),
      warn: once(message => onEvent('log', message)),
    });
    const scheduler = schedulerOf(this.reactor, monotonicMs);
    this.driver = new BalloonDriver({
      ringFeatures: DEFAULT_TUNING.ringFeatures | (options.rings === 'packed' ? RING_PACKED : 0n),
      ...options.driver,
      kernel: this.guest.kernel,
      transport: this.transport,
      scheduler,
      profile: profile(options.profile ?? DEFAULT_PROFILE),
    });
    this.connection = new Connection({
      transport: this.transport,
      driver: this.driver,
      scheduler,
      socketPath: options.socketPath,
      onEvent,
    });
    this.ended = new Promise((resolve, reject) => {
      this.#end = failure => (failure === undefined ? resolve() : reject(failure));
    });
    // Whoever waits for it hears of it; nobody has to.
    this.ended.catch(() => {});
    this.processor = new Processor({
      guest: this.guest,
      scheduler,
      pagesPerSecondMax: options.pagesPerSecondMax ?? Number.POSITIVE_INFINITY,
      onFailure: error => void this.close(error),
    });
  }

  /**
   * Makes the guest's memory, connects to the device and starts the driver.
   * @throws AerostatError AEROSTAT_GUEST_OPTIONS for memory of a size that cannot be; SystemError when nobody listens
   *   or the host has no such memory; what the driver's probe throws
   */
  static async start(options: EmbeddedGuestOptions): Promise<EmbeddedGuest> {
    const machine = await connect(options);
    const guest = new EmbeddedGuest(machine, options);
    try {
      await guest.driver.probe();
      return guest;
    } catch (error) {
      await guest.close();
      throw error;
    }
  }

  get kernel(): GuestKernel {
    return this.guest.kernel;
  }

  /** Starts a workload of about `bytes`, a quarter of memory unless said otherwise. */
  startWorkload(kind: WorkloadKind, bytes = this.memory.size / 4): Workload {
    const workload = this.guest.start(workloadSpec(kind, Math.max(1, Math.floor(bytes / PAGE_SIZE))));
    this.processor.wake();
    return workload;
  }

  /** Switches the guest off: its memory is gone when this resolves. `failure` is what {@link ended} rejects with. */
  async close(failure?: unknown): Promise<void> {
    if (this.#closing) return this.ended.catch(() => {});
    this.#closing = true;
    this.processor.stop();
    this.connection.close();
    await switchOff(this.#machine);
    this.#end(failure);
  }
}

interface Machine {
  readonly reactor: Reactor;
  /** The reactor's run. */
  readonly running: Promise<void>;
  readonly memory: GuestMemory;
  readonly transport: VhostUserFrontend;
}

async function connect(options: EmbeddedGuestOptions): Promise<Machine> {
  const { socketPath, memoryBytes, hugePageSize, adviseHugePages = false } = options;
  checkSize(memoryBytes, hugePageSize ?? PAGE_SIZE);
  const memory = createSharedMemory({
    regions: [{ guestAddress: 0, size: memoryBytes }],
    adviseHugePages,
    ...(hugePageSize === undefined ? {} : { hugePageSize }),
  });
  const reactor = new Reactor();
  // Not before the first question is asked: until there is something to wait for, waiting has no end.
  const running = new Promise(resolve => setImmediate(resolve)).then(() => reactor.run());
  try {
    const transport = await VhostUserFrontend.connect(socketPath, { reactor, memory, reconnects: true });
    return { reactor, running, memory, transport };
  } catch (error) {
    await switchOff({ reactor, running, memory });
    throw error;
  }
}

async function switchOff({
  transport,
  reactor,
  running,
  memory,
}: Omit<Machine, 'transport'> & Partial<Machine>): Promise<void> {
  transport?.close();
  reactor.stop();
  await running;
  reactor.close();
  memory.close();
}

function checkSize(bytes: number, unit: number): void {
  if (Number.isInteger(bytes / unit) && bytes >= GUEST_BYTES_MIN) return;
  throw new AerostatError(
    'AEROSTAT_GUEST_OPTIONS',
    `a guest cannot have ${bytes} bytes; give it a multiple of ${unit}, ${GUEST_BYTES_MIN} at least`,
  );
}

/** Compilers that a build runs at once. */
const BUILD_JOBS = 4;

function workloadSpec(kind: WorkloadKind, pages: number): WorkloadSpec {
  if (kind !== 'build') return { kind, pages };
  return { kind, jobs: BUILD_JOBS, workingPages: Math.max(16, Math.floor(pages / BUILD_JOBS)) };
}

/** The same line is said again after this long; a guest without memory would say it thousands of times. */
const REPEAT_MS = 10_000;

function once(say: (message: string) => void): (message: string) => void {
  const saidMs = new Map<string, number>();
  return message => {
    const now = monotonicMs();
    if (now - (saidMs.get(message) ?? Number.NEGATIVE_INFINITY) < REPEAT_MS) return;
    saidMs.set(message, now);
    say(message);
  };
}
