/**
 * vhost-user as a simulation sees it: messages that arrive one by one in their order, doorbells that are rung some time
 * and heard some other time, and a back-end that can vanish at any moment and come back knowing nothing. Nothing moves
 * unless the simulation says so.
 */
import type { BalloonDevice } from '../device/balloon-device.ts';
import { loadDevice, saveForSuccessor } from '../device/saved-device.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { AerostatError } from '../sys/error.ts';
import { closeAll } from '../sys/fd.ts';
import { Listeners } from '../sys/listeners.ts';
import { initialState, type QueueConfig } from '../virtio/queue.ts';
import { DEVICE_STATUS, type InterruptedQueue, type VirtioTransport } from '../virtio/transport.ts';
import { stateToVringBase } from '../virtio/vring-base.ts';
import { SimBackend } from './sim-backend.ts';
import { HostDeath } from './sim-backing.ts';

const { FEATURES_OK } = DEVICE_STATUS;

/** The other end: a host that may not be there. */
interface SimHostSide {
  /** What is offered, of the balloon and of the rings. */
  readonly offered: bigint;
  readonly queueSizeMax: number;
  /** The device of the back-end that runs. */
  readonly device: BalloonDevice;
  /** Returns when the device has nothing under way. */
  settle(): void;
  /** A new back-end; false when none can be started now. */
  start(): boolean;
  /** True as often as false: which of two ways a front-end goes. */
  readonly coin: boolean;
  complain(what: string): void;
}

interface Message {
  readonly name: string;
  readonly act: () => unknown;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

class LostError extends AerostatError {
  constructor(what: string) {
    super('AEROSTAT_SIM_LOST', `the simulated connection is lost: ${what}`);
  }
}

export class SimTransport implements VirtioTransport {
  readonly description = 'a simulated device';
  /** Never settles: its user reconnects. */
  readonly ended = new Promise<Error>(() => {});
  connected = false;
  readonly #host: SimHostSide;
  readonly #memory: GuestMemory;
  readonly #messages: Message[] = [];
  readonly #rings = new Map<number, QueueConfig>();
  readonly #kicked = new Set<number>();
  readonly #neglected = new Set<number>();
  readonly #interrupted = new Set<number>();
  readonly #interruptListeners = new Listeners<[queue: InterruptedQueue]>();
  readonly #configListeners = new Listeners<[]>();
  readonly #disconnectListeners = new Listeners<[reason: Error]>();
  #notices = 0;
  /** Until the next ring starts, the front-end announces no reset of the driver's. */
  silent = false;
  /** A driver ended without a word, and no ring has started since: the device has still its account. */
  undecided = false;
  #backend: SimBackend | undefined;
  #features: bigint | undefined;
  #status = 0;
  readonly #configWrites = new Map<number, Uint8Array>();

  constructor(memory: GuestMemory, host: SimHostSide) {
    this.#memory = memory;
    this.#host = host;
  }

  // What the simulation does -----------------------------------------------------------------------------

  /** Name of the message that arrives next. */
  get nextMessage(): string | undefined {
    return this.#messages[0]?.name;
  }

