/**
 * A vhost-user front-end and its guest in one hand, for the peers of `bench neighbour`: it says what it is told to say,
 * offers the buffers that it is told to offer, and waits in poll(2). It has no driver: an input decides what is sent,
 * sense or nonsense.
 */
import { MUST_TELL_HOST } from '../../balloon/features.ts';
import { FileBacking } from '../../memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../../memory/guest-memory.ts';
import { AerostatError } from '../../sys/error.ts';
import { createEventFd, drainEvent, type OwnedFd, ring } from '../../sys/fd.ts';
import { createMemfd } from '../../sys/file.ts';
import { monotonicMs, Reactor } from '../../sys/poll.ts';
import { UnixSocket } from '../../sys/socket.ts';
import { Connection } from '../../vhost-user/connection.ts';
import {
  F_PROTOCOL_FEATURES,
  FLAG_NEED_REPLY,
  FRONTEND_REQUEST,
  type FrontendRequest,
  MEM_REGION,
  SINGLE_REGION_PADDING,
  U64,
  VRING_ADDRESSES,
  VRING_STATE,
} from '../../vhost-user/protocol.ts';
import { USER_ADDRESS_OFFSET } from '../../vhost-user/shared-memory.ts';
import { VERSION_1 } from '../../virtio/features.ts';
import { AVAIL_ELEMENT, DESCRIPTOR, layoutOf, RING_HEADER } from '../../virtio/layout.ts';
import { LostDaemonError } from './play.ts';

const NOTHING: Uint8Array = new Uint8Array(0);
/** A daemon that does not answer for this long stands still. */
const STALL_MS = 20_000;

export interface Region {
  readonly guestAddress: number;
  readonly size: number;
}

/** What an input does with one descriptor of a chain. */
interface Segment {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

/** A split ring that is written by hand. */
export class HandRing {
  readonly index: number;
  readonly size: number;
  readonly #memory: GuestMemory;
  readonly #kick = createEventFd();
  readonly call = createEventFd();
  readonly #descriptors: number;
  readonly #avail: number;
  readonly #used: number;
  #available = 0;

  /** The ring's parts lie behind each other from `at` on. */
  constructor(memory: GuestMemory, index: number, size: number, at: number) {
    const layout = layoutOf({ size, features: 0n });
    this.index = index;
    this.size = size;
    this.#memory = memory;
    this.#descriptors = at;
    this.#avail = at + layout.descriptorArea.size;
    this.#used = Math.ceil((this.#avail + layout.driverArea.size) / 16) * 16;
  }

  get kickFd(): OwnedFd {
    return this.#kick;
  }

  addresses(): Uint8Array {
    return VRING_ADDRESSES.encode({
      index: this.index,
      flags: 0,
      descriptorTable: this.#descriptors + USER_ADDRESS_OFFSET,
      availRing: this.#avail + USER_ADDRESS_OFFSET,
      usedRing: this.#used + USER_ADDRESS_OFFSET,
      log: 0,
    });
  }

  write(index: number, segment: Segment): void {
    this.#memory.write(this.#descriptors + index * DESCRIPTOR.size, DESCRIPTOR.encode(segment));
  }

  /** Offers the chains that begin at these descriptors, and kicks. */
  offer(...heads: readonly number[]): void {
    for (const head of heads) {
      const slot = this.#available % this.size;
      this.#memory.setU16(this.#avail + RING_HEADER.size + slot * AVAIL_ELEMENT.size, head);
      this.#available = (this.#available + 1) & 0xffff;
    }
    this.#memory.atomicStoreU16(this.#avail + RING_HEADER.offset.index, this.#available);
    this.kick();
  }

