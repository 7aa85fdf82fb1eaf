/**
 * What outlives a back-end whose process dies at any boundary: guest memory, the file in which the guest is kept, the socket of
 * its front-end, and what the keeper keeps; each thing that is shown to one of them is a boundary. The back-end is
 * restart-host.ts's.
 */
import type { GuestFile } from '../keeping/guest-file.ts';
import { GuestMemory, type MemoryRegion } from '../memory/guest-memory.ts';
import { InvariantError } from '../sys/error.ts';
import { closeAll, createEventFd, OwnedFd } from '../sys/fd.ts';
import type { AddressedBytes } from '../sys/marked-send.ts';
import { CMSGHDR, MSGHDR } from '../sys/message-header.ts';
import { Shed } from '../sys/shed.ts';
import { UnixSocket } from '../sys/socket.ts';
import { HEADER } from '../vhost-user/protocol.ts';
import type { DescriptorChain, PoppedBuffer } from '../virtio/chain.ts';
import { ForwardingQueue } from '../virtio/forwarding-queue.ts';
import type { DeviceQueue } from '../virtio/queue.ts';
import { type SimInflight, WRITTEN_BYTES } from './restart-inflight.ts';
import type { SimBacking } from './sim-backing.ts';

const FILE_BYTES = 2 ** 18;

/** The process is gone. There is one, for nothing is to be known of it but that. */
class Death extends Error {}
const DEATH = new Death();

/** What is seen outside of the process, or what is kept of it. */
export const BOUNDARIES = [
  'a write of state',
  'a write into a ring',
  'a punch of the file',
  'before a message is taken',
  'after a message was taken',
  'before a reply',
  'after a reply',
  'after a buffer was taken',
  'before a used entry',
  'after a used entry',
  'before a publish',
  'after a publish',
  'before a discard',
  'after a discard',
  'before a descriptor is kept',
  'after a descriptor was kept',
  'before a descriptor is dropped',
] as const;
export type Boundary = (typeof BOUNDARIES)[number];

/** Writes to it are boundaries. */
class FatalView extends DataView<ArrayBuffer> {
  boundary: () => void = () => {};

  override setUint16(at: number, value: number, littleEndian?: boolean): void {
    this.boundary();
    super.setUint16(at, value, littleEndian);
  }
  override setUint32(at: number, value: number, littleEndian?: boolean): void {
    this.boundary();
    super.setUint32(at, value, littleEndian);
  }
}

/** Guest memory; what the device writes into its rings are boundaries. */
export class FatalMemory extends GuestMemory {
  readonly #boundary: (what: Boundary) => void;

  constructor(region: MemoryRegion, boundary: (what: Boundary) => void) {
    super([region]);
    this.#boundary = boundary;
  }
  override setU16(gpa: number, value: number): void {
    this.#boundary('a write into a ring');
    super.setU16(gpa, value);
  }
  override setU32(gpa: number, value: number): void {
    this.#boundary('a write into a ring');
    super.setU32(gpa, value);
  }
  override atomicStoreU16(gpa: number, value: number): void {
    this.#boundary('a write into a ring');
    super.atomicStoreU16(gpa, value);
  }
}

/** A message on its way to the back-end. */
interface Sent {
  readonly bytes: Uint8Array;
  readonly fds: readonly OwnedFd[];
}

/** What outlives the back-end. */
export class Survivors {
  file = new Uint8Array(FILE_BYTES);
  readonly keeper = new Map<number, OwnedFd>();
  readonly backing: SimBacking;
  readonly region: MemoryRegion;
  /** Messages that were not received. */
  toBackend: Sent[] = [];
  /** Replies that were not read. */
  toFrontend: Uint8Array[] = [];
  /** The descriptor that came with the last reply that has one. */
  replied: OwnedFd | undefined;
  /** Memory of the front-end's in which it is noted what is in flight. */
  inflight: SimInflight | undefined;
  nextRequestId = 1000;
  /** Boundaries until the process dies. */
  lives = Number.POSITIVE_INFINITY;
  /** Boundaries of this kind alone are counted, if it is said. */
  deadly: Boundary | undefined;
  /** Where it died last. */
  diedAt = '';
  dead = false;
  #guestMemory: Uint8Array | undefined;
  #inflightBytes: Uint8Array | undefined;

  constructor(backing: SimBacking, region: MemoryRegion) {
    this.backing = backing;
    this.region = region;
  }

  /** Something that is seen outside is about to happen, or has happened. */
  boundary(what: Boundary): void {
    if (this.dead) throw DEATH;
    if (this.deadly !== undefined && this.deadly !== what) return;
    if (--this.lives > 0) return;
    this.dead = true;
    this.diedAt = what;
    // What the process does while it is unwound is none of its doings.
    this.file = this.file.slice();
    this.#guestMemory = this.backing.window().u8.slice(0, WRITTEN_BYTES);
    this.#inflightBytes = this.inflight?.bytes.slice();
    throw DEATH;
  }

