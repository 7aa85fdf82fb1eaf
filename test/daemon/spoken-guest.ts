/**
 * A guest whose front-end says just what the test says, in the order of the test: rings are described, disabled,
 * stopped and described again message by message, as front-ends of different makes do it. Its driver's queues are
 * moved buffer by buffer.
 */
import { CONFIG } from '../../src/balloon/config-space.ts';
import type { QueueRole } from '../../src/balloon/features.ts';
import { profile, queueRoles } from '../../src/balloon/profiles.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { createEventFd, type OwnedFd, ring } from '../../src/sys/fd.ts';
import type { UnixSocket } from '../../src/sys/socket.ts';
import { F_PROTOCOL_FEATURES, VRING_STATE } from '../../src/vhost-user/protocol.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { hasFeature, RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import type { TestLoop } from '../support/loop.ts';
import { payloads } from '../vhost-user/conversation.ts';
import { FIRST_PAGE, HandQueue, ListRoom, type QueueOwner, queuePlace, sendPages } from './hand-guest.ts';
import { RawFrontEnd } from './raw-front-end.ts';

const MIB = 2 ** 20;
const ABI = profile('virtio');
const QUEUE_SIZE = 64;
const FRESH_PACKED = 0x8000_8000;
const STATS_TAG_BYTES = 10;

export interface SpokenGuestOptions {
  readonly loop: TestLoop;
  readonly memory?: GuestMemory;
  /** Balloon features that the driver does not take. */
  readonly without?: bigint;
  readonly ringFeatures?: bigint;
  /** Where the first driver starts its rings. */
  readonly base?: (index: number) => number;
}

export class SpokenGuest implements QueueOwner {
  readonly loop: TestLoop;
  readonly memory: GuestMemory;
  frontEnd: RawFrontEnd;
  readonly features: bigint;
  readonly roles: readonly QueueRole[];
  #queues: readonly HandQueue[] = [];
  #doorbells: { readonly kick: OwnedFd; readonly call: OwnedFd }[] = [];
  readonly #lists: ListRoom;

  private constructor(target: string | UnixSocket, options: SpokenGuestOptions) {
    const { loop, without = 0n, ringFeatures = 0n } = options;
    const memory = options.memory ?? createSharedMemory({ regions: [{ guestAddress: 0, size: 64 * MIB }] });
    this.loop = loop;
    this.memory = memory;
    this.frontEnd = new RawFrontEnd(target, loop, memory);
    this.features = (ABI.featureMask & ~without) | VERSION_1 | ringFeatures;
    this.roles = queueRoles(ABI, this.features);
    this.#lists = new ListRoom(memory);
    memory.fill(0, 0, FIRST_PAGE * PAGE_SIZE);
  }

  /** Connects, and says what every front-end says before it describes rings. */
  static async connect(target: string | UnixSocket, options: SpokenGuestOptions): Promise<SpokenGuest> {
    const guest = new SpokenGuest(target, options);
    await guest.frontEnd.negotiate(guest.features);
    await guest.frontEnd.handOver();
    return guest;
  }

  /** Connects and starts all rings. */
  static async start(target: string | UnixSocket, options: SpokenGuestOptions): Promise<SpokenGuest> {
    const guest = await SpokenGuest.connect(target, options);
    await guest.startDriver({ base: options.base });
    return guest;
  }

  get firstBase(): number {
    return hasFeature(this.features, RING_PACKED) ? FRESH_PACKED : 0;
  }

  queue(role: QueueRole): HandQueue {
    const queue = this.#queues[this.roles.indexOf(role)];
    if (queue === undefined) throw new Error(`the guest has no ${role} queue`);
    return queue;
  }

