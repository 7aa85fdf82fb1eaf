/**
 * A back-end session and the test that speaks to it, message by message and without a socket, with a guest
 * memory whose rings the test drives.
 */
import { afterEach, beforeEach, expect } from 'vitest';
import type { FileBacking } from '../../src/memory/file-backing.ts';
import type { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { closeAll, createEventFd, drainEvent, type OwnedFd, ring } from '../../src/sys/fd.ts';
import { BackendConversation } from '../../src/testing/conversation.ts';
import type { SavableDevice } from '../../src/vhost-user/device-state.ts';
import {
  CONFIG_HEADER,
  MEM_REGION,
  MEM_TABLE_HEADER,
  SINGLE_REGION_PADDING,
  U64,
  VRING_ADDRESSES,
  VRING_FD_NONE,
  VRING_STATE,
} from '../../src/vhost-user/protocol.ts';
import { createSharedMemory, USER_ADDRESS_OFFSET } from '../../src/vhost-user/shared-memory.ts';
import { SegmentList } from '../../src/virtio/chain.ts';
import { createDriverQueue } from '../../src/virtio/create.ts';
import { VERSION_1 } from '../../src/virtio/features.ts';
import type { DriverQueue, DriverQueueState, QueueConfig } from '../../src/virtio/queue.ts';
import { openDescriptors } from '../support/descriptors.ts';
import { TestLoop } from '../support/loop.ts';
import { RingDevice } from './ring-device.ts';

export const MIB = 2 ** 20;

export const payloads = {
  u64: (value: bigint | number) => U64.encode({ value: BigInt(value) }),
  state: (index: number, num = 0) => VRING_STATE.encode({ index, num }),
  region(region: MemoryRegion): Uint8Array {
    const bytes = new Uint8Array(SINGLE_REGION_PADDING + MEM_REGION.size);
    MEM_REGION.write(new DataView(bytes.buffer), SINGLE_REGION_PADDING, regionFields(region));
    return bytes;
  },
  table(regions: readonly RegionFields[], count = regions.length): Uint8Array {
    const bytes = new Uint8Array(MEM_TABLE_HEADER.size + regions.length * MEM_REGION.size);
    const view = new DataView(bytes.buffer);
    MEM_TABLE_HEADER.write(view, 0, { regions: count });
    regions.forEach((region, index) => {
      MEM_REGION.write(view, MEM_TABLE_HEADER.size + index * MEM_REGION.size, region);
    });
    return bytes;
  },
  addresses: ({ descriptorArea, driverArea, deviceArea }: QueueConfig, index: number) =>
    VRING_ADDRESSES.encode({
      index,
      flags: 0,
      descriptorTable: descriptorArea + USER_ADDRESS_OFFSET,
      availRing: driverArea + USER_ADDRESS_OFFSET,
      usedRing: deviceArea + USER_ADDRESS_OFFSET,
      log: 0,
    }),
  config(offset: number, size: number, bytes: Uint8Array = new Uint8Array(size), flags = 0): Uint8Array {
    const payload = new Uint8Array(CONFIG_HEADER.size + bytes.length);
    CONFIG_HEADER.write(new DataView(payload.buffer), 0, { offset, size, flags });
    payload.set(bytes, CONFIG_HEADER.size);
    return payload;
  },
};

export interface RegionFields {
  readonly guestAddress: number;
  readonly size: number;
  readonly userAddress: number;
  readonly mmapOffset: number;
}

export const regionFields = ({ guestAddress, size, userAddress, backing }: MemoryRegion): RegionFields => ({
  guestAddress,
  size,
  userAddress,
  mmapOffset: (backing as FileBacking).fileOffset,
});

export const fileOf = (region: MemoryRegion): OwnedFd => (region.backing as FileBacking).fd.duplicate();

/** The ring of queue `index` in the first 64 KiB of memory, and the doorbells of a driver on it. */
export class TestRing {
  readonly config: QueueConfig;
  queue: DriverQueue;
  readonly kick = createEventFd();
  readonly call = createEventFd();
  readonly error = createEventFd();
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory, index: number, features: bigint, size = 8, at = 0x1000) {
    const base = at + index * 0x3000;
    this.config = {
      size,
      features,
      descriptorArea: base,
      driverArea: base + 0x1000,
      deviceArea: base + 0x2000,
    };
    this.#memory = memory;
    this.queue = createDriverQueue(this.config);
    this.queue.initialize(memory);
  }

  /** Goes on from `state`, as a driver does that was moved. */
  restore(state: DriverQueueState): void {
    this.queue = createDriverQueue(this.config, state);
  }

  /** Offers `count` buffers of four bytes each; true when the device wants a kick for them. */
  offer(count = 1): boolean {
    const list = new SegmentList();
    for (let i = 0; i < count; i++) {
      list.clear();
      list.addReadable(0x8_0000 + i * 4, 4);
      expect(this.queue.addBuffer(this.#memory, list, i)).toBe(true);
    }
    return this.queue.publish(this.#memory);
  }

  ringKick(): void {
    ring(this.kick);
  }

  /** Takes back what the device returned; returns how many. */
  collect(): number {
    const used = { token: 0, written: 0 };
    let count = 0;
    while (this.queue.popUsed(this.#memory, used)) count++;
    return count;
  }

  close(): void {
    closeAll([this.kick, this.call, this.error]);
  }
}

/** Whether it was rung since the last look: an eventfd is readable just then. */
export async function wasRung(loop: TestLoop, fd: OwnedFd): Promise<boolean> {
  let rung = false;
  const watch = loop.reactor.watch(fd, () => {
    rung = true;
    drainEvent(fd);
  });
  // A pipe is rung by a thread of the C library, in a moment.
  for (let turn = 0; turn < 50 && !rung; turn++) {
    await loop.settle(2);
    if (!rung) await new Promise(resolve => setTimeout(resolve, 1));
  }
  watch.stop();
  return rung;
}

export class Conversation extends BackendConversation {
  readonly loop: TestLoop;
  readonly device: RingDevice;
  readonly memory: GuestMemory;
  readonly #rings: TestRing[] = [];

  constructor({
    device = new RingDevice(),
    regions = [{ guestAddress: 0, size: MIB }],
    deviceState,
  }: {
    readonly device?: RingDevice;
    readonly regions?: readonly { readonly guestAddress: number; readonly size: number }[];
    readonly deviceState?: SavableDevice;
  } = {}) {
    const loop = new TestLoop();
    super(device, loop.reactor, deviceState);
    this.loop = loop;
    this.device = device;
    this.memory = createSharedMemory({ regions });
  }

  handOver(): void {
    const { regions } = this.memory;
    this.say('SET_MEM_TABLE', payloads.table(regions.map(regionFields)), { fds: regions.map(fileOf) });
  }

  ring(index: number, features = VERSION_1, size?: number, at?: number): TestRing {
    const ring = new TestRing(this.memory, index, features, size, at);
    this.#rings.push(ring);
    return ring;
  }

  /** Describes a ring, starts and enables it. */
  startRing(index: number, ring: TestRing, base = 0): void {
    this.say('SET_VRING_NUM', payloads.state(index, ring.config.size));
    this.say('SET_VRING_BASE', payloads.state(index, base));
    this.say('SET_VRING_ADDR', payloads.addresses(ring.config, index));
    this.say('SET_VRING_CALL', payloads.u64(index), { fds: [ring.call.duplicate()] });
    this.say('SET_VRING_ERR', payloads.u64(index), { fds: [ring.error.duplicate()] });
    this.kickWith(index, ring.kick);
    this.say('SET_VRING_ENABLE', payloads.state(index, 1));
  }

  kickWith(index: number, fd: OwnedFd): void {
    this.say('SET_VRING_KICK', payloads.u64(index), { fds: [fd.duplicate()] });
  }

  withoutKick(index: number): void {
    this.say('SET_VRING_KICK', payloads.u64(BigInt(index) | VRING_FD_NONE));
  }

  /** Stops ring `index`; returns where. */
  stopRing(index: number): number {
    return this.say('GET_VRING_BASE', payloads.state(index))!.getUint32(4, true);
  }

  /** A driver that is up: features, memory, and ring 0 running. */
  start(features = VERSION_1): TestRing {
    this.negotiate(features);
    this.handOver();
    const ring = this.ring(0, features);
    this.startRing(0, ring, firstBase(features));
    this.device.takeCalls();
    return ring;
  }

  close(): void {
    this.session.close();
    for (const ring of this.#rings) ring.close();
    this.memory.close();
    this.loop.close();
  }
}

const RING_PACKED = 1n << 34n;
const firstBase = (features: bigint): number => ((features & RING_PACKED) === 0n ? 0 : 0x8000_8000);

/** Conversations of the suite's tests: each is closed after its test, and none may leave a descriptor open. */
export function conversations(): (options?: ConstructorParameters<typeof Conversation>[0]) => Conversation {
  const open: Conversation[] = [];
  let before: unknown;
  beforeEach(() => {
    before = openDescriptors();
  });
  afterEach(() => {
    for (const conversation of open.splice(0)) conversation.close();
    expect(openDescriptors()).toEqual(before);
  });
  return options => {
    const conversation = new Conversation(options);
    open.push(conversation);
    return conversation;
  };
}
