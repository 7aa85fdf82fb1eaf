/**
 * The guest's balloon driver: negotiates, sets its queues up, and gives every page back when it leaves. It drives any
 * device through a `VirtioTransport` and takes pages from any kernel that is a `KernelMemory`; time is its
 * scheduler's. It has no sockets and no threads, and it never blocks: whatever happens (an interrupt, a change of the
 * configuration, a timer, a guest short of memory) ends in a turn of work.
 *
 *     const driver = new BalloonDriver({ kernel, transport, scheduler, profile: profile('virtio') });
 *     await driver.probe();
 *     await driver.settled();      // the host's target is reached, and the host knows
 *     await driver.remove();       // every page is the guest's again
 */
import type { Profile } from '../balloon/profiles.ts';
import { assert } from '../sys/error.ts';
import { hasFeature } from '../virtio/features.ts';
import type { InterruptedQueue } from '../virtio/transport.ts';
import { Balloon } from './balloon.ts';
import type { BalloonDriverOptions, BalloonOptions } from './balloon-options.ts';
import { DriverCounters } from './counters.ts';
import { DriverMemory } from './driver-memory.ts';
import type { DriverRing, RingWorld } from './driver-ring.ts';
import { DriverProbeError, DriverStoppedError } from './errors.ts';
import { clearFormerDriver } from './former-driver.ts';
import { agree, agreeAgain, giveUp, goLive, writePoison } from './handshake.ts';
import { poisonFeature } from './negotiation.ts';
import { checkTuning, DEFAULT_TUNING, type DriverTuning } from './options.ts';
import { featuresWithin } from './queue-parts.ts';
import { findRings, type PlannedRing, plannedRings, setUpRing } from './ring-setup.ts';
import { encodeDriver, readDriver } from './saved-driver.ts';
import { Waiters } from './waiters.ts';

/**
 * `new`: not probed yet. `probing`. `loaded`: saved elsewhere, about to go on here. `running`. `removing`: pages are on
 * their way back. `removed`: all are back. `broken`: the device is gone or broke the protocol; the pages are kept until {@link BalloonDriver.remove}.
 */
export type DriverState = 'new' | 'probing' | 'loaded' | 'running' | 'removing' | 'removed' | 'broken';

/** How long the device may take for what it has when the driver pauses. */
const QUIET_MS_MAX = 5_000;

export class BalloonDriver {
  readonly profile: Profile;
  readonly counters = new DriverCounters();
  readonly #options: BalloonDriverOptions;
  readonly #tuning: DriverTuning;
  readonly #waiters = new Waiters();
  #state: DriverState = 'new';
  #failure: Error | undefined;
  #balloon: Balloon | undefined;
  #memory: DriverMemory | undefined;
  #unsubscribe: (() => void)[] = [];
  /** What {@link #inTurn} is at. */
  #operation: Promise<void> | undefined;

  constructor(options: BalloonDriverOptions) {
    this.profile = options.profile;
    this.#options = options;
    this.#tuning = checkTuning({ ...DEFAULT_TUNING, ...options });
  }

  get state(): DriverState {
    return this.#state;
  }

  /** Why the state is `broken`. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Balloon and ring features that were negotiated; 0 when there is no device. */
  get features(): bigint {
    return this.#balloon?.features ?? 0n;
  }

  /** What the host wishes for, in pages. */
  get targetPages(): number {
    return this.#balloon?.pages.target ?? 0;
  }

  /** Pages whose inflation the host acknowledged and that were not taken back. */
  get actualPages(): number {
    return this.#balloon?.pages.actual ?? 0;
  }

  /** Pages that are the balloon's, those on their way to and from the host included. */
  get heldPages(): number {
    return this.#balloon?.pages.held ?? 0;
  }

  /** Blocks for rings, lists and messages: all of guest memory that driver and device write. */
  get ownBlocks(): readonly { readonly pfn: number; readonly order: number }[] {
    return this.#memory?.blocks ?? [];
  }

  /** Pages for rings, lists and messages. */
  get ownPages(): number {
    return this.#memory?.pages ?? 0;
  }

  /** The guest has no memory to give; the driver tries again after a while, or when the host says something. */
  get backingOff(): boolean {
    return this.#balloon?.backingOff ?? false;
  }

  /** Visits the ballooned blocks, largest first. */
  forEachBlock(visit: (pfn: number, order: number) => void): void {
    this.#balloon?.pages.forEach(visit);
  }

  /**
   * Starts the device (VIRTIO 1.4, 3.1.1); a driver that was removed, or never probed.
   * @throws DriverProbeError when device and driver do not agree, or the guest lacks memory for the driver itself;
   *   what the transport throws when it does not reach the device
   */
  probe(): Promise<void> {
    return this.#inTurn(() => this.#probe());
  }

