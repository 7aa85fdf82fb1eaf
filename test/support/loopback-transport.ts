/**
 * A balloon device in the same process as its driver, behind the transport's interface: kicks call the device
 * directly, and the memory is one. `immediate` devices answer within the kick, as a device in the driver's own thread
 * does; `deferred` ones do nothing until they are told to, so that a test can look at everything that is under way.
 */

import type { Profile } from '../../src/balloon/profiles.ts';
import { BalloonDevice } from '../../src/device/balloon-device.ts';
import type { DeviceHost } from '../../src/device/device-host.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { PFN_LIMIT } from '../../src/memory/page.ts';
import { PageSet } from '../../src/memory/page-set.ts';
import { processClock } from '../../src/sys/monotonic.ts';
import { createDeviceQueue } from '../../src/virtio/create.ts';
import { IN_ORDER, RING_FEATURES, VERSION_1 } from '../../src/virtio/features.ts';
import type { QueueConfig, QueueState } from '../../src/virtio/queue.ts';
import { DEVICE_STATUS, type InterruptedQueue, type VirtioTransport } from '../../src/virtio/transport.ts';
import { stateFromVringBase } from '../../src/virtio/vring-base.ts';

export type LoopbackMode = 'immediate' | 'deferred';

export interface LoopbackOptions {
  readonly profile: Profile;
  readonly memory: GuestMemory;
  readonly mode?: LoopbackMode;
  /** Balloon features that are offered; all of the profile's unless said otherwise. */
  readonly features?: bigint;
  readonly ringFeatures?: bigint;
  readonly queueSizeMax?: number;
}

export class LoopbackTransport implements VirtioTransport {
  readonly description = 'a device in this process';
  readonly ended: Promise<Error>;
  /** The device; another one after {@link replaceDevice}. */
  device: BalloonDevice;
  /** What the guest said it does not use. */
  readonly unusedPages = new PageSet(PFN_LIMIT);
  /** What went wrong on the device's side, in words. */
  readonly complaints: string[] = [];
  /** Everything that a driver did to the device that is not about buffers, in order. */
  readonly log: string[] = [];
  /** Every byte string that was written into the configuration. */
  readonly writes: { offset: number; value: number }[] = [];
  mode: LoopbackMode;
  /** Devices that took the place of one that was lost. */
  replacements = 0;
  /** Status that the device answers with FEATURES_OK missing. */
  refusesFeatures = false;
  readonly #profile: Profile;
  readonly #memory: GuestMemory;
  readonly #offered: bigint;
  readonly #queueSizeMax: number;
  readonly #configs = new Map<number, QueueConfig>();
  /** Where rings go on that another device has run. */
  readonly #bases = new Map<number, number>();
  readonly #kicked = new Set<number>();
  readonly #interruptListeners = new Set<(queue: InterruptedQueue) => void>();
  readonly #configListeners = new Set<() => void>();
  readonly #interrupted = new Set<number>();
  #configNotices = 0;
  #status = 0;
  #end: (reason: Error) => void = () => {};
  #endedWith: Error | undefined;

  constructor(options: LoopbackOptions) {
    const { profile, memory, mode = 'immediate', features = profile.featureMask } = options;
    this.mode = mode;
    this.#profile = profile;
    this.#memory = memory;
    // The device keeps the guest's buffer for requests while answers come and go.
    const inOrder = profile.freePages.kind === 'request' ? 0n : IN_ORDER;
    this.#offered = features | VERSION_1 | (options.ringFeatures ?? (RING_FEATURES & ~IN_ORDER) | inOrder);
    this.#queueSizeMax = options.queueSizeMax ?? 256;
    this.ended = new Promise(resolve => {
      this.#end = resolve;
    });
    this.device = this.#newDevice(features);
  }

