/**
 * A machine that can move: one process owns the guest's memory (a memfd), runs the embedded guest in a thread of its own
 * and its balloon device in another, connected by vhost-user over a socket pair. The main thread steers, and touches
 * the memory only through its file.
 *
 *     const vm = await Vm.start({ memoryBytes: 2 ** 30, workloads: [{ kind: 'churn' }] });
 *     await vm.command({ do: 'use', bytes: 2 ** 28 });
 *     await vm.control.change(vm.name, { targetBytes: 2 ** 27 });            // the control of its device, as any guest's
 *
 *     const outgoing = await OutgoingMigration.of(vm, { channel: 'auto' });
 *     const source = new MigrationSource({ ...outgoing.source, id, connector, connections, convergence, clock });
 *     await source.run().finally(() => outgoing.close());     // its ram, dirty, sent: for the senders
 *     await vm.close();
 *
 *     const place = await IncomingVm.open();                      // elsewhere: a DestinationMachine
 *     const destination = new MigrationDestination({ machine: place, ramOf: () => place.ram, … });
 *     await destination.outcome;
 *     place.vm;                                                // the guest goes on
 *
 * A machine moves with its whole state: `machine` (config.ts), `guest`, `driver`, `device`. At a stop nothing is under way
 * between driver and device and the device has discarded all that it owed; what the guest had hinted is free at the
 * destination, and what it had reported is reported there anew.
 */

import type { DeviceGuestStatus } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import type { CommandAnswer } from '../embedded/answers.ts';
import { type CommandName, type CommandOf, type GuestCommand, LOOKS } from '../embedded/commands.ts';
import { checkSize } from '../embedded/machine.ts';
import type { SavedGuest } from '../embedded/options.ts';
import type { DeviceMigration } from '../hosting/device-migration.ts';
import { offeredFeatures } from '../hosting/offered-features.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { SoftwareDirtyLog } from '../migration/dirty-log.ts';
import type { MappedSlots } from '../migration/kernel-dirty-log.ts';
import type { SavedState, SourceMachine } from '../migration/machine.ts';
import { type NoteStep, PauseWatch } from '../migration/pause.ts';
import type { ArrivalState } from '../migration/postcopy-arrival.ts';
import { Ram } from '../migration/ram.ts';
import { deferred } from '../sys/deferred.ts';
import { defined } from '../sys/defined.ts';
import { AerostatError, assert, type ErrorCode } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import { UnixSocket } from '../sys/socket.ts';
import { createSharedMemory } from '../vhost-user/shared-memory.ts';
import type { VmConfig } from './config.ts';
import { VmError } from './errors.ts';
import type { GuestThreadEvent } from './guest-protocol.ts';
import type { LateMemory } from './late-memory.ts';
import { memoryOf, savedStates, statesAhead, statesOf } from './machine-states.ts';
import {
  type BootOptions,
  bootOf,
  configOf,
  DEFAULT_NAME,
  threadPartsOf,
  type VmOptions,
  type VmParts,
  type VmWorld,
} from './options.ts';
import { VmThreads } from './vm-threads.ts';

/** How a machine comes into being. */
interface Beginning {
  readonly config: VmConfig;
  readonly boot: BootOptions;
  readonly targetBytes: number;
  /** A guest that goes on, rather than one that boots. */
  readonly saved: (SavedGuest & { readonly device: Uint8Array }) | undefined;
}

/**
 * `empty`: there is no guest yet. `paused`: the guest stands still. `gone`: it is about to run elsewhere. `ended`: by
 * itself, which {@link Vm.ended} explains.
 */
type VmState = 'empty' | 'running' | 'paused' | 'gone' | 'ended' | 'closed';