  async #probe(): Promise<void> {
    if (this.#state !== 'new' && this.#state !== 'removed') {
      throw new DriverProbeError(`it is ${this.#state} already`);
    }
    const { transport, kernel } = this.#options;
    this.#state = 'probing';
    clearFormerDriver(kernel);
    this.#memory = new DriverMemory(kernel);
    try {
      await this.#start(this.#memory);
    } catch (error) {
      // Rings may lie in memory that goes back to the guest: the device must let go of them before.
      await this.#resetDevice();
      this.#detach('new');
      await giveUp(transport);
      throw error;
    }
  }

  async #start(memory: DriverMemory): Promise<void> {
    const { transport, kernel } = this.#options;
    const features = await agree(transport, this.profile, {
      features: this.#tuning.features & featuresWithin(kernel, this.profile),
      ringFeatures: this.#tuning.ringFeatures,
      contentsMatter: kernel.poison !== undefined,
    });
    const world = this.#world(features);
    const rings: DriverRing[] = [];
    for (const place of this.#ringPlaces(features)) rings.push(await setUpRing(place, world, memory));
    this.#balloon = this.#createBalloon({ world, features, rings, memory });
    await this.#run(this.#balloon);
  }

  #world(features: bigint): RingWorld {
    const { kernel, transport, scheduler } = this.#options;
    return { memory: kernel.memory, transport, scheduler, counters: this.counters, features };
  }

  #ringPlaces(features: bigint): PlannedRing[] {
    return plannedRings(this.profile, features, this.#tuning.queueSizeMax);
  }

  #createBalloon(parts: Pick<BalloonOptions, 'world' | 'features' | 'rings' | 'memory' | 'former'>): Balloon {
    return new Balloon({
      ...parts,
      kernel: this.#options.kernel,
      profile: this.profile,
      tuning: this.#tuning,
      onProgress: () => this.#progressed(),
      onBroken: error => this.#broken(error),
    });
  }

  /** The rings are known to the device: the last steps of 3.1.1. */
  async #run(balloon: Balloon): Promise<void> {
    const { transport, kernel } = this.#options;
    if (hasFeature(balloon.features, poisonFeature(this.profile)))
      await writePoison(transport, kernel.poison ?? 0);
    this.#unsubscribe = [
      transport.onInterrupt(queue => this.onInterrupt(queue)),
      transport.onConfigChange(() => this.onConfigChange()),
    ];
    await goLive(transport);
    this.#state = 'running';
    void transport.ended.then(reason => {
      if (this.#balloon === balloon) this.#broken(reason);
    });
    balloon.start();
  }

  /** The device returned buffers. Called by the transport; calling it without need does no harm. */
  onInterrupt(queue: InterruptedQueue): void {
    this.#balloon?.onInterrupt(queue);
  }

  /** The configuration changed. Called by the transport. */
  onConfigChange(): void {
    this.#balloon?.onConfigChange();
  }

  /**
   * The device is gone, and another one is expected to take its place with the same rings, as when a back-end is started
   * anew. Until {@link deviceReplaced} the balloon stands still, but a guest out of memory gets pages back at once.
   * Returns the base of each ring, in vhost-user's terms, at which the next device has to take it up.
   */
  deviceLost(): ReadonlyMap<number, number> {
    const balloon = this.#balloon;
    if (balloon !== undefined && this.#state === 'running') return balloon.deviceLost();
    // Who waits for pages to come back waits for nothing: they are the guest's.
    if (this.#state === 'removing') this.#broken(new DriverStoppedError('its device is gone'));
    return new Map();
  }

  /** A device that knows nothing of the balloon runs the rings: it is told of as many pages as it wants. */
  deviceReplaced(): void {
    if (this.#state === 'running') this.#balloon?.deviceReplaced();
  }

  // From one host to the next with its device: pause, stop the rings, collect, save; there: load, run.

  /**
   * Begins nothing any more, for the guest is about to stand still; settles when the device has returned what it has,
   * but for the buffers that it keeps until its rings stop.
   * @throws DriverStoppedError when the driver does not run, or the device does not return them
   */
  async pause(): Promise<void> {
    this.#runningBalloon().pause();
    const quiet = this.#waiters.until(() => this.#balloon?.quiet === true);
    const late = this.#options.scheduler.schedule(QUIET_MS_MAX, () => {
      quiet.giveUp(new DriverStoppedError('its device does not return what it has'));
    });
    this.#progressed();
    try {
      await quiet.over;
    } finally {
      late.cancel();
    }
  }

  /** The guest has back what it holds for hints, as it will when it is paused. */
  takeHintsBack(): void {
    this.#balloon?.takeHintsBack();
  }

  /**
   * After {@link pause}, and when the device has stopped its rings: takes back what it had kept of the guest's.
   * @throws DriverStoppedError when it still keeps something
   */
  collect(): void {
    if (!this.#runningBalloon().collect())
      throw new DriverStoppedError('its device keeps what it stopped with');
  }

  /** Goes on after {@link pause}; the rings run again. */
  resume(): void {
    if (this.#state === 'running') this.#balloon?.resume();
  }

  /** The driver as it stands after {@link collect}, but for the balloon's pages, which the guest's own books have. */
  save(): Uint8Array {
    const balloon = this.#runningBalloon();
    const { features, rings, hintState } = balloon;
    return encodeDriver({
      profile: this.profile.name,
      features,
      rings: rings.map(({ queue }) => queue.save()),
      allotments: this.#memory?.allotments ?? [],
      hints: hintState,
    });
  }

  /**
   * Takes the place of a driver that was saved, in a guest that was restored; {@link run} lets it go on. The device is
   * asked what it offers, and not told anything yet. Counters begin at 0.
   * @throws DriverStateError, DriverProbeError, VirtqueueError when that cannot be
   */
  async load(saved: Uint8Array): Promise<void> {
    assert(this.#state === 'new', `a driver loaded that is ${this.#state}`);
    const { transport, kernel } = this.#options;
    const { features, rings, allotments, hints } = await readDriver(saved, this.profile, transport);
    const memory = new DriverMemory(kernel, allotments);
    const world = this.#world(features);
    const found = await findRings(this.#ringPlaces(features), rings, world, memory);
    this.#balloon = this.#createBalloon({ world, features, rings: found, memory, former: { hints } });
    memory.requireAllClaimed();
    this.#memory = memory;
    this.#state = 'loaded';
  }

  /** Goes on after {@link load}, on a device that has the account of the last one. */
  async run(done: (step: string) => void = () => {}): Promise<void> {
    const balloon = this.#balloon;
    assert(this.#state === 'loaded' && balloon !== undefined, `a driver run that is ${this.#state}`);
    await agreeAgain(this.#options.transport, balloon.features, balloon.rings);
    done('rings');
    await this.#run(balloon);
    done('driver');
  }

  #runningBalloon(): Balloon {
    const balloon = this.#balloon;
    if (balloon !== undefined && this.#state === 'running' && !balloon.away) return balloon;
    throw this.#failure ?? new DriverStoppedError(`it is ${this.#state}`);
  }

  /** Looks at every queue, for embedders whose device does not interrupt. */
  poll(): void {
    this.#balloon?.poll();
  }

  /**
   * Settles when the newest target that the host has announced is reached and the host knows.
   * @throws DriverStoppedError when that will not be
   */
  settled(): Promise<void> {
    const { over } = this.#waiters.until(() => this.#works && this.#balloon?.settled === true);
    this.#progressed();
    return over;
  }

  /**
   * Takes every page back from the host, resets the device, and gives all memory to the guest. Without a device that
   * answers, the pages come back unasked.
   */
  remove(): Promise<void> {
    return this.#inTurn(() => this.#remove());
  }

  async #remove(): Promise<void> {
    const balloon = this.#balloon;
    if (balloon !== undefined && this.#state === 'running' && !balloon.away) {
      this.#state = 'removing';
      balloon.drain();
      // A device that breaks meanwhile changes nothing of what follows.
      await this.settled().catch(() => {});
    }
    await this.#resetDevice();
    this.#detach('removed');
  }

  /** Resets the device, which returns every page at once, and starts it anew: the balloon is filled again. */
  reset(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#resetDevice();
      this.#detach('removed');
      await this.#probe();
    });
  }

  /** Probing, removing and resetting take turns: each finds the driver, and its memory, as the last one left them. */
  async #inTurn(operate: () => Promise<void>): Promise<void> {
    while (this.#operation !== undefined) await this.#operation;
    const operation = operate();
    this.#operation = operation.catch(() => {});
    try {
      await operation;
    } finally {
      this.#operation = undefined;
    }
  }

  /** No page may go back to the guest while a device may still discard it. */
  async #resetDevice(): Promise<void> {
    if (this.#memory === undefined) return;
    this.#balloon?.stop();
    try {
      await this.#options.transport.reset();
    } catch (error) {
      // A device that cannot be reached does nothing any more either.
      this.#failure ??= error as Error;
    }
  }

  #detach(state: 'new' | 'removed'): void {
    for (const unsubscribe of this.#unsubscribe.splice(0)) unsubscribe();
    this.#balloon?.abandon();
    this.#balloon = undefined;
    this.#memory?.release();
    this.#memory = undefined;
    this.#state = state;
    this.#waiters.dismiss(new DriverStoppedError('it was removed'));
  }

  #broken(error: Error): void {
    this.#balloon?.stop();
    this.#failure = error;
    if (this.#state === 'running') this.#state = 'broken';
    this.#waiters.dismiss(new DriverStoppedError(error.message, { cause: error }));
  }

  /** Pages come and go. */
  get #works(): boolean {
    return this.#state === 'running' || this.#state === 'removing';
  }

  #progressed(): void {
    this.#waiters.look();
    if (this.#waiters.empty || this.#works || this.#state === 'probing') return;
    this.#waiters.dismiss(this.#failure ?? new DriverStoppedError(`it is ${this.#state}`));
  }
}