  /** A driver that is loaded: queues of its own, which the front-end describes. `at` is where they lie. */
  async startDriver({
    at = 0,
    base,
    before = () => {},
  }: {
    at?: number;
    base?: ((index: number) => number) | undefined;
    /** What the driver does before its rings are described. */
    before?: () => void;
  } = {}): Promise<void> {
    this.#queues = this.roles.map(
      (_, index) => new HandQueue(this, index, queuePlace(index, QUEUE_SIZE, this.features, at)),
    );
    before();
    await this.describeRings(base ?? (() => this.firstBase));
  }

  /** Another connection, up to the memory; the driver and its queues are what they were. */
  async reconnect(target: string): Promise<void> {
    this.frontEnd.hangUp();
    this.frontEnd = new RawFrontEnd(target, this.loop, this.memory);
    await this.frontEnd.negotiate(this.features);
    await this.frontEnd.handOver();
  }

  /** Describes all rings and then enables them, as QEMU and Cloud Hypervisor do. */
  async describeRings(base: (index: number) => number): Promise<void> {
    for (const { index } of this.#queues) this.describeRing(index, base(index));
    for (const { index } of this.#queues) this.enable(index, 1);
    await this.heard();
  }

  describeRing(index: number, base: number): void {
    const { frontEnd } = this;
    const { config } = this.#queues[index];
    const kick = createEventFd();
    const call = createEventFd();
    this.#close(this.#doorbells[index]);
    this.#doorbells[index] = { kick, call };
    frontEnd.say('SET_VRING_NUM', payloads.state(index, config.size));
    frontEnd.say('SET_VRING_BASE', payloads.state(index, base));
    frontEnd.say('SET_VRING_ADDR', payloads.addresses(config, index));
    frontEnd.say('SET_VRING_CALL', payloads.u64(index), [call]);
    frontEnd.say('SET_VRING_KICK', payloads.u64(index), [kick]);
  }

  enable(index: number, on: 0 | 1): void {
    this.frontEnd.say('SET_VRING_ENABLE', payloads.state(index, on));
  }

  async disableAll(): Promise<void> {
    for (const { index } of this.#queues) this.enable(index, 0);
    await this.heard();
  }

  async enableAll(): Promise<void> {
    for (const { index } of this.#queues) this.enable(index, 1);
    await this.heard();
  }

  /** GET_VRING_BASE of all rings; what was replied. */
  async stopRings(): Promise<number[]> {
    const bases: number[] = [];
    for (const { index } of this.#queues) {
      bases.push(VRING_STATE.read(await this.frontEnd.ask('GET_VRING_BASE', payloads.state(index))).num);
    }
    return bases;
  }

  /** SET_FEATURES with what was negotiated before. */
  async sayFeatures(): Promise<void> {
    this.frontEnd.say('SET_FEATURES', payloads.u64(this.features | F_PROTOCOL_FEATURES));
    await this.heard();
  }

  /** All that was said so far was done. */
  async heard(): Promise<void> {
    await this.frontEnd.ask('GET_QUEUE_NUM');
  }

  inflate(first: number, count: number): Promise<void> {
    return sendPages(this.queue('inflate'), first, count);
  }

  deflate(first: number, count: number): Promise<void> {
    return sendPages(this.queue('deflate'), first, count);
  }

  /** Posts statistics, and leaves them with the device. */
  async postStatistics(): Promise<void> {
    this.queue('stats').add({ out: new Uint8Array(STATS_TAG_BYTES) });
    this.queue('stats').kick();
    await this.heard();
  }

  async writeActual(pages: number): Promise<void> {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, pages, true);
    this.frontEnd.say('SET_CONFIG', payloads.config(CONFIG.offset.actual, 4, bytes));
    await this.heard();
  }

  touch(pfn: number, count: number, value = 0xa5): void {
    this.memory.fill(pfn * PAGE_SIZE, value, count * PAGE_SIZE);
  }

  /** The first byte of a page. */
  contentOf(pfn: number): number {
    const bytes = new Uint8Array(1);
    this.memory.read(pfn * PAGE_SIZE, bytes, 0, 1);
    return bytes[0];
  }

  get residentBytes(): number {
    return this.memory.regions[0].backing.residentBytes();
  }

  place(bytes: Uint8Array): number {
    return this.#lists.place(bytes);
  }

  kick(index: number): void {
    ring(this.#doorbells[index].kick);
  }

  close(): void {
    for (const doorbells of this.#doorbells) this.#close(doorbells);
    this.frontEnd.close();
  }

  #close(doorbells: { readonly kick: OwnedFd; readonly call: OwnedFd } | undefined): void {
    doorbells?.kick.close();
    doorbells?.call.close();
  }
}
