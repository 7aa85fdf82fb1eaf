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
import { GuestKernel } from '../guest/kernel.ts';
import type { KernelCore } from '../guest/kernel-core.ts';
import type { GuestResumeOptions } from '../guest/kernel-options.ts';
import type { Process } from '../guest/process.ts';
import type { Workload, WorkloadKind } from '../guest/workloads/workload.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { defined } from '../sys/defined.ts';
import { AerostatError } from '../sys/error.ts';
import { monotonicMs, type Reactor } from '../sys/poll.ts';
import type { VhostUserFrontend } from '../vhost-user/frontend-session.ts';
import { RING_PACKED } from '../virtio/features.ts';
import { CommandError } from './commands.ts';
import { DeviceConnection } from './connection.ts';
import { connectMachine, type EmbeddedMachine, surroundingsOf, switchOff } from './machine.ts';
import type { EmbeddedGuestOptions, MachineParts, SavedGuest } from './options.ts';
import { Processor } from './processor.ts';
import type { StandbyMachine } from './standby-machine.ts';
import { USER_NAME } from './tasks.ts';
import { Wants } from './wants.ts';

interface Making {
  create(surroundings: GuestResumeOptions): Guest<KernelCore>;
  begin(guest: EmbeddedGuest): Promise<void>;
  /** One that is there already. */
  readonly machine?: EmbeddedMachine;
}

/** Hears of each step that is over, for who measures where the time goes. */
type StepDone = (step: string) => void;

export class EmbeddedGuest {
  readonly guest: Guest<KernelCore>;
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
  readonly #machine: EmbeddedMachine;
  #end: (failure?: unknown) => void = () => {};
  #closing = false;
  #ringsStopped = false;

  private constructor(machine: EmbeddedMachine, guest: Guest<KernelCore>, options: EmbeddedGuestOptions) {
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
    const { seed = 1, coverage, poison, lends = false } = options;
    if (lends && poison !== undefined)
      throw new AerostatError(
        'AEROSTAT_GUEST_OPTIONS',
        'what the host takes reads as zeros: it has no poison',
      );
    return EmbeddedGuest.#make(options, parts, {
      create: surroundings => {
        const all = { ...surroundings, seed, ...defined({ coverage }) };
        return lends ? Guest.bootShared(all) : Guest.boot({ ...all, ...defined({ poison }) });
      },
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
    { standby, done = () => {} }: { readonly standby?: StandbyMachine; readonly done?: StepDone } = {},
  ): Promise<EmbeddedGuest> {
    return EmbeddedGuest.#make(options, parts, {
      ...defined({ machine: standby?.machine }),
      create: surroundings => {
        done('connect');
        const guest = standby?.guest(saved.guest) ?? Guest.restore(surroundings, saved.guest);
        done('guest');
        return guest;
      },
      begin: async guest => {
        guest.processor.pause();
        guest.#adoptUsers();
        await guest.driver.load(saved.driver);
        done('driver');
      },
    });
  }

  static async #make(
    options: EmbeddedGuestOptions,
    parts: MachineParts,
    making: Making,
  ): Promise<EmbeddedGuest> {
    return EmbeddedGuest.#on(
      making.machine ?? (await connectMachine(options, parts)),
      options,
      parts,
      making,
    );
  }

  static async #on(
    machine: EmbeddedMachine,
    options: EmbeddedGuestOptions,
    parts: MachineParts,
    { create, begin }: Making,
  ): Promise<EmbeddedGuest> {
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

  get kernel(): KernelCore {
    return this.guest.kernel;
  }

  /** The guest, if its pages can be moved and saved. @throws CommandError where it lends its allocator */
  get movable(): Guest {
    if (isMovable(this.guest)) return this.guest;
    throw new CommandError('a guest that lends its allocator cannot be aged, compacted or saved');
  }

  /** Starts a workload of about `bytes`, a quarter of memory unless said otherwise. */
  startWorkload(kind: WorkloadKind, bytes = this.memory.size / 4): Workload {
    const workload = this.guest.start(workloadSpec(kind, Math.max(1, Math.floor(bytes / PAGE_SIZE))));
    this.processor.wake();
    return workload;
  }

  /** Goes on after {@link load}, when the device has got the account of the last one. */
  async resumeLoaded(done: StepDone = () => {}): Promise<void> {
    await this.driver.run(done);
    this.processor.resume();
    done('guest');
  }

  /**
   * The guest stands still when this resolves: nothing is under way between driver and device, and the rings have
   * stopped. After a failure, {@link resume} lets it go on all the same.
   * @throws DriverStoppedError when its driver does not run
   */
  async pause(done: StepDone = () => {}): Promise<void> {
    this.processor.pause();
    await this.driver.pause();
    done('driver');
    this.#ringsStopped = true;
    await this.transport.pause();
    this.driver.collect();
    done('rings');
  }

  /** Goes on after {@link pause}. */
  async resume(): Promise<void> {
    if (this.#ringsStopped) await this.transport.resume();
    this.#ringsStopped = false;
    this.driver.resume();
    this.processor.resume();
  }

  /** The guest as it runs, and about as it will be when it is paused: without blocks that are held for hints. */
  saveAhead(): Uint8Array {
    this.driver.takeHintsBack();
    return this.movable.save();
  }

  /** The guest and its driver as they stand after {@link pause}. */
  save(done: StepDone = () => {}): SavedGuest {
    const guest = this.movable.save();
    done('guest');
    const driver = this.driver.save();
    done('driver');
    return { guest, driver };
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

const isMovable = (guest: Guest<KernelCore>): guest is Guest => guest.kernel instanceof GuestKernel;

/** Lists of runs ask for the largest blocks anyway; the others take pages one by one unless they are told. */
function wholeHostPages({ hostPageBytes, profile: name }: EmbeddedGuestOptions): Partial<DriverTuning> {
  if (hostPageBytes === undefined || profile(name ?? DEFAULT_PROFILE).format.growsWith === 'runs') return {};
  return { orderMax: Math.log2(hostPageBytes / PAGE_SIZE) };
}

/** Compilers that a build runs at once. */
const BUILD_JOBS = 4;

function workloadSpec(kind: WorkloadKind, pages: number): WorkloadSpec {
  if (kind !== 'build') return { kind, pages };
  return { kind, jobs: BUILD_JOBS, workingPages: Math.max(16, Math.floor(pages / BUILD_JOBS)) };
}