  /** Rings that were kicked and not served since, but for those that the device neglects. */
  get kicked(): readonly number[] {
    return this.connected ? [...this.#kicked].filter(index => !this.#neglected.has(index)) : [];
  }

  /** The device has no time for ring `index` until {@link attend}. */
  neglect(index: number): void {
    this.#neglected.add(index);
  }

  attend(): void {
    this.#neglected.clear();
  }

  get interrupted(): readonly number[] {
    return [...this.#interrupted];
  }

  get notices(): number {
    return this.#notices;
  }

  /** Numbers of the rings that are set up. */
  get rings(): readonly number[] {
    return [...this.#rings.keys()];
  }

  /** Delivers the oldest message. @throws HostDeath when the host does not survive it */
  deliverMessage(): void {
    const message = this.#messages.shift();
    if (message === undefined) return;
    try {
      message.resolve(message.act());
    } catch (error) {
      message.reject(error as Error);
      if (error instanceof HostDeath) throw error;
      // A front-end that is refused is a mistake of ours.
      this.#host.complain(`${message.name}: ${(error as Error).message}`);
    }
  }

  /** The device hears the kick of ring `index`; of a false kick, too. */
  serve(index: number): void {
    this.#kicked.delete(index);
    if (this.connected && this.#host.device.serveQueue(index)) this.#kicked.add(index);
  }

  /** The driver hears an interrupt; of a false one, too. */
  interrupt(queue: InterruptedQueue): void {
    if (queue === null) this.#interrupted.clear();
    else this.#interrupted.delete(queue);
    this.#interruptListeners.emit(queue);
  }

  /** The driver hears that the configuration changed, be it true or not. */
  notice(): void {
    this.#notices = Math.max(0, this.#notices - 1);
    this.#configListeners.emit();
  }

  /** The device changed its configuration. */
  configChanged(): void {
    if (this.connected) this.#notices++;
  }

  /** The back-end is gone, and what was on its way to it. Doorbells that it rang are still heard. */
  lose(why: string): void {
    if (!this.connected) return;
    this.connected = false;
    this.undecided = false;
    this.#backend?.close();
    this.#backend = undefined;
    this.#notices = 0;
    const error = new LostError(why);
    for (const { reject } of this.#messages.splice(0)) reject(error);
    this.#disconnectListeners.emit(error);
  }

  // What the driver does ---------------------------------------------------------------------------------

  async reset(): Promise<void> {
    try {
      await this.#send('reset', () => this.#resetDevice());
    } catch (error) {
      // One that is gone is as good as reset.
      if (this.connected) throw error;
    }
    this.#forget();
  }

  async readStatus(): Promise<number> {
    return this.#send('read status', () => this.#status);
  }

  async writeStatus(status: number): Promise<void> {
    if (status === 0) return this.reset();
    await this.#send(`status ${status}`, () => {});
    this.#status = status;
  }

  async getFeatures(): Promise<bigint> {
    return this.#send('get features', () => this.#host.offered);
  }

  async setFeatures(features: bigint): Promise<void> {
    await this.#send('set features', () => this.#backend?.setFeatures(features));
    this.#features = features;
  }

  async queueSizeMax(index: number): Promise<number> {
    const { device, queueSizeMax } = this.#host;
    return this.#send('queue size', () => (index < device.queueCount ? queueSizeMax : 0));
  }

  async enableQueue(index: number, config: QueueConfig): Promise<void> {
    this.#rings.set(index, config);
    await this.#send(`ring ${index}`, () => this.#startRing(index, config, undefined));
  }

  kick(index: number): void {
    this.#kicked.add(index);
  }

  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    return this.#send('read config', () => {
      const bytes = new Uint8Array(length);
      this.#host.device.readConfig(offset, bytes);
      return bytes;
    });
  }

  async writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    const sent = bytes.slice();
    this.#configWrites.set(offset, sent);
    await this.#send('write config', () => this.#backend?.writeConfig(offset, sent));
  }

  onInterrupt(listener: (queue: InterruptedQueue) => void): () => void {
    return this.#interruptListeners.add(listener);
  }

  onConfigChange(listener: () => void): () => void {
    return this.#configListeners.add(listener);
  }

  onDisconnect(listener: (reason: Error) => void): () => void {
    return this.#disconnectListeners.add(listener);
  }

  /** A back-end is looked for, and gets what the last one knew of the front-end. */
  async reconnect(_target: string, bases: ReadonlyMap<number, number>): Promise<void> {
    if (!this.#host.start()) throw new LostError('no back-end listens');
    this.connected = true;
    this.#backend = SimBackend.begin(this.#host.device, this.#memory, this.#world);
    await this.#send('connect', () => {});
    const features = this.#features;
    if (features !== undefined) await this.#send('set features', () => this.#backend?.setFeatures(features));
    for (const [offset, bytes] of [...this.#configWrites]) await this.writeConfig(offset, bytes);
    for (const [index, config] of this.#rings) {
      await this.#send(`ring ${index}`, () => this.#startRing(index, config, bases.get(index)));
    }
    if ((this.#status & FEATURES_OK) !== 0) await this.#send(`status ${this.#status}`, () => {});
    for (const index of this.#rings.keys()) {
      this.kick(index);
      this.interrupt(index);
    }
    this.#configListeners.emit();
  }

  get #world(): ConstructorParameters<typeof SimBackend>[2] {
    return {
      offered: this.#host.offered,
      interrupted: index => this.#interrupted.add(index),
      kicked: index => this.#kicked.add(index),
      complain: what => this.#host.complain(what),
      settle: () => this.#host.settle(),
    };
  }

  /**
   * The back-end hands its guest to a successor, which the front-end does not notice: rings stand still, session and device
   * are saved to bytes, and another device and another session go on with them. `successor` makes the device.
   */
  handOver(successor: () => BalloonDevice): void {
    const former = this.#backend;
    if (former === undefined) return;
    this.#host.settle();
    former.suspend();
    this.#host.settle();
    const device = saveForSuccessor(former.device);
    const session = former.save();
    former.close();
    try {
      // What the former one was still discarding is over before a successor acknowledges anything.
      this.#host.settle();
    } catch (error) {
      closeAll(session.fds);
      throw error;
    }
    this.#backend = new SimBackend(successor(), this.#memory, this.#world);
    this.#backend.load(session);
    loadDevice(this.#backend.device, device);
    this.#host.settle();
    this.#backend.resume();
    // The configuration may show something else than before.
    this.configChanged();
  }

  close(): void {
    this.#backend?.close();
    this.#backend = undefined;
  }

  #startRing(index: number, config: QueueConfig, base: number | undefined): void {
    this.silent = false;
    this.undecided = false;
    const { features } = config;
    this.#backend?.startRing(index, config, base ?? stateToVringBase(features, initialState(features)));
  }

  /** Rings are disabled or stopped first, by chance; one that is silent says no more than that. */
  #resetDevice(): void {
    const { coin } = this.#host;
    for (const index of this.#rings.keys()) {
      if (this.silent || coin) this.#backend?.enable(index, false);
      if (coin) this.#backend?.stopRing(index);
    }
    if (this.silent) this.undecided = true;
    else this.#backend?.reset();
  }

  #forget(): void {
    this.#rings.clear();
    this.#kicked.clear();
    this.#interrupted.clear();
    this.#features = undefined;
    this.#status = 0;
    this.#configWrites.clear();
  }

  #send<T>(name: string, act: () => T): Promise<T> {
    if (!this.connected) return Promise.reject(new LostError(`${name} reaches no back-end`));
    return new Promise((resolve, reject) => {
      this.#messages.push({ name, act, resolve: resolve as (value: unknown) => void, reject });
    });
  }
}