  /** Rings that were kicked and not served yet. */
  get kicked(): readonly number[] {
    return [...this.#kicked];
  }

  /** Serves what was kicked, tells the driver, and goes on until neither has anything to say. Returns turns served. */
  run(): number {
    let turns = 0;
    while (this.serve() || this.deliver()) turns++;
    return turns;
  }

  /** Serves the rings that were kicked; false when none was. */
  serve(index?: number): boolean {
    const kicked = index === undefined ? [...this.#kicked] : [index].filter(one => this.#kicked.has(one));
    for (const one of kicked) {
      this.#kicked.delete(one);
      this.#serve(one);
    }
    return kicked.length > 0;
  }

  /** Delivers interrupts and notices of a changed configuration; false when there are none. */
  deliver(): boolean {
    const queues = [...this.#interrupted];
    const notices = this.#configNotices;
    this.#interrupted.clear();
    this.#configNotices = 0;
    if (notices > 0) for (const listener of this.#configListeners) listener();
    for (const queue of queues) for (const listener of this.#interruptListeners) listener(queue);
    return notices > 0 || queues.length > 0;
  }

  /** The connection breaks: nothing is answered any more, and the device forgets what it had. */
  breakOff(reason = new Error('the device is gone')): void {
    this.#endedWith = reason;
    for (const index of this.#configs.keys()) this.device.stopQueue(index, 'abandoned');
    this.#end(reason);
  }

  /** The device dies, with all that it knew; {@link replaceDevice} follows. What it is asked meanwhile fails. */
  loseDevice(): void {
    this.#endedWith = new Error('the device is lost');
    this.#kicked.clear();
    this.#interrupted.clear();
    this.#configNotices = 0;
  }

  /** Stops all rings in order, as before a guest goes on elsewhere. */
  stopRings(): void {
    this.#kicked.clear();
    for (const index of this.#configs.keys()) this.device.stopQueue(index, 'paused');
  }

  /** A device that knows nothing takes the rings up where `bases` say, and wishes for the same target. */
  replaceDevice(bases: ReadonlyMap<number, number>): void {
    const { targetPages, features, driverFeatures } = this.device;
    this.#endedWith = undefined;
    this.replacements++;
    this.device = this.#newDevice(features);
    this.device.targetPages = targetPages;
    this.device.setFeatures(driverFeatures);
    for (const [index, config] of this.#configs) {
      this.#startQueue(index, config, stateFromVringBase(this.#memory, config, bases.get(index) ?? 0));
      this.kick(index);
    }
  }

  #newDevice(features: bigint): BalloonDevice {
    const { unusedPages } = this;
    const device = new BalloonDevice({
      profile: this.#profile,
      features,
      host: this.#host(),
      clock: processClock,
      unusedPages,
    });
    for (const region of this.#memory.regions) device.regionAdded(region);
    return device;
  }

  #startQueue(index: number, config: QueueConfig, state?: QueueState): void {
    const queue = createDeviceQueue(config, state);
    queue.validate(this.#memory);
    this.device.startQueue(index, queue, this.#memory, {
      interrupt: () => this.#interrupt(index),
      fail: error => {
        this.complaints.push(`ring ${index}: ${error.message}`);
        this.device.stopQueue(index, 'abandoned');
      },
    });
  }

  reset(): Promise<void> {
    return this.#do('reset', () => {
      this.device.reset();
      this.#configs.clear();
      this.#bases.clear();
      this.#kicked.clear();
      this.#interrupted.clear();
      this.#status = 0;
    });
  }

  readStatus(): Promise<number> {
    return this.#do('', () => this.#status);
  }

  writeStatus(status: number): Promise<void> {
    return this.#do(`status ${status}`, () => {
      this.#status = this.refusesFeatures ? status & ~DEVICE_STATUS.FEATURES_OK : status;
      if ((status & DEVICE_STATUS.DRIVER_OK) === 0) return;
      for (const [index, config] of this.#configs) {
        const base = this.#bases.get(index);
        const state = base === undefined ? undefined : stateFromVringBase(this.#memory, config, base);
        this.#startQueue(index, config, state);
      }
    });
  }

  getFeatures(): Promise<bigint> {
    return this.#do('', () => this.#offered);
  }

  setFeatures(features: bigint): Promise<void> {
    return this.#do('features', () => this.device.setFeatures(features));
  }

  queueSizeMax(index: number): Promise<number> {
    return this.#do('', () => (index < this.device.queueCount ? this.#queueSizeMax : 0));
  }

  enableQueue(index: number, config: QueueConfig, base?: number): Promise<void> {
    return this.#do(`queue ${index}`, () => {
      this.#configs.set(index, config);
      if (base !== undefined) this.#bases.set(index, base);
    });
  }

  kick(index: number): void {
    if (this.#endedWith !== undefined) return;
    if (this.mode === 'deferred') this.#kicked.add(index);
    else this.#serve(index);
  }

  readConfig(offset: number, length: number): Promise<Uint8Array> {
    return this.#do('', () => {
      const bytes = new Uint8Array(length);
      this.device.readConfig(offset, bytes);
      return bytes;
    });
  }

  writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    return this.#do(`write ${offset}`, () => {
      const value = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
      this.writes.push({ offset, value });
      this.device.writeConfig(offset, bytes);
    });
  }

  onInterrupt(listener: (queue: InterruptedQueue) => void): () => void {
    this.#interruptListeners.add(listener);
    return () => this.#interruptListeners.delete(listener);
  }

  onConfigChange(listener: () => void): () => void {
    this.#configListeners.add(listener);
    return () => this.#configListeners.delete(listener);
  }

  close(): void {
    this.breakOff(new Error('closed'));
  }

  #serve(index: number): void {
    while (this.#endedWith === undefined && this.device.serveQueue(index)) {
      // There is more than one turn's share.
    }
  }

  #interrupt(index: number): void {
    if (this.mode === 'deferred') {
      this.#interrupted.add(index);
      return;
    }
    for (const listener of this.#interruptListeners) listener(index);
  }

  #configChanged(): void {
    if (this.mode === 'deferred') {
      this.#configNotices++;
      return;
    }
    for (const listener of this.#configListeners) listener();
  }

  async #do<T>(entry: string, action: () => T): Promise<T> {
    if (this.#endedWith !== undefined) throw this.#endedWith;
    if (entry !== '') this.log.push(entry);
    return action();
  }

  #host(): DeviceHost {
    return {
      configChanged: () => this.#configChanged(),
      accountOpened: () => {},
      pendingMarked: () => {},
      badInput: reason => this.complaints.push(reason),
      discardFailed: error => this.complaints.push(error.message),
      actualChanged: () => {},
      statisticsArrived: () => {},
      hintChanged: () => {},
      requestAnswered: () => {},
    };
  }
}
