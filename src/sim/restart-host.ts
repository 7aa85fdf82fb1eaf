/**
 * A back-end whose process dies at any boundary: before and after each thing that it shows to anything else. What outlives it
 * is here: guest memory, the file in which the guest is kept, the socket of its front-end, and what the keeper keeps. The
 * back-end is a daemon's own code, from the socket on; what its guest does is restart-history.ts's.
 */

import type { Profile } from '../balloon/profiles.ts';
import { BalloonDevice } from '../device/balloon-device.ts';
import type { DeviceHost } from '../device/device-host.ts';
import type { GuestFile } from '../keeping/guest-file.ts';
import { type DescriptorKeeper, KeptGuest } from '../keeping/kept-guest.ts';
import type { OpenRun } from '../memory/discard-claims.ts';
import { GuestMemory, type MemoryRegion } from '../memory/guest-memory.ts';
import type { PageSink } from '../memory/page.ts';
import { InvariantError } from '../sys/error.ts';
import { closeAll, createEventFd, type OwnedFd } from '../sys/fd.ts';
import { processClock } from '../sys/monotonic.ts';
import { Shed } from '../sys/shed.ts';
import { type AddressedBytes, UnixSocket } from '../sys/socket.ts';
import { BackendConnection } from '../vhost-user/backend-connection.ts';
import { HEADER } from '../vhost-user/protocol.ts';
import type { DescriptorChain, PoppedBuffer } from '../virtio/chain.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { ForwardingQueue } from '../virtio/forwarding-queue.ts';
import type { DeviceQueue } from '../virtio/queue.ts';
import type { SimBacking } from './sim-backing.ts';

const FILE_BYTES = 2 ** 18;

/** Rings and lists lie below it, and all that a back-end writes into guest memory. */
const WRITTEN_BYTES = 20 * 4096;

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
type Boundary = (typeof BOUNDARIES)[number];

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
class FatalMemory extends GuestMemory {
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

/** How a back-end is made, and where what its guest says of unused pages goes. */
export interface HostPlan {
  readonly abi: Profile;
  readonly features: bigint;
  /** Of the device that runs. */
  readonly unusedPages: (device: () => BalloonDevice) => PageSink;
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
  nextRequestId = 1000;
  /** Boundaries until the process dies. */
  lives = Number.POSITIVE_INFINITY;
  /** Boundaries of this kind alone are counted, if it is said. */
  deadly: Boundary | undefined;
  /** Where it died last. */
  diedAt = '';
  dead = false;
  #guestMemory: Uint8Array | undefined;

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
    throw DEATH;
  }

  /** All is as it was when the process died. */
  bury(): void {
    if (this.#guestMemory !== undefined) this.backing.window().u8.set(this.#guestMemory);
    this.#guestMemory = undefined;
    this.dead = false;
    this.lives = Number.POSITIVE_INFINITY;
    this.deadly = undefined;
  }

  close(): void {
    closeAll(this.keeper.values());
    for (const { fds } of this.toBackend) closeAll(fds);
  }
}

class HeapGuestFile implements GuestFile {
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
class SimSocket extends UnixSocket {
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
    this.#world.toFrontend.push(file.slice(from, from + length));
    view.setUint32(address + 56, length, true);
    this.#world.boundary('after a reply');
    return true;
  }
}

/** A queue whose effects on guest memory are boundaries. */
class FatalQueue extends ForwardingQueue {
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

export class MortalHost {
  readonly device: BalloonDevice;
  readonly connection: BackendConnection;
  readonly #world: Survivors;
  readonly #kept: KeptGuest;
  readonly #memory: GuestMemory;
  /** What the process has open. */
  readonly #fds = new Set<OwnedFd>();
  #read: (() => void) | undefined;
  #openRun: OpenRun | undefined;
  /** What it has against its guest. */
  blame: string | undefined;
  /** The front-end was let go because of it. */
  failure: Error | undefined;

  private constructor(world: Survivors, { abi, features, unusedPages }: HostPlan, fresh: boolean) {
    this.#world = world;
    this.#memory = new FatalMemory(world.region, what => world.boundary(what));
    const keeper = this.#keeper();
    const file = new HeapGuestFile(world);
    this.#kept = fresh ? KeptGuest.create(file, keeper, abi.name) : KeptGuest.open(file, keeper, abi.name);
    this.device = new BalloonDevice({
      profile: abi,
      features,
      host: {
        ...HOST,
        hintChanged: () => this.#kept.noteDevice(),
        badInput: reason => {
          this.blame ??= reason;
        },
      },
      clock: processClock,
      unusedPages: unusedPages(() => this.device),
      accountPlace: this.#kept,
    });
    this.#kept.device = this.device;
    const socket = new SimSocket(world);
    this.#fds.add(socket.fd);
    const watch = (fd: OwnedFd, run: unknown) => {
      if (fd === socket.fd) this.#read = () => (run as (ready: object) => void)({ readable: true });
      return { stop: () => {}, wantWrite: false };
    };
    this.connection = new BackendConnection(socket, this.#behindSession(), {
      reactor: { watch },
      kept: this.#kept,
      kicked: index => this.serve(index),
      refused: error => {
        this.failure ??= error;
      },
      ended: error => {
        this.failure = error ?? new Error('the conversation is over');
      },
    });
  }