  /** All is as it was when the process died. */
  bury(): void {
    if (this.#guestMemory !== undefined) this.backing.window().u8.set(this.#guestMemory);
    this.#guestMemory = undefined;
    if (this.#inflightBytes !== undefined) this.inflight?.bytes.set(this.#inflightBytes);
    this.#inflightBytes = undefined;
    this.dead = false;
    this.lives = Number.POSITIVE_INFINITY;
    this.deadly = undefined;
  }

  close(): void {
    closeAll(this.keeper.values());
    for (const { fds } of this.toBackend) closeAll(fds);
    this.replied?.close();
    this.inflight?.close();
  }
}

export class HeapGuestFile implements GuestFile {
  readonly #world: Survivors;
  readonly size = FILE_BYTES;

  constructor(world: Survivors) {
    this.#world = world;
  }

  map(offset: number, length: number): AddressedBytes & { close(): void } {
    const { buffer } = this.#world.file;
    const view = new FatalView(buffer as ArrayBuffer, offset, length);
    view.boundary = () => this.#world.boundary('a write of state');
    return { address: offset, bytes: new Uint8Array(buffer, offset, length), view, close: () => {} };
  }

  grow(end: number): void {
    if (end > FILE_BYTES) throw new InvariantError(`the file of a simulated guest grows to ${end}`);
  }

  punch(offset: number, length: number): void {
    this.#world.boundary('a punch of the file');
    this.#world.file.fill(0, offset, offset + length);
  }

  close(): void {}
}

/** The back-end's end of the front-end's socket. */
export class SimSocket extends UnixSocket {
  readonly #world: Survivors;

  constructor(world: Survivors) {
    super(createEventFd(), new Shed());
    this.#world = world;
  }

  override peekLength(into: Uint8Array): number | undefined {
    const [first] = this.#world.toBackend;
    if (first === undefined) return undefined;
    into.set(first.bytes.subarray(0, into.length));
    return Math.min(into.length, first.bytes.length);
  }

  override peek(into: Uint8Array): { readonly length: number; readonly fds: readonly OwnedFd[] } | undefined {
    const length = this.peekLength(into);
    const [first] = this.#world.toBackend;
    return length === undefined ? undefined : { length, fds: first.fds.map(fd => fd.duplicate()) };
  }

  override take(address: number, length: number): OwnedFd[] {
    this.#world.boundary('before a message is taken');
    const sent = this.#world.toBackend.shift();
    if (sent === undefined) throw new InvariantError('a message was taken that is not there');
    this.#world.file.set(sent.bytes.subarray(0, length), address);
    this.#world.boundary('after a message was taken');
    return [...sent.fds];
  }

  override sendMarked(address: number): boolean {
    this.#world.boundary('before a reply');
    // struct mmsghdr as `prepareMarkedSend` writes it: its length behind the header, the vector behind that.
    const { file } = this.#world;
    const view = new DataView(file.buffer);
    const from = Number(view.getBigUint64(address + 64, true));
    const length = Number(view.getBigUint64(address + 72, true));
    const control = Number(view.getBigUint64(address + MSGHDR.offset.control, true));
    if (control !== 0) {
      const sent = new OwnedFd(view.getInt32(control + CMSGHDR.size, true));
      this.#world.replied = sent.duplicate();
      sent.release();
    }
    this.#world.toFrontend.push(file.slice(from, from + length));
    view.setUint32(address + 56, length, true);
    this.#world.boundary('after a reply');
    return true;
  }
}

/** A queue whose effects on guest memory are boundaries. */
export class FatalQueue extends ForwardingQueue {
  readonly #boundary: (what: Boundary) => void;
  readonly #memory: GuestMemory;

  constructor(queue: DeviceQueue, memory: GuestMemory, boundary: (what: Boundary) => void) {
    super(queue);
    this.#memory = memory;
    this.#boundary = boundary;
  }
  override pop(memory: GuestMemory, chain: DescriptorChain): boolean {
    const popped = super.pop(memory, chain);
    if (popped) this.#boundary('after a buffer was taken');
    return popped;
  }
  override pushUsed(_: GuestMemory, buffer: PoppedBuffer, written: number): void {
    this.#boundary('before a used entry');
    super.pushUsed(this.#memory, buffer, written);
    this.#boundary('after a used entry');
  }
  override publish(): boolean {
    this.#boundary('before a publish');
    const interrupts = super.publish(this.#memory);
    this.#boundary('after a publish');
    return interrupts;
  }
}

/** Bytes of a message, and what goes with them. */
export function send(world: Survivors, request: number, payload: Uint8Array, fds: readonly OwnedFd[]): void {
  const bytes = new Uint8Array(HEADER.size + payload.length);
  HEADER.write(new DataView(bytes.buffer), 0, { request, flags: 1, size: payload.length });
  bytes.set(payload, HEADER.size);
  world.toBackend.push({ bytes, fds });
}
