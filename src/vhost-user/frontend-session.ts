/**
 * The front-end's side of a vhost-user conversation, as a transport for a driver: it negotiates, hands over
 * guest memory, describes rings and owns their doorbells. Everything but kicks is asynchronous, in the turns
 * of a {@link Reactor}, so driver and front-end share one thread. It knows nothing of what the device does.
 *
 * A back-end may vanish and come back: rings live in guest memory, and what the back-end must know of them to
 * go on is kept here ({@link VhostUserFrontend.reconnect}).
 */

import type { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { deferred } from '../sys/deferred.ts';
import { Listeners } from '../sys/listeners.ts';
import type { Reactor } from '../sys/poll.ts';
import { UnixSocket } from '../sys/socket.ts';
import type { QueueConfig } from '../virtio/queue.ts';
import { DEVICE_STATUS, type InterruptedQueue, type VirtioTransport } from '../virtio/transport.ts';
import { FrontendConfig } from './frontend-config.ts';
import {
  VhostUserDisconnectedError,
  VhostUserRefusedError,
  VhostUserUnsupportedError,
} from './frontend-errors.ts';
import { FrontendInflight } from './frontend-inflight.ts';
import { FrontendLink, type LinkOptions } from './frontend-link.ts';
import { FrontendRings, RINGS_MAX } from './frontend-rings.ts';
import { F_LOG_ALL, F_PROTOCOL_FEATURES, PROTOCOL_FEATURE, U64 } from './protocol.ts';

/** What this front-end can use of the protocol. */
export const FRONTEND_PROTOCOL_FEATURES =
  PROTOCOL_FEATURE.MQ |
  PROTOCOL_FEATURE.REPLY_ACK |
  PROTOCOL_FEATURE.BACKEND_REQ |
  PROTOCOL_FEATURE.CONFIG |
  PROTOCOL_FEATURE.RESET_DEVICE |
  PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS |
  PROTOCOL_FEATURE.STATUS;

/**
 * Draining gigabytes before a ring's stop is answered takes a second or two; a back-end that needs more than
 * this hangs, or serves another front-end.
 */
export const ANSWER_MS_MAX = 10_000;

/** The protocol does not tell what a back-end can take; this is what QEMU's libraries are built for. */
export const VRING_SIZE_MAX = 1024;

export interface FrontendOptions {
  readonly reactor: Pick<Reactor, 'watch' | 'schedule'>;
  /**
   * All regions on files ({@link createSharedMemory} makes such). Stays the caller's, who keeps it open until
   * this front-end is closed, and changes it through {@link VhostUserFrontend.addRegion} alone.
   */
  readonly memory: GuestMemory;
  /** Protocol features to use where the back-end has them; all that are known, unless given. */
  readonly protocolFeatures?: bigint;
  /** Keeps what is in flight, where the back-end can note it, for one that comes after it vanished ({@link reconnect}). */
  readonly keepsInflight?: boolean;
  /** How long an answer may take; {@link ANSWER_MS_MAX} unless given. */
  readonly answerMsMax?: number;
  /** A lost connection does not end the transport, because the caller will reconnect. */
  readonly reconnects?: boolean;
}

export class VhostUserFrontend implements VirtioTransport {
  readonly description: string;
  readonly #end = deferred<Error>();
  readonly ended = this.#end.promise;
  readonly memory: GuestMemory;
  readonly #options: FrontendOptions;
  readonly #rings: FrontendRings;
  readonly #interruptListeners = new Listeners<[queue: InterruptedQueue]>();
  readonly #configListeners = new Listeners<[]>();
  readonly #disconnectListeners = new Listeners<[reason: Error]>();
  readonly #ringFailureListeners = new Listeners<[queue: number]>();
  #link: FrontendLink | undefined;
  #features: bigint | undefined;
  #status = 0;
  readonly #config: FrontendConfig;
  readonly #inflight = new FrontendInflight(VRING_SIZE_MAX);
  #closed = false;

  private constructor(description: string, options: FrontendOptions) {
    this.description = description;
    this.memory = options.memory;
    this.#options = options;
    this.#config = new FrontendConfig(description);
    this.#rings = new FrontendRings(options.memory, options.reactor, {
      interrupted: index => this.#interrupted(index),
      failed: index => {
        this.#ringFailureListeners.emit(index);
      },
    });
  }

  /**
   * Connects, negotiates the protocol and hands over the memory. Takes ownership of a socket, also when it
   * throws.
   * @throws SystemError ENOENT or ECONNREFUSED when no process listens; VhostUserDisconnectedError,
   *   VhostUserTimeoutError or VhostUserRefusedError when the back-end goes away, stays silent or refuses
   */
  static async connect(target: string | UnixSocket, options: FrontendOptions): Promise<VhostUserFrontend> {
    const description = typeof target === 'string' ? `vhost-user at ${target}` : 'vhost-user back-end';
    const frontend = new VhostUserFrontend(description, options);
    try {
      await frontend.#connect(target);
      return frontend;
    } catch (error) {
      frontend.close();
      throw error;
    }
  }

  /** A back-end is there. */
  get connected(): boolean {
    return this.#link !== undefined;
  }

  /** Protocol features in use; 0 while disconnected. */
  get protocolFeatures(): bigint {
    return this.#link?.protocolFeatures ?? 0n;
  }

  // Device life -------------------------------------------------------------------------------------------

  async reset(): Promise<void> {
    try {
      await this.#resetDevice();
    } catch (error) {
      // A back-end that is gone touches nothing any more; the one that takes its place starts with a fresh device.
      if (this.#link !== undefined || this.#options.reconnects !== true) throw error;
    }
    this.#forget();
  }

  async #resetDevice(): Promise<void> {
    const link = this.#connectedLink();
    // Not all back-ends let go of their rings on a reset; all do when a ring is stopped.
    await this.pause();
    if (link.has(PROTOCOL_FEATURE.STATUS)) await link.requester.tell('SET_STATUS', U64.encode({ value: 0n }));
    else if (link.has(PROTOCOL_FEATURE.RESET_DEVICE)) await link.requester.tell('RESET_DEVICE');
  }

  #forget(): void {
    this.#rings.close();
    this.#features = undefined;
    this.#status = 0;
    this.#config.forget();
    this.#inflight.close();
  }

  async readStatus(): Promise<number> {
    const link = this.#connectedLink();
    if (!link.has(PROTOCOL_FEATURE.STATUS)) return this.#status;
    return Number((await link.requester.askU64('GET_STATUS')) & 0xffn);
  }

  async writeStatus(status: number): Promise<void> {
    if (status === 0) return this.reset();
    await this.#tellStatus(this.#connectedLink(), status);
    this.#status = status;
  }

  async getFeatures(): Promise<bigint> {
    return this.#connectedLink().features & ~(F_PROTOCOL_FEATURES | F_LOG_ALL);
  }

  async setFeatures(features: bigint): Promise<void> {
    await this.#tellFeatures(this.#connectedLink(), features);
    this.#features = features;
  }

  // Rings -------------------------------------------------------------------------------------------------

  async queueSizeMax(index: number): Promise<number> {
    return index < Math.min(this.#connectedLink().queueCount, RINGS_MAX) ? VRING_SIZE_MAX : 0;
  }

  /** @throws VirtqueueError when the ring is no ring or lies outside guest memory */
  async enableQueue(index: number, config: QueueConfig, base?: number): Promise<void> {
    const link = this.#connectedLink();
    await this.#inflight.give(link);
    await this.#rings.add(link, index, config, base);
  }

  kick(index: number): void {
    this.#rings.kick(index);
  }

  onInterrupt(listener: (queue: InterruptedQueue) => void): () => void {
    return this.#interruptListeners.add(listener);
  }

  /** Calls `listener` when the device gave ring `queue` up, until the returned function is called. */
  onRingFailure(listener: (queue: number) => void): () => void {
    return this.#ringFailureListeners.add(listener);
  }

  /** Stops all rings and keeps where they stopped, for {@link resume} or {@link reconnect}. */
  async pause(): Promise<void> {
    await this.#rings.stop(this.#connectedLink());
  }

  /** Lets rings go on that were paused. */
  async resume(): Promise<void> {
    await this.#rings.start(this.#connectedLink(), new Map());
  }

  // Connection --------------------------------------------------------------------------------------------

  /**
   * Connects to a back-end that takes the place of the last one, and gives it the driver's features, the
   * memory and the rings. Rings go on where {@link pause} left them. Where the last back-end vanished instead,
   * they go on at the first buffer that it did not return. That is so only if it returned buffers in order,
   * and a packed ring does not show it: `bases` says it for those, or what is in flight does if it was kept.
   */
  async reconnect(
    target: string | UnixSocket,
    bases: ReadonlyMap<number, number> = new Map(),
  ): Promise<void> {
    if (this.#closed) {
      if (typeof target !== 'string') target.close();
      throw new VhostUserDisconnectedError(this.description, 'it is closed');
    }
    this.#dropLink(new VhostUserDisconnectedError(this.description, 'it is being replaced'));
    const link = await this.#connect(target);
    try {
      await this.#restore(link, bases);
    } catch (error) {
      // Half a device is none; the next attempt starts from nothing.
      if (this.#link === link) this.#dropLink(error as Error);
      throw error;
    }
    // While there was no back-end, kicks, interrupts and news of the configuration went nowhere.
    for (const index of this.#rings.indices) {
      this.kick(index);
      this.#interrupted(index);
    }
    this.#configChanged();
  }

  /** Calls `listener` when the back-end is lost, until the returned function is called. */
  onDisconnect(listener: (reason: Error) => void): () => void {
    return this.#disconnectListeners.add(listener);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const reason = new VhostUserDisconnectedError(this.description, 'it was closed');
    this.#dropLink(reason);
    this.#rings.close();
    this.#inflight.close();
    this.#interruptListeners.clear();
    this.#configListeners.clear();
    this.#disconnectListeners.clear();
    this.#ringFailureListeners.clear();
    this.#end.resolve(reason);
  }

  // Memory ------------------------------------------------------------------------------------------------

  /** Adds a region to guest memory and hands it over. Ownership passes only when this resolves. */
  async addRegion(region: MemoryRegion): Promise<void> {
    const link = this.#connectedLink();
    this.memory.add(region);
    try {
      await link.addRegion(this.memory, region);
    } catch (error) {
      this.memory.remove(region);
      throw error;
    }
  }

  /**
   * Takes a region out of guest memory; the back-end has let go of it when this settles, and it is the caller's.
   * @throws VhostUserRefusedError when the back-end keeps it; then it stays where it is
   */
  async removeRegion(region: MemoryRegion): Promise<void> {
    const link = this.#connectedLink();
    this.memory.remove(region);
    try {
      await link.removeRegion(this.memory, region);
    } catch (error) {
      if (error instanceof VhostUserRefusedError) this.memory.add(region);
      throw error;
    }
  }

  // Configuration space -----------------------------------------------------------------------------------

  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    return this.#config.read(this.#connectedLink(), offset, length);
  }

  async writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#config.write(this.#connectedLink(), offset, bytes);
  }

  onConfigChange(listener: () => void): () => void {
    return this.#configListeners.add(listener);
  }

  // Parts -------------------------------------------------------------------------------------------------

  #connectedLink(): FrontendLink {
    if (this.#link !== undefined) return this.#link;
    throw new VhostUserDisconnectedError(this.description, 'nothing is connected');
  }

  async #connect(target: string | UnixSocket): Promise<FrontendLink> {
    const socket = typeof target === 'string' ? UnixSocket.connect(target) : target;
    const {
      reactor,
      protocolFeatures = FRONTEND_PROTOCOL_FEATURES,
      keepsInflight = false,
      answerMsMax = ANSWER_MS_MAX,
    } = this.#options;
    const options: LinkOptions = {
      reactor,
      description: this.description,
      protocolFeatures:
        (protocolFeatures & FRONTEND_PROTOCOL_FEATURES) |
        (keepsInflight ? PROTOCOL_FEATURE.INFLIGHT_SHMFD : 0n),
      answerMsMax,
      configChanged: () => this.#configChanged(),
      ended: reason => this.#lost(link, reason),
    };
    const link = new FrontendLink(socket, options);
    this.#link = link;
    try {
      await link.negotiate();
      await link.handOver(this.memory);
      return link;
    } catch (error) {
      if (this.#link === link) this.#dropLink(error as Error);
      throw error;
    }
  }

  async #restore(link: FrontendLink, bases: ReadonlyMap<number, number>): Promise<void> {
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK } = DEVICE_STATUS;
    // The steps of 3.1.1, as far as the driver had come.
    if (this.#status !== 0) await this.#tellStatus(link, this.#status & (ACKNOWLEDGE | DRIVER));
    if (this.#features !== undefined) {
      const missing = this.#features & ~link.features;
      if (missing !== 0n) {
        throw new VhostUserUnsupportedError(
          `${this.description} came back without the features 0x${missing.toString(16)}, which the driver uses`,
        );
      }
      await this.#tellFeatures(link, this.#features);
    }
    if ((this.#status & FEATURES_OK) !== 0) {
      await this.#tellStatus(link, this.#status & (ACKNOWLEDGE | DRIVER | FEATURES_OK));
    }
    // Rings run as soon as they are started, and the device must know by then what the driver told the last one.
    await this.#config.restore(link);
    await this.#inflight.give(link);
    await this.#rings.start(link, bases, this.#inflight.kept);
    if (this.#status !== 0) await this.#tellStatus(link, this.#status);
  }

  async #tellStatus({ requester, has }: FrontendLink, status: number): Promise<void> {
    if (!has(PROTOCOL_FEATURE.STATUS)) return;
    await requester.tell('SET_STATUS', U64.encode({ value: BigInt(status) }));
  }

  /** Keeps the transport's own feature bit on: taking it back would take the protocol features back. */
  async #tellFeatures({ requester, features: offered }: FrontendLink, features: bigint): Promise<void> {
    await requester.tell('SET_FEATURES', U64.encode({ value: features | (offered & F_PROTOCOL_FEATURES) }));
  }

  #interrupted(index: number): void {
    this.#interruptListeners.emit(index);
  }

  #configChanged(): void {
    this.#configListeners.emit();
  }

  #lost(link: FrontendLink, reason: Error): void {
    if (this.#link !== link) return;
    this.#link = undefined;
    link.close(reason);
    this.#disconnectListeners.emit(reason);
    if (this.#options.reconnects !== true) this.#end.resolve(reason);
  }

  #dropLink(reason: Error): void {
    const link = this.#link;
    this.#link = undefined;
    link?.close(reason);
  }
}