  kick(): void {
    ring(this.#kick);
  }

  /** Chains that are with the device. */
  get outstanding(): number {
    const used = this.#memory.atomicLoadU16(this.#used + RING_HEADER.offset.index);
    return (this.#available - used) & 0xffff;
  }

  close(): void {
    this.#kick.close();
    this.call.close();
  }
}

export class HandFrontEnd {
  readonly memory = new GuestMemory();
  readonly reactor: Reactor;
  readonly #connection: Connection;
  readonly #rings: HandRing[] = [];

  constructor(socketPath: string) {
    // First what can fail.
    const socket = UnixSocket.connect(socketPath);
    this.reactor = new Reactor();
    this.#connection = new Connection(socket);
    this.reactor.watch(socket.fd, () => {});
  }

  say(request: FrontendRequest, payload = NOTHING, fds: readonly OwnedFd[] = [], flags = 0): void {
    this.#connection.send(FRONTEND_REQUEST[request], flags, payload, fds);
  }

  /** Says it, waits for the answer, and gives its payload. */
  ask(request: FrontendRequest, payload = NOTHING, fds: readonly OwnedFd[] = [], flags = 0): DataView {
    this.say(request, payload, fds, flags);
    let answer: DataView | undefined;
    this.waitUntil(() => {
      const received = this.#connection.receive();
      if (received.kind === 'closed') throw new LostDaemonError('the daemon hung up');
      if (received.kind === 'message') answer = received.message.payload;
      return answer !== undefined;
    });
    return answer as DataView;
  }

  /** Whether the daemon does as it is told. */
  accepts(request: FrontendRequest, payload = NOTHING, fds: readonly OwnedFd[] = []): boolean {
    return U64.read(this.ask(request, payload, fds, FLAG_NEED_REPLY)).value === 0n;
  }

  /** Everything up to the features; takes these of the device's and the ring's. */
  negotiate(features: bigint = MUST_TELL_HOST): void {
    this.say('SET_OWNER');
    const offered = U64.read(this.ask('GET_FEATURES')).value;
    const { value } = U64.read(this.ask('GET_PROTOCOL_FEATURES'));
    this.say('SET_PROTOCOL_FEATURES', U64.encode({ value }));
    const taken = (features | VERSION_1 | F_PROTOCOL_FEATURES) & offered;
    this.say('SET_FEATURES', U64.encode({ value: taken }));
  }

  /** Hands one file over as these regions, which lie behind each other in it, and keeps its end of them. */
  handOver(regions: readonly Region[]): void {
    const size = regions.reduce((total, region) => total + region.size, 0);
    const file = createMemfd({ name: 'aerostat-neighbour', size });
    let fileOffset = 0;
    for (const region of regions) {
      const userAddress = region.guestAddress + USER_ADDRESS_OFFSET;
      const backing = new FileBacking(file.duplicate(), fileOffset, region.size);
      this.memory.add(new MemoryRegion({ ...region, userAddress }, backing));
      if (!this.accepts('ADD_MEM_REG', regionMessage(region, fileOffset), [backing.fd])) {
        throw new AerostatError('AEROSTAT_BENCH', `the daemon refuses ${region.size} bytes of memory`);
      }
      fileOffset += region.size;
    }
    file.close();
  }

  startRing(index: number, size: number, at: number): HandRing {
    const hand = new HandRing(this.memory, index, size, at);
    this.#rings.push(hand);
    const value = U64.encode({ value: BigInt(index) });
    this.say('SET_VRING_NUM', VRING_STATE.encode({ index, num: size }));
    this.say('SET_VRING_BASE', VRING_STATE.encode({ index, num: 0 }));
    this.say('SET_VRING_ADDR', hand.addresses());
    this.say('SET_VRING_CALL', value, [hand.call]);
    this.say('SET_VRING_KICK', value, [hand.kickFd]);
    this.say('SET_VRING_ENABLE', VRING_STATE.encode({ index, num: 1 }));
    this.ask('GET_QUEUE_NUM');
    this.reactor.watch(hand.call, () => drainEvent(hand.call));
    return hand;
  }

  /** Turns the loop until it is met, which is looked at when something came; false when it took longer than that. */
  turnUntil(met: () => boolean, limitMs: number, lookMs = Number.POSITIVE_INFINITY): boolean {
    for (const deadline = monotonicMs() + limitMs; !met(); ) {
      const left = deadline - monotonicMs();
      if (left <= 0) return false;
      this.reactor.turn(Math.min(left, lookMs));
    }
    return true;
  }

  /**
   * The same; `lookMs` where nothing may come of it.
   * @throws LostDaemonError when it is never met
   */
  waitUntil(met: () => boolean, lookMs?: number): void {
    if (!this.turnUntil(met, STALL_MS, lookMs)) throw new LostDaemonError('the daemon stands still');
  }

  /**
   * Waits until all that was offered is back.
   * @throws LostDaemonError when that takes too long for a guest that asks for little
   */
  waitReturned(hand: HandRing, limitMs = STALL_MS): void {
    if (!this.turnUntil(() => this.#returned(hand), limitMs))
      throw new LostDaemonError('the daemon stands still');
  }

  /**
   * The same for as long as the daemon answers, which it is asked to in between: what a hostile guest wants may take long.
   * @throws LostDaemonError when it does not
   */
  waitWorkedOff(hand: HandRing, askMs = STALL_MS): void {
    while (!this.turnUntil(() => this.#returned(hand), askMs)) this.ask('GET_QUEUE_NUM');
  }

  #returned(hand: HandRing): boolean {
    if (hand.outstanding === 0) return true;
    if (this.#connection.receive().kind === 'closed') throw new LostDaemonError('the daemon hung up');
    return false;
  }

  /** Leaves as a process does that dies. */
  close(): void {
    this.#connection.close();
    for (const hand of this.#rings) hand.close();
    this.memory.close();
    this.reactor.close();
  }
}

/** What ADD_MEM_REG carries. */
export function regionMessage({ guestAddress, size }: Region, mmapOffset: number): Uint8Array {
  const bytes = new Uint8Array(SINGLE_REGION_PADDING + MEM_REGION.size);
  const userAddress = guestAddress + USER_ADDRESS_OFFSET;
  MEM_REGION.write(new DataView(bytes.buffer), SINGLE_REGION_PADDING, {
    guestAddress,
    size,
    userAddress,
    mmapOffset,
  });
  return bytes;
}
