/**
 * The embedded guest as a machine: guest kernel, balloon driver, vhost-user front-end and shared memory, on one reactor
 * in the thread that starts it. What it can be told is commands.ts's; how it is reached from another process,
 * console.ts's, and the process of its own that it may run in is guest-process.ts's.
 *
 *     const guest = await EmbeddedGuest.start({ socketPath, memoryBytes: 2 ** 30 });
 *     await guest.driver.settled();
 *     await guest.close();
 *
 * The thread blocks in poll(2) while the guest has nothing to do; between turns Node's own loop is visited.
 */
import { DEFAULT_PROFILE, profile } from '../balloon/profiles.ts';
import { BalloonDriver } from '../driver/balloon-driver.ts';
import { DEFAULT_TUNING, type DriverTuning } from '../driver/options.ts';
import { schedulerOf } from '../driver/scheduler.ts';
import { Guest, type WorkloadSpec } from '../guest/guest.ts';
import type { GuestKernel, GuestResumeOptions } from '../guest/kernel.ts';
import type { Process } from '../guest/process.ts';
import type { Workload, WorkloadKind } from '../guest/workloads/workload.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { defined } from '../sys/defined.ts';
import { AerostatError, assert } from '../sys/error.ts';
import { monotonicMs, Reactor } from '../sys/poll.ts';
import { VhostUserFrontend } from '../vhost-user/frontend-session.ts';
import { createSharedMemory } from '../vhost-user/shared-memory.ts';
import { RING_PACKED } from '../virtio/features.ts';
import { DeviceConnection } from './connection.ts';
import { type EmbeddedGuestOptions, GUEST_BYTES_MIN, type MachineParts, type SavedGuest } from './options.ts';
import { Processor } from './processor.ts';
import { USER_NAME } from './tasks.ts';
import { Wants } from './wants.ts';

export class EmbeddedGuest {
  readonly guest: Guest;
  readonly driver: BalloonDriver;
  readonly transport: VhostUserFrontend;
  readonly memory: GuestMemory;
  readonly processor: Processor;
  readonly reactor: Reactor;
  /** Processes that were told to use memory, and keep it. */
  readonly users = new Set<Process>();
  readonly wants: Wants;
  readonly connection: DeviceConnection;
  /** Settles when the guest has ended; rejects when it ended because a page lost its content. */
  readonly ended: Promise<void>;
  readonly #machine: Machine;
  #end: (failure?: unknown) => void = () => {};
  #closing = false;
  #ringsStopped = false;

