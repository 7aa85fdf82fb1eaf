/**
 * A front-end that lies about everything at once: doorbells, channels and memory of every wrong kind (descriptors.ts),
 * memory tables of many, tiny, huge, adjacent and sparse regions, and long lists on rings that run among them. The whole
 * device serves it over a real socket. The first bytes choose ABI and ring, and six bytes a step what the front-end does.
 * A descriptor that is left open, an error of ours, a loop that spins, a file that may make us wait and is taken for memory,
 * or an account that does not add up is a finding.
 *
 * Not here: a file that its front-end keeps locked (it takes a second thread, and is found by who waits:
 * test/daemon/locked-file.test.ts), and files of a real FUSE (whose server may hang with this process:
 * test/vhost-user/silent-files.test.ts, in a mount namespace of its own).
 */
import { MUST_TELL_HOST } from '../src/balloon/features.ts';
import { PageList, PageListError } from '../src/balloon/page-list.ts';
import { EncodeCursor } from '../src/balloon/page-list-format.ts';
import { listFormat, PROFILE_NAMES, type Profile, profile } from '../src/balloon/profiles.ts';
import { BalloonDevice } from '../src/device/balloon-device.ts';
import { FileBacking } from '../src/memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../src/memory/page.ts';
import { AerostatError, assert, InvariantError } from '../src/sys/error.ts';
import { closeAll, type OwnedFd, openDescriptorCount } from '../src/sys/fd.ts';
import { createMemfd } from '../src/sys/file.ts';
import { processClock } from '../src/sys/monotonic.ts';
import { abandonedPipes } from '../src/sys/peer-doorbell.ts';
import { Reactor } from '../src/sys/poll.ts';
import { UnixSocket } from '../src/sys/socket.ts';
import { BackendConnection } from '../src/vhost-user/backend-connection.ts';
import { BACKEND_PROTOCOL_FEATURES } from '../src/vhost-user/backend-features.ts';
import { Connection } from '../src/vhost-user/connection.ts';
import {
  F_PROTOCOL_FEATURES,
  FLAG_NEED_REPLY,
  FRONTEND_REQUEST,
  type FrontendRequest,
  MEM_REGION,
  MEM_TABLE_HEADER,
  SINGLE_REGION_PADDING,
  U64,
  VRING_ADDRESSES,
  VRING_STATE,
} from '../src/vhost-user/protocol.ts';
import { BUFFER_BYTES_MAX, SegmentList } from '../src/virtio/chain.ts';
import { createDriverQueue } from '../src/virtio/create.ts';
import { RING_FEATURES, RING_INDIRECT_DESC, RING_PACKED, VERSION_1 } from '../src/virtio/features.ts';
import type { DriverQueue, QueueConfig } from '../src/virtio/queue.ts';
import { isStranger, Peer } from './descriptors.ts';
import { checkAccounts, cutList, IDLE_HOST, longestOf, rangesOf, takesLongToWrite } from './device.ts';

const HEADER_BYTES = 2;
const STEP_BYTES = 8;
const STEPS_MAX = 24;
const MIB = 2 ** 20;

/** Rings and lists lie here, in the one file that is in order; what the front-end gives away begins behind. */
const HOME_BYTES = 4 * MIB;
const LIST_AT = 2 * MIB;
const RING_BYTES = 0x2_0000;
const QUEUE_SIZE = 256;
const USER_OFFSET = 2 ** 46;
const FIRST_PFN = 2 ** 18;
const END_PFN = FIRST_PFN + 2 ** 16;

const REGION_BYTES = [
  0,
  512,
  PAGE_SIZE,
  3 * PAGE_SIZE,
  MIB,
  2 * MIB,
  2 ** 30,
  2 ** 40,
  12 * 2 ** 40,
  2 ** 52,
] as const;
const FILE_OFFSETS = [0, 0, 0, PAGE_SIZE, 512, 2 ** 39] as const;
/**
 * Of a region whose pages are discarded: here the device does that in the thread that serves, and terabytes of nothing
 * take long. Larger ones are only counted.
 */
const DISCARDED_BYTES_MAX = 8 * MIB;
const TABLE_REGIONS_MAX = 8;
/** A turn's share of work each; a device that is not done after so many is not going to be. */
const TURNS_MAX = 20_000;
/** Turns of the loop in which a step's consequences are over. */
const SETTLING_TURNS = 6;

const MODES = ['auto', 'before-ack', 'none'] as const;