export class Vm implements SourceMachine {
  readonly name: string;
  readonly ram: Ram;
  /** Pages that were written: the guest's thread notes its own, this one those of the device. */
  readonly log: SoftwareDirtyLog;
  readonly #end = deferred();
  /** Rejects when a page lost its content, or a thread died; never resolves before {@link close}. */
  readonly ended = this.#end.promise;
  readonly #threads: VmThreads;
  readonly #late: LateMemory | undefined;
  readonly #mapped: Promise<unknown>;
  /** Of a machine that runs before all of its pages have come: what it has not got. */
  arrival: () => ArrivalState | undefined = () => undefined;
  #config: VmConfig | undefined;
  #driverPages: readonly { readonly pfn: number; readonly pages: number }[] = [];
  #state: VmState = 'empty';
  /** While it stands still: until it goes on, or never will. */
  #still = deferred();
  #closing: Promise<void> | undefined;

  private constructor(
    threads: VmThreads,
    { name = DEFAULT_NAME, memory, adviseHugePages, late, log }: VmParts,
  ) {
    this.name = name;
    this.ram = new Ram(memory);
    this.log = new SoftwareDirtyLog(this.ram.slots);
    this.#threads = threads;
    this.#late = late;
    // Marks the rejection as handled; callers may still await it.
    this.ended.catch(() => {});
    const [{ backing, size }] = memory.regions;
    assert(backing.file !== undefined, 'guest memory that is no file');
    const fd = backing.file.fd.duplicate().release();
    // Pages may come while the guest's thread maps it.
    this.#mapped = threads.guest.ask('memory', {
      fd,
      size,
      adviseHugePages,
      log: this.log.words,
      arriving: late?.shared,
    });
    this.#mapped.catch(() => {});
    threads.listener = { news: news => this.#hear(news, log), failed: error => this.#fail(error) };
  }

  /**
   * Boots a guest.
   * @throws AerostatError AEROSTAT_GUEST_OPTIONS for memory of a size that cannot be; SystemError when the host has
   *   no such memory; what the driver's probe throws
   */
  static async start(options: VmOptions): Promise<Vm> {
    const { memoryBytes, hugePageSize, adviseHugePages = false, workloads = [], targetBytes = 0 } = options;
    checkSize(memoryBytes, hugePageSize ?? PAGE_SIZE);
    const memory = createSharedMemory({
      regions: [{ guestAddress: 0, size: memoryBytes }],
      adviseHugePages,
      ...defined({ hugePageSize }),
    });
    let vm: Vm;
    try {
      const threads = options.threads ?? (await VmThreads.open(options.log));
      vm = Vm.on(threads, { ...options, memory, adviseHugePages });
    } catch (error) {
      memory.close();
      throw error;
    }
    try {
      await vm.#begin({ config: configOf(options), boot: bootOf(options), targetBytes, saved: undefined });
      vm.#become('running');
      for (const { kind, bytes } of workloads) {
        await vm.command({ do: 'start', workload: kind, ...defined({ bytes }) });
      }
      return vm;
    } catch (error) {
      await vm.close();
      throw error;
    }
  }

  /** A machine without a guest, on threads without a machine. */
  static on(threads: VmThreads, parts: VmParts): Vm {
    return new Vm(threads, parts);
  }

  /**
   * Makes ready for a machine that still runs elsewhere, and whose states are about these: its device, the connection to that,
   * and a guest that stands by. May be asked again.
   * @throws AerostatError when it cannot be; the machine is to be closed then
   */
  async prepare(states: readonly SavedState[], note: NoteStep = () => {}): Promise<void> {
    this.#expect('empty');
    const { config, guest } = statesAhead(states, this.#config);
    const watch = new PauseWatch({ nowMs: monotonicMs });
    const socketFd = this.#config === undefined ? await this.#openDevice(config, 0) : null;
    watch.done('prepare/open');
    const asked = { socketFd, ...threadPartsOf(config, {}), guest };
    const spent = await this.#threads.guest.ask('prepare', asked);
    watch.done('prepare/thread');
    if (socketFd !== null) await this.deviceMigration.mapMemory(this.name);
    watch.done('prepare/device');
    for (const { step, ms } of [...watch.steps, ...spent]) note(step, ms);
  }

  /**
   * Becomes the machine that was saved, whose memory is here already. It stands still until {@link resumeLoaded}. The states
   * are its own from then on.
   * @throws AerostatError when it cannot be; the machine is to be closed then
   */
  async load(states: readonly SavedState[], note: NoteStep = () => {}): Promise<void> {
    this.#expect('empty');
    const { config, ...saved } = statesOf(states, this.#config);
    await this.#begin({ config, boot: {}, targetBytes: 0, saved }, note);
    this.#become('paused');
  }

  async #begin({ config, boot, targetBytes, saved }: Beginning, note: NoteStep = () => {}): Promise<void> {
    const watch = new PauseWatch({ nowMs: monotonicMs });
    const socketFd = this.#config === undefined ? await this.#openDevice(config, targetBytes) : null;
    watch.done('load/open');
    const asked = {
      socketFd,
      ...threadPartsOf(config, boot),
      saved: saved === undefined ? null : { guest: saved.guest, driver: saved.driver },
    };
    const begun = this.#threads.guest.ask('begin', asked, memoryOf(saved?.guest));
    // The device has what it needs as soon as the guest's front-end has handed the memory over.
    const loaded = saved === undefined ? undefined : this.deviceMigration.load(this.name, saved.device);
    // A guest that did not begin is why its device did not load.
    loaded?.catch(() => {});
    for (const { step, ms } of await begun) note(step, ms);
    watch.done('load/thread');
    await loaded;
    watch.done('load/device');
    for (const { step, ms } of watch.steps) note(step, ms);
  }

  /** Makes its device; returns the end of the connection to it that is the guest's. */
  async #openDevice(config: VmConfig, targetBytes: number): Promise<number> {
    // Refused before there is anything to be closed again.
    offeredFeatures(config.profile, config.without);
    this.#config = config;
    const [device, socket] = UnixSocket.pair();
    const { profile, discard, without } = config;
    const options = { name: this.name, targetBytes, profile, discard, without, pollIntervalMs: 0 };
    const arriving = defined({ arriving: this.#late?.shared });
    const socketOfDevice = { fd: device.fd.release(), listening: false };
    await this.#threads.hosting.open({ ...options, ...arriving }, socketOfDevice);
    await this.#mapped;
    return socket.fd.release();
  }

  /** What it is, once it is there. */
  get config(): VmConfig {
    if (this.#config === undefined) throw new VmError(`${this.name} is empty`);
    return this.#config;
  }

  get state(): VmState {
    return this.#state;
  }

  get memoryBytes(): number {
    return this.ram.slots * PAGE_SIZE;
  }

  /** Steers the device, as any guest's: target, statistics, hints, a map of the memory. */
  get control(): Control<DeviceGuestStatus> {
    return this.#threads.hosting.control;
  }

  /** What a migration asks of the device. */
  get deviceMigration(): DeviceMigration {
    return this.#threads.hosting.deviceMigration;
  }

  /**
   * Tells the guest to do something; one that stands still does it when it goes on. What is under way when the machine
   * leaves goes on there as far as it is in the guest's books, and is never answered here.
   * @throws VmError when it is not here; AerostatError with the guest's own code when the guest cannot do it
   */
  async command<Name extends CommandName>(command: CommandOf<Name>): Promise<CommandAnswer<Name>> {
    if (this.#state !== 'paused' || !LOOKS.has(command.do)) await this.awake();
    const asked = this.#threads.guest.ask('command', { command: command as GuestCommand });
    return asked as Promise<CommandAnswer<Name>>;
  }

  /**
   * Resolves when it runs: a machine that stands still may be on its way elsewhere, as it was when it was saved.
   * @throws VmError when it does not run here any more
   */
  async awake(): Promise<void> {
    while (this.#state === 'paused') await this.#still.promise;
    if (this.#state !== 'running') throw new VmError(`${this.name} is ${this.#state}`);
  }

  /** Where the guest's stores go, for a log that the kernel keeps. */
  mappings(): Promise<readonly MappedSlots[]> {
    return this.#threads.guest.ask('mappings', null);
  }

  /** The guest will soon be asked to stand still and be saved. */
  async warmUpSaving(): Promise<void> {
    await this.#threads.guest.ask('warmUp', null);
  }

  // SourceMachine -------------------------------------------------------------------------------------------

  /**
   * Nothing runs, all is in memory and in the log when this resolves, and nothing is discarded any more.
   * @throws AerostatError AEROSTAT_DRIVER_STOPPED when the guest's driver does not run
   */
  async stop(note: NoteStep = () => {}): Promise<void> {
    this.#expect('running');
    this.#become('paused');
    const { driverPages, spent } = await this.#threads.guest.ask('pause', null);
    // The device writes into rings and requests, which are the driver's pages, and keeps no log of it.
    this.#driverPages = driverPages;
    for (const { pfn, pages } of driverPages) this.log.add(pfn, pages);
    for (const { step, ms } of spent) note(step, ms);
  }

  async resume(): Promise<void> {
    if (this.#state !== 'paused' && this.#state !== 'gone') return;
    await this.#threads.guest.ask('resume', null);
    this.#become('running');
  }

  async throttle(share: number): Promise<void> {
    await this.#threads.guest.ask('throttle', { share });
  }

  async save(note: NoteStep = () => {}): Promise<readonly SavedState[]> {
    this.#expect('paused');
    const [{ guest, driver, spent }, device] = await Promise.all([
      this.#threads.guest.ask('save', null),
      this.deviceMigration.save(this.name),
    ]);
    for (const { step, ms } of spent) note(step, ms);
    return savedStates(this.config, { guest, driver, device });
  }

  async saveAhead(): Promise<readonly SavedState[]> {
    const guest = await this.#threads.guest.ask('saveAhead', null);
    return savedStates(this.config, { guest });
  }

  async expectedStopMs(): Promise<number> {
    return (await this.#threads.pace.expected(this.name)).stopMs;
  }

  /** How long {@link resumeLoaded} would take now, as far as that can be measured before there is a guest. */
  async expectedRunMs(): Promise<number | undefined> {
    return (await this.#threads.pace.expected(this.name)).runMs;
  }

  /** What the device and the driver look at when they are loaded. */
  forEachVitalPage(visit: (pfn: number, count: number) => void): void {
    for (const { pfn, pages } of this.#driverPages) visit(pfn, pages);
  }

  async handOver(): Promise<void> {
    this.#expect('paused');
    this.#become('gone');
  }

  /** Lets a machine run that was saved elsewhere. */
  async resumeLoaded(note: NoteStep = () => {}): Promise<void> {
    this.#expect('paused');
    for (const { step, ms } of await this.#threads.guest.ask('resumeLoaded', null)) note(step, ms);
    this.#become('running');
  }

  /** Switches the machine off; its memory is gone when this resolves. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#become('closed');
    // A thread that waits for a page does not end.
    await this.#late?.close();
    await this.#threads.close();
    this.ram.memory.close();
    this.#end.resolve();
  }

  /** Frees the threads for another machine, and leaves the memory to the caller. */
  async leave(): Promise<void> {
    this.#become('closed');
    this.#closing = Promise.resolve();
    await this.#threads.clear(this.name);
    this.#end.resolve();
  }

  #hear(news: GuestThreadEvent, log: VmWorld['log']): void {
    if (news.kind === 'ended') this.#fail(new AerostatError(news.code as ErrorCode, news.message));
    else log?.({ level: 'info', message: news.message, guest: this.name });
  }

  #fail(error: Error): void {
    if (this.#state !== 'closed') this.#become('ended');
    this.#end.reject(error);
  }

  #become(state: VmState): void {
    this.#state = state;
    this.#still.resolve();
    if (state === 'paused') this.#still = deferred();
  }

  #expect(state: VmState): void {
    if (this.#state !== state)
      throw new VmError(`${this.name} is ${this.#state}, and has to be ${state} for that`);
  }
}