  private constructor(machine: Machine, guest: Guest, options: EmbeddedGuestOptions) {
    this.#machine = machine;
    this.reactor = machine.reactor;
    this.memory = machine.memory;
    this.transport = machine.transport;
    this.guest = guest;
    this.wants = new Wants(guest.kernel);
    const { onEvent = () => {} } = options;
    const scheduler = schedulerOf(this.reactor, monotonicMs);
    this.driver = new BalloonDriver({
      ringFeatures: DEFAULT_TUNING.ringFeatures | (options.rings === 'packed' ? RING_PACKED : 0n),
      ...wholeHostPages(options),
      ...options.driver,
      kernel: this.guest.kernel,
      transport: this.transport,
      scheduler,
      profile: profile(options.profile ?? DEFAULT_PROFILE),
    });
    this.connection = new DeviceConnection({
      transport: this.transport,
      driver: this.driver,
      scheduler,
      socketPath: machine.target,
      onEvent,
    });
    this.ended = new Promise((resolve, reject) => {
      this.#end = failure => (failure === undefined ? resolve() : reject(failure));
    });
    // Marks the rejection as handled; callers may still await it.
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
   * @throws AerostatError AEROSTAT_GUEST_OPTIONS for memory of a size that cannot be; SystemError when no device listens
   *   or the host has no such memory; what the driver's probe throws
   */
  static async start(options: EmbeddedGuestOptions, parts: MachineParts = {}): Promise<EmbeddedGuest> {
    const { seed = 1, coverage, poison } = options;
    return EmbeddedGuest.#make(options, parts, {
      create: surroundings =>
        Guest.boot({
          ...surroundings,
          seed,
          ...defined({ coverage, poison }),
        }),
      begin: ({ driver }) => driver.probe(),
    });
  }

  /**
   * The guest that was saved, over the memory that it had, connected to a device that knows nothing of it yet. It
   * stands still until {@link resumeLoaded}.
   * @throws SavedGuestError, DriverStateError and what else says that it was not saved by us
   */
  static async load(
    options: EmbeddedGuestOptions,
    parts: MachineParts,
    saved: SavedGuest,
  ): Promise<EmbeddedGuest> {
    return EmbeddedGuest.#make(options, parts, {
      create: surroundings => Guest.restore(surroundings, saved.guest),
      begin: guest => {
        guest.processor.pause();
        guest.#adoptUsers();
        return guest.driver.load(saved.driver);
      },
    });
  }

  static async #make(
    options: EmbeddedGuestOptions,
    parts: MachineParts,
    {
      create,
      begin,
    }: { create(surroundings: GuestResumeOptions): Guest; begin(guest: EmbeddedGuest): Promise<void> },
  ): Promise<EmbeddedGuest> {
    const machine = await connect(options, parts);
    let guest: EmbeddedGuest | undefined;
    try {
      guest = new EmbeddedGuest(machine, create(surroundingsOf(machine, options, parts)), options);
      await begin(guest);
      return guest;
    } catch (error) {
      await (guest?.close() ?? switchOff(machine));
      throw error;
    }
  }

  /** Those that were told to use memory before the guest was saved. */
  #adoptUsers(): void {
    for (const process of this.guest.kernel.processes) {
      if (process.name.startsWith(`${USER_NAME}[`)) this.users.add(process);
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

  /** Goes on after {@link load}, when the device has got the account of the last one. */
  async resumeLoaded(): Promise<void> {
    await this.driver.run();
    this.processor.resume();
  }

  /**
   * The guest stands still when this resolves: nothing is under way between driver and device, and the rings have
   * stopped. After a failure, {@link resume} lets it go on all the same.
   * @throws DriverStoppedError when its driver does not run
   */
  async pause(): Promise<void> {
    this.processor.pause();
    await this.driver.pause();
    this.#ringsStopped = true;
    await this.transport.pause();
    this.driver.collect();
  }

  /** Goes on after {@link pause}. */
  async resume(): Promise<void> {
    if (this.#ringsStopped) await this.transport.resume();
    this.#ringsStopped = false;
    this.driver.resume();
    this.processor.resume();
  }

  /** The guest and its driver as they stand after {@link pause}. */
  save(): SavedGuest {
    return { guest: this.guest.save(), driver: this.driver.save() };
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
  /** Where another device is found if this one is lost. */
  readonly target: string | undefined;
}

async function connect(options: EmbeddedGuestOptions, parts: MachineParts): Promise<Machine> {
  const target = parts.socket ?? options.socketPath;
  assert(target !== undefined, 'a guest without a device');
  const memory = parts.memory ?? createMemory(options);
  const reactor = new Reactor(parts.wake);
  // Not before the first question is asked: until there is something to wait for, waiting has no end.
  const running = new Promise(resolve => setImmediate(resolve)).then(() => reactor.run());
  try {
    const reconnects = parts.socket === undefined;
    const transport = await VhostUserFrontend.connect(target, { reactor, memory, reconnects });
    return { reactor, running, memory, transport, target: options.socketPath };
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
}: Pick<Machine, 'reactor' | 'running' | 'memory'> & Partial<Machine>): Promise<void> {
  transport?.close();
  reactor.stop();
  await running;
  reactor.close();
  memory.close();
}

function createMemory({
  memoryBytes,
  hugePageSize,
  adviseHugePages = false,
}: EmbeddedGuestOptions): GuestMemory {
  checkSize(memoryBytes, hugePageSize ?? PAGE_SIZE);
  return createSharedMemory({
    regions: [{ guestAddress: 0, size: memoryBytes }],
    adviseHugePages,
    ...defined({ hugePageSize }),
  });
}

/** What booted and restored guests are given alike. */
function surroundingsOf(
  { memory }: Machine,
  { onEvent = () => {} }: EmbeddedGuestOptions,
  { writeLog, pages }: MachineParts,
): GuestResumeOptions {
  return {
    memory,
    clock: { now: monotonicMs },
    ...defined({ writeLog, pages }),
    warn: once(message => onEvent('log', message)),
  };
}

/** Lists of runs ask for the largest blocks anyway; the others take pages one by one unless they are told. */
function wholeHostPages({ hostPageBytes, profile: name }: EmbeddedGuestOptions): Partial<DriverTuning> {
  if (hostPageBytes === undefined || profile(name ?? DEFAULT_PROFILE).format.growsWith === 'runs') return {};
  return { orderMax: Math.log2(hostPageBytes / PAGE_SIZE) };
}

export function checkSize(bytes: number, unit: number): void {
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