/** One of two rings in the home region, as its driver has it. */
interface Ring {
  readonly config: QueueConfig;
  queue: DriverQueue;
}

class FrontEnd {
  readonly #device: BalloonDevice;
  readonly #connection: BackendConnection;
  readonly #features: bigint;
  readonly #reactor = new Reactor();
  readonly #peer = new Peer();
  readonly #socket: Connection;
  readonly #home: OwnedFd;
  readonly #memory: GuestMemory;
  readonly #rings: readonly Ring[];
  readonly #list = new PageList();
  readonly #segments = new SegmentList();
  #dispatched = 0;
  #ended: Error | undefined;

  constructor(abi: Profile, features: bigint, rings: bigint, mode: (typeof MODES)[number]) {
    this.#device = new BalloonDevice({
      profile: abi,
      features: features | VERSION_1 | RING_FEATURES,
      host: { ...IDLE_HOST, configChanged: () => void this.#connection?.configChanged() },
      clock: processClock,
      unusedPages: { add: () => {} },
    });
    this.#device.inflation.mode = mode;
    this.#features = VERSION_1 | RING_INDIRECT_DESC | rings | features;
    this.#home = createMemfd({ name: 'aerostat-fuzz-home', size: HOME_BYTES });
    const backing = new FileBacking(this.#home.duplicate(), 0, HOME_BYTES);
    this.#memory = new GuestMemory([
      new MemoryRegion({ guestAddress: 0, size: HOME_BYTES, userAddress: USER_OFFSET }, backing),
    ]);
    this.#rings = [0, 1].map(index => {
      const base = index * RING_BYTES;
      const areas = { descriptorArea: base, driverArea: base + 0x8000, deviceArea: base + 0x1_0000 };
      const config = { size: QUEUE_SIZE, features: this.#features, ...areas };
      return { config, queue: createDriverQueue(config) };
    });
    const [ours, theirs] = UnixSocket.pair();
    this.#socket = new Connection(theirs);
    this.#connection = new BackendConnection(ours, this.#device, {
      kicked: index => this.#serve(index),
      reactor: {
        watch: (fd, onReady) =>
          this.#reactor.watch(fd, readiness => {
            this.#dispatched++;
            onReady(readiness);
          }),
        schedule: (delayMs, run) => this.#reactor.schedule(delayMs, run),
      } as Reactor,
      ended: error => {
        this.#ended = error;
      },
    });
  }

  begin(): void {
    this.#say('SET_OWNER');
    this.#say('SET_PROTOCOL_FEATURES', U64.encode({ value: BACKEND_PROTOCOL_FEATURES }));
    this.#say('SET_FEATURES', U64.encode({ value: this.#features | F_PROTOCOL_FEATURES }));
    const fields = { guestAddress: 0, size: HOME_BYTES, userAddress: USER_OFFSET, mmapOffset: 0 };
    this.#say('ADD_MEM_REG', regionMessage(fields), [this.#home.duplicate()]);
  }

  step(step: DataView): void {
    const [what, kind, a, b] = [0, 1, 2, 3].map(at => step.getUint8(at));
    const index = what >> 7;
    const doorbell = U64.encode({ value: BigInt(index) });
    const actions: readonly (() => void)[] = [
      () => this.#say('SET_VRING_KICK', doorbell, [this.#peer.hand(kind)]),
      () => this.#say('SET_VRING_CALL', doorbell, [this.#peer.hand(kind)]),
      () => this.#say('SET_VRING_ERR', doorbell, [this.#peer.hand(kind)]),
      () => this.#channel(kind, a),
      () => this.#addRegion(kind, this.#region(a, b)),
      () => this.#say('REM_MEM_REG', regionMessage(this.#region(a, b))),
      () => this.#table(kind, a, b),
      () => this.#describe(index, (kind & 1) === 0 ? 0 : FIRST_PFN * PAGE_SIZE),
      () => this.#give(index, step),
      () => this.#say('SET_VRING_ENABLE', VRING_STATE.encode({ index, num: kind & 1 })),
      () => this.#meddle(kind, a),
      () => this.#say('GET_VRING_BASE', VRING_STATE.encode({ index, num: 0 })),
      () => this.#say('RESET_DEVICE'),
    ];
    actions[(what & 0x7f) % actions.length]();
  }

  close(): void {
    this.#connection.close();
    this.#socket.close();
    this.#peer.close();
    this.#memory.close();
    this.#home.close();
    this.#reactor.close();
    assert(this.#ended === undefined || isTheirs(this.#ended), `we broke: ${this.#ended?.stack}`);
  }

  /** A channel for the device's requests, and one of those. */
  #channel(kind: number, targetPages: number): void {
    this.#say('SET_BACKEND_REQ_FD', undefined, [this.#peer.hand(kind)]);
    this.#device.targetPages = targetPages;
    this.#settle();
  }

  #meddle(which: number, how: number): void {
    this.#peer.meddle(which, how);
    this.#settle();
  }

  #addRegion(kind: number, region: RegionFields): void {
    const { regions } = this.#connection.session.memory;
    const before = regions.length;
    this.#say('ADD_MEM_REG', regionMessage(region), [this.#peer.hand(kind)]);
    assert(!isStranger(kind) || regions.length <= before, 'a file that may make us wait is taken for memory');
  }

  /** A whole table: home, unless it is left out, and regions of any kind beside each other. */
  #table(kind: number, a: number, b: number): void {
    const count = 1 + (a % TABLE_REGIONS_MAX);
    const regions = Array.from({ length: count }, (_, index) => this.#region(a >> 3, b + index));
    const fds = regions.map((_, index) => this.#peer.hand(kind + (index % 3)));
    if ((b & 1) === 0) {
      regions[0] = { guestAddress: 0, size: HOME_BYTES, userAddress: USER_OFFSET, mmapOffset: 0 };
      fds[0].close();
      fds[0] = this.#home.duplicate();
    }
    const bytes = new Uint8Array(MEM_TABLE_HEADER.size + count * MEM_REGION.size);
    const view = new DataView(bytes.buffer);
    MEM_TABLE_HEADER.write(view, 0, { regions: count });
    regions.forEach((region, at) => {
      MEM_REGION.write(view, MEM_TABLE_HEADER.size + at * MEM_REGION.size, region);
    });
    this.#say('SET_MEM_TABLE', bytes, fds);
  }

  /** Describes a ring from the beginning, in order or `shift` bytes off, in memory that may be of any kind. */
  #describe(index: number, shift: number): void {
    const ring = this.#rings[index];
    const { descriptorArea, driverArea, deviceArea } = ring.config;
    ring.queue = createDriverQueue(ring.config);
    ring.queue.initialize(this.#memory);
    this.#say('SET_VRING_NUM', VRING_STATE.encode({ index, num: QUEUE_SIZE }));
    this.#say('SET_VRING_BASE', VRING_STATE.encode({ index, num: this.#packed ? 0x8000_8000 : 0 }));
    this.#say(
      'SET_VRING_ADDR',
      VRING_ADDRESSES.encode({
        index,
        flags: 0,
        descriptorTable: descriptorArea + shift + USER_OFFSET,
        availRing: driverArea + shift + USER_OFFSET,
        usedRing: deviceArea + shift + USER_OFFSET,
        log: 0,
      }),
    );
    this.#say('SET_VRING_KICK', U64.encode({ value: BigInt(index) }), [this.#peer.hand(0)]);
    this.#say('SET_VRING_ENABLE', VRING_STATE.encode({ index, num: 1 }));
  }

  #region(a: number, b: number): RegionFields {
    const counted = this.#device.inflation.mode === 'none';
    return regionOf(a, b, counted ? Number.POSITIVE_INFINITY : DISCARDED_BYTES_MAX);
  }

  get #packed(): boolean {
    return (this.#features & RING_PACKED) !== 0n;
  }

  /** Gives pages away, or takes them back, by a list; the device may serve the ring or not. */
  #give(index: number, step: DataView): void {
    const device = this.#device;
    const { queue } = this.#rings[index];
    this.#list.clear();
    try {
      const format = listFormat(device.profile, this.#features);
      const ranges = rangesOf(step, FIRST_PFN, END_PFN);
      if (takesLongToWrite(format, ranges)) return;
      format.encode(ranges, new EncodeCursor(), this.#list, longestOf(format, 128));
    } catch (error) {
      // A page that the format cannot name.
      if (!(error instanceof PageListError)) throw error;
      return;
    }
    this.#memory.write(LIST_AT, this.#list.bytes, 0, this.#list.length);
    cutList(this.#segments, this.#list, LIST_AT, 1 + (step.getUint8(7) >>> 2));
    const { readableBytes, writableBytes } = this.#segments;
    if (readableBytes + writableBytes > BUFFER_BYTES_MAX) return;
    if (!queue.addBuffer(this.#memory, this.#segments, 0)) return;
    queue.publish(this.#memory);
    this.#serve(index);
    this.#settle();
    const used = { token: 0, written: 0 };
    try {
      while (queue.popUsed(this.#memory, used));
    } catch (error) {
      // The ring lies where a balloon may take it: what is left of it is nonsense, and its driver's fault.
      if (!isTheirs(error)) throw error;
    }
    checkAccounts(device);
  }

  #serve(index: number): void {
    let turns = 0;
    while (this.#device.serveQueue(index)) assert(++turns < TURNS_MAX, 'a ring that is never done');
  }

  #say(
    request: FrontendRequest,
    payload: Uint8Array = new Uint8Array(0),
    fds: readonly OwnedFd[] = [],
  ): void {
    try {
      if (this.#ended === undefined)
        this.#socket.send(FRONTEND_REQUEST[request], FLAG_NEED_REPLY, payload, fds);
    } catch (error) {
      if (!isTheirs(error)) throw error;
    } finally {
      closeAll(fds);
    }
    this.#settle();
  }

  /** Has the loop do what there is to do, and no more: a descriptor that is always ready must not keep it busy. */
  #settle(): void {
    for (let turn = 0; turn < SETTLING_TURNS; turn++) {
      this.#dispatched = 0;
      this.#reactor.turn(0);
      for (;;) {
        const received = this.#socket.receive();
        if (received.kind !== 'message') break;
      }
      if (this.#dispatched === 0) return;
    }
    assert(this.#dispatched === 0, 'the loop spins');
  }
}

const isTheirs = (error: unknown): boolean =>
  error instanceof AerostatError && !(error instanceof InvariantError);

interface RegionFields {
  readonly guestAddress: number;
  readonly size: number;
  readonly userAddress: number;
  readonly mmapOffset: number;
}

/** Regions beside each other, by their number; sizes, up to `sizeMax`, and file offsets of every sort. */
function regionOf(a: number, b: number, sizeMax: number): RegionFields {
  const size = Math.min(REGION_BYTES[a % REGION_BYTES.length], sizeMax);
  const guestAddress = FIRST_PFN * PAGE_SIZE + (b >> 1) * Math.min(size, 2 ** 44);
  const mmapOffset = FILE_OFFSETS[(a >> 4) % FILE_OFFSETS.length];
  return { guestAddress, size, userAddress: guestAddress + USER_OFFSET, mmapOffset };
}

function regionMessage(fields: RegionFields): Uint8Array {
  const bytes = new Uint8Array(SINGLE_REGION_PADDING + MEM_REGION.size);
  MEM_REGION.write(new DataView(bytes.buffer), SINGLE_REGION_PADDING, fields);
  return bytes;
}

/** Waits for the C library's threads, which have pipes whose peers are gone. */
function awaitPipes(): void {
  const deadline = performance.now() + 500;
  while (abandonedPipes() > 0 && performance.now() < deadline);
}

/**
 * Inputs name a profile by its place, those that were kept as well. What a guest may say by `shared` is not among them: it
 * is tried in test/device/shared-allocator.test.ts.
 */
const NAMES = PROFILE_NAMES.filter(name => name !== 'shared');

function target(bytes: Uint8Array): void {
  if (bytes.length < HEADER_BYTES) return;
  const abi = profile(NAMES[bytes[0] % NAMES.length]);
  const flags = bytes[1];
  const before = openDescriptorCount();
  const features = abi.featureMask & ((flags & 2) === 0 ? ~0n : ~MUST_TELL_HOST);
  const frontEnd = new FrontEnd(
    abi,
    features,
    (flags & 1) === 0 ? 0n : RING_PACKED,
    MODES[(flags >> 2) % MODES.length],
  );
  try {
    frontEnd.begin();
    let steps = 0;
    for (
      let at = HEADER_BYTES;
      at + STEP_BYTES <= bytes.length && steps < STEPS_MAX;
      at += STEP_BYTES, steps++
    ) {
      frontEnd.step(new DataView(bytes.buffer, bytes.byteOffset + at, STEP_BYTES));
    }
  } finally {
    frontEnd.close();
    awaitPipes();
  }
  const left = openDescriptorCount() - before;
  assert(left === 0, `${left} descriptors were left open`);
}

export const targets: Record<string, (bytes: Uint8Array) => void> = { 'hostile-front-end': target };