  /** A back-end whose front-end has just connected. */
  static begin(world: Survivors, plan: HostPlan): MortalHost {
    const host = new MortalHost(world, plan, true);
    host.connection.session.memory.add(world.region);
    host.device.regionAdded(world.region);
    host.connection.begin();
    return host;
  }

  /** A back-end that takes the guest up. */
  static takeUp(world: Survivors, plan: HostPlan): MortalHost {
    const host = new MortalHost(world, plan, false);
    // As a daemon does, whose ids begin anywhere.
    host.device.requests.beginAt(world.nextRequestId++);
    const fds = new Map([...world.keeper].map(([number, fd]) => [number, host.#own(fd.duplicate())]));
    const session = host.#kept.takeUp(fds);
    if (session === undefined) throw new InvariantError('there was no conversation to take up');
    host.connection.takeUp({ ...session, open: () => world.region });
    return host;
  }

  #own(fd: OwnedFd): OwnedFd {
    this.#fds.add(fd);
    return fd;
  }

  #keeper(): DescriptorKeeper {
    const { keeper } = this.#world;
    return {
      keep: (number, fd) => {
        this.#world.boundary('before a descriptor is kept');
        this.#own(fd);
        keeper.get(number)?.close();
        keeper.set(number, fd.duplicate());
        this.#world.boundary('after a descriptor was kept');
      },
      drop: number => {
        this.#world.boundary('before a descriptor is dropped');
        keeper.get(number)?.close();
        keeper.delete(number);
      },
    };
  }

  #behindSession(): VirtioDevice {
    const { device } = this;
    const boundary = (what: Boundary): void => this.#world.boundary(what);
    return {
      features: device.features,
      queueCount: device.queueCount,
      setFeatures: features => device.setFeatures(features),
      readConfig: (offset, into) => device.readConfig(offset, into),
      writeConfig: (offset, bytes) => device.writeConfig(offset, bytes),
      regionAdded: region => device.regionAdded(region),
      // The session that dies lets go of a region that outlives it.
      regionRemoved: () => {},
      startQueue: (index, queue, memory, doorbell) =>
        device.startQueue(index, new FatalQueue(queue, this.#memory, boundary), memory, doorbell),
      suspendQueue: index => device.suspendQueue(index),
      resumeQueue: index => device.resumeQueue(index),
      stopQueue: (index, reason) => device.stopQueue(index, reason),
      serveQueue: index => device.serveQueue(index),
      settle: () => device.settle(),
      reset: () => device.reset(),
    };
  }

  /** Reads what the front-end has sent. */
  read(): void {
    this.#read?.();
  }

  serve(index: number): void {
    while (this.device.serveQueue(index));
  }

  /** The discarding thread begins a run, or ends the one that it has begun. */
  discard(): void {
    const run = this.#openRun;
    const [{ pending, reports, discardUnits }] = this.device.accounts.all;
    this.#openRun = undefined;
    if (run === undefined) {
      this.#openRun = reports?.beginRun() ?? pending.beginRun();
      return;
    }
    run.end((start, count) => {
      this.#world.boundary('before a discard');
      discardUnits(start, count);
      this.#world.boundary('after a discard');
    });
    this.connection.progress();
    for (const index of this.device.resumable()) this.serve(index);
  }

  /** Whether nothing is pending. */
  get idle(): boolean {
    const { pendingPages, reportedPending } = this.device.accounts;
    return this.#openRun === undefined && pendingPages === 0 && reportedPending === 0;
  }

  /** The process is gone, and with it its descriptors. */
  leave(): void {
    closeAll(this.#fds);
  }
}

const HOST: DeviceHost = {
  configChanged: () => {},
  accountOpened: () => {},
  reportsOpened: () => {},
  pendingMarked: () => {},
  discardSoon: () => {},
  badInput: () => {},
  discardFailed: () => {},
  actualChanged: () => {},
  statisticsArrived: () => {},
  hintChanged: () => {},
  requestAnswered: () => {},
};

/** Bytes of a message, and what goes with them. */
export function send(world: Survivors, request: number, payload: Uint8Array, fds: readonly OwnedFd[]): void {
  const bytes = new Uint8Array(HEADER.size + payload.length);
  HEADER.write(new DataView(bytes.buffer), 0, { request, flags: 1, size: payload.length });
  bytes.set(payload, HEADER.size);
  world.toBackend.push({ bytes, fds });
}
