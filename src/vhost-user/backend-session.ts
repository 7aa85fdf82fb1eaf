/**
 * The back-end's side of one vhost-user conversation: the rules of what follows what. It is fed with whole
 * messages, keeps guest memory and the rings' descriptors, and drives a {@link VhostUserBackend}. It knows
 * nothing of what the device does, and it reads no socket.
 *
 * A request that is refused changes nothing, is answered as a failure where an answer was asked for, and
 * leaves the conversation going.
 */

import { FileBacking } from '../memory/backing.ts';
import { GuestMemory, MemoryRegion, type RegionAddresses } from '../memory/guest-memory.ts';
import { AerostatError } from '../sys/error.ts';
import { closeAll, type OwnedFd, ring, silence } from '../sys/fd.ts';
import type { Reactor } from '../sys/poll.ts';
import { QUEUE_SIZE_MAX } from '../virtio/queue.ts';
import type { RingDoorbell, StopReason, VhostUserBackend } from './backend.ts';
import type { Message } from './connection.ts';
import {
  CONFIG_BYTES_MAX,
  CONFIG_HEADER,
  F_PROTOCOL_FEATURES,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  type FrontendRequest,
  faultOfShape,
  MEM_REGION,
  MEM_SLOTS_MAX,
  MEM_TABLE_HEADER,
  MEM_TABLE_REGIONS_MAX,
  MEMORY_BYTES_MAX,
  PROTOCOL_FEATURE,
  requestName,
  SINGLE_REGION_PADDING,
  U64,
  VhostUserError,
  VRING_ADDRESSES,
  VRING_FD_INDEX_MASK,
  VRING_FD_NONE,
  VRING_STATE,
} from './protocol.ts';
import { openQueue, ringBaseOf } from './ring.ts';
import { Vring } from './vring.ts';

/** What this back-end can do beyond the base protocol. */
export const BACKEND_PROTOCOL_FEATURES =
  PROTOCOL_FEATURE.MQ |
  PROTOCOL_FEATURE.REPLY_ACK |
  PROTOCOL_FEATURE.BACKEND_REQ |
  PROTOCOL_FEATURE.CONFIG |
  PROTOCOL_FEATURE.RESET_DEVICE |
  PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS |
  PROTOCOL_FEATURE.STATUS;

/** What the session needs of the world around it. */
export interface SessionHost {
  readonly reactor: Pick<Reactor, 'watch'>;
  /** A request was refused, or a ring could not be used; `ringIndex` says which. */
  refused(error: Error, context: { request?: string; ringIndex?: number }): void;
  /** The front-end handed over (or withdrew) the channel for the back-end's own requests. */
  backendChannel(fd: OwnedFd | undefined): void;
}

/** The descriptors of the message that is being served. What nobody takes is closed. */
class UnclaimedFds {
  readonly #fds: OwnedFd[];
  readonly count: number;

  constructor(fds: readonly OwnedFd[]) {
    this.#fds = [...fds];
    this.count = fds.length;
  }

  /** The next one; the taker owns it, and closes it when it has no use for it. */
  take(): OwnedFd | undefined {
    return this.#fds.shift();
  }

  close(): void {
    closeAll(this.#fds);
  }
}

/** Bytes of a reply's payload; undefined: the request has no reply of its own. */
type Reply = Uint8Array | undefined;

export class BackendSession {
  readonly memory = new GuestMemory();
  readonly #backend: VhostUserBackend;
  readonly #host: SessionHost;
  readonly #vrings: readonly Vring[];
  #protocolFeatures = 0n;
  #features = 0n;
  #featuresSet = false;
  #status = 0;

  constructor(backend: VhostUserBackend, host: SessionHost) {
    this.#backend = backend;
    this.#host = host;
    this.#vrings = Array.from({ length: backend.queueCount }, (_, index) => new Vring(index));
  }

  /** Features that the driver took, 0 before it did. */
  get features(): bigint {
    return this.#features;
  }

  get ringsRunning(): number {
    return this.#vrings.filter(vring => vring.queue !== undefined).length;
  }

  /** Serves one message and takes its descriptors; returns the payload of the reply, if one is due. */
  serve(
    message: Message,
  ): { readonly request: number; readonly flags: number; readonly payload: Uint8Array } | undefined {
    const name = requestName(message.request);
    const fds = new UnclaimedFds(message.fds);
    let payload: Reply;
    let failed = false;
    try {
      if (name === undefined) throw new VhostUserError(`request ${message.request} is unknown`);
      if ((message.flags & FLAG_REPLY) !== 0) throw new VhostUserError(`${name} came as a reply`);
      const fault = faultOfShape(name, message.payload.byteLength, message.fds.length);
      if (fault !== undefined) throw new VhostUserError(`${name} ${fault}`);
      payload = this.#dispatch(name, message.payload, fds);
    } catch (error) {
      if (!(error instanceof AerostatError) || (error instanceof VhostUserError && error.fatal)) throw error;
      this.#host.refused(error, { request: name ?? `request ${message.request}` });
      failed = true;
      payload = name === undefined ? undefined : failureReply(name, message.payload);
    } finally {
      fds.close();
    }
    if (payload !== undefined) return { request: message.request, flags: FLAG_REPLY, payload };
    // Looked at only now: a front-end may ask for the answer to the very request that negotiates answers.
    const acknowledges = (this.#protocolFeatures & PROTOCOL_FEATURE.REPLY_ACK) !== 0n;
    if ((message.flags & FLAG_NEED_REPLY) === 0 || !acknowledges) return undefined;
    return { request: message.request, flags: FLAG_REPLY, payload: U64.encode({ value: failed ? 1n : 0n }) };
  }

  /** The front-end is gone: all rings stop, all memory is let go, and the device starts over. */
  close(): void {
    for (const vring of this.#vrings) {
      this.#stop(vring, 'abandoned');
      vring.close();
    }
    this.#backend.reset();
    for (const region of this.memory.regions) this.#backend.regionRemoved(region);
    this.memory.close();
    this.#host.backendChannel(undefined);
  }

  /** Stops serving a ring whose indices are nonsense, until the front-end sets it up anew, with a kick. */
  breakRing(index: number, error: Error): void {
    const vring = this.#vrings[index];
    this.#host.refused(error, { ringIndex: index });
    this.#stop(vring, 'abandoned');
    vring.setKick(undefined);
    vring.started = false;
  }

  #dispatch(name: FrontendRequest, body: DataView, fds: UnclaimedFds): Reply {
    switch (name) {
      case 'GET_FEATURES':
        return U64.encode({ value: this.#backend.features | F_PROTOCOL_FEATURES });
      case 'SET_FEATURES':
        return this.#setFeatures(U64.read(body).value);
      case 'GET_PROTOCOL_FEATURES':
        return U64.encode({ value: BACKEND_PROTOCOL_FEATURES });
      case 'SET_PROTOCOL_FEATURES':
        return this.#setProtocolFeatures(U64.read(body).value);
      case 'GET_QUEUE_NUM':
        return U64.encode({ value: BigInt(this.#vrings.length) });
      // One socket is one guest, so ownership says nothing new; RESET_OWNER is deprecated and does nothing.
      case 'SET_OWNER':
      case 'RESET_OWNER':
        return undefined;
      case 'SET_MEM_TABLE':
        return this.#setMemTable(body, fds);
      case 'GET_MAX_MEM_SLOTS':
        return U64.encode({ value: BigInt(MEM_SLOTS_MAX) });
      case 'ADD_MEM_REG':
        return this.#addRegion(body, fds);
      case 'REM_MEM_REG':
        return this.#removeRegion(body);
      case 'SET_VRING_NUM':
        return this.#setVringSize(body);
      case 'SET_VRING_ADDR':
        return this.#setVringAddresses(body);
      case 'SET_VRING_BASE':
        return this.#setVringBase(body);
      case 'GET_VRING_BASE':
        return this.#getVringBase(body);
      case 'SET_VRING_ENABLE':
        return this.#enableVring(body);
      case 'SET_VRING_KICK':
        return this.#setKick(body, fds);
      case 'SET_VRING_CALL':
        this.#vringOfFd(name, body, fds).setCall(fds.take());
        return undefined;
      case 'SET_VRING_ERR':
        this.#vringOfFd(name, body, fds).setError(fds.take());
        return undefined;
      case 'SET_BACKEND_REQ_FD':
        this.#host.backendChannel(fds.take());
        return undefined;
      case 'GET_CONFIG':
        return this.#getConfig(body);
      case 'SET_CONFIG':
        return this.#setConfig(body);
      case 'RESET_DEVICE':
        this.#reset();
        return undefined;
      case 'GET_STATUS':
        return U64.encode({ value: BigInt(this.#status) });
      case 'SET_STATUS':
        return this.#setStatus(U64.read(body).value);
      default:
        throw new VhostUserError(`${name} is not supported`);
    }
  }

  #setFeatures(features: bigint): Reply {
    const offered = this.#backend.features | F_PROTOCOL_FEATURES;
    if ((features & ~offered) !== 0n) {
      throw new VhostUserError(
        `the driver took feature bits 0x${(features & ~offered).toString(16)}, which were not offered`,
      );
    }
    // A driver negotiates once. Negotiating again while rings run is how a front-end that announces no reset
    // (User Mode Linux) shows that another driver begins; the same features with all rings stopped in order
    // are a guest that was paused and goes on (QEMU), whose balloon is still what it was.
    const resumes = this.ringsRunning === 0 && features === this.#features;
    if (this.#featuresSet && !resumes) this.#restart();
    this.#features = features;
    this.#featuresSet = true;
    this.#backend.setFeatures(features & ~F_PROTOCOL_FEATURES);
    // Without protocol features there is no SET_VRING_ENABLE, and rings are enabled from the start.
    if ((features & F_PROTOCOL_FEATURES) === 0n) for (const vring of this.#vrings) vring.enabled = true;
    return undefined;
  }

  #setProtocolFeatures(features: bigint): Reply {
    const unknown = features & ~BACKEND_PROTOCOL_FEATURES;
    if (unknown !== 0n) {
      throw new VhostUserError(`protocol feature bits 0x${unknown.toString(16)} were not offered`);
    }
    this.#protocolFeatures = features;
    return undefined;
  }

  #setStatus(status: bigint): Reply {
    if (status === 0n) this.#reset();
    this.#status = Number(status & 0xffn);
    return undefined;
  }

  #reset(): void {
    this.#restart();
    this.#features = 0n;
    this.#featuresSet = false;
    this.#status = 0;
    for (const vring of this.#vrings) {
      vring.enabled = false;
      vring.base = 0;
    }
  }

  /**
   * Stops all rings and makes the device forget what it knew of the driver. Rings wait to be described anew,
   * addresses and kick: a memory table that comes before that must not start them where they were, in memory
   * that by now is somebody else's.
   */
  #restart(): void {
    for (const vring of this.#vrings) {
      this.#stop(vring, 'abandoned');
      vring.setKick(undefined);
      vring.started = false;
      vring.addresses = undefined;
    }
    this.#backend.reset();
  }

  // Memory ------------------------------------------------------------------------------------------------

  #setMemTable(body: DataView, fds: UnclaimedFds): Reply {
    const { regions: count } = MEM_TABLE_HEADER.read(body);
    if (count > MEM_TABLE_REGIONS_MAX || body.byteLength < MEM_TABLE_HEADER.size + count * MEM_REGION.size) {
      throw new VhostUserError(`SET_MEM_TABLE announces ${count} regions in ${body.byteLength} bytes`);
    }
    if (fds.count !== count) {
      throw new VhostUserError(`SET_MEM_TABLE has ${count} regions and ${fds.count} descriptors`);
    }
    // The new table is built whole and checked before anything of the old one is touched.
    const table = new GuestMemory();
    try {
      for (let index = 0; index < count; index++) {
        const region = openRegion(body, MEM_TABLE_HEADER.size + index * MEM_REGION.size, fds.take());
        addBounded(table, region);
      }
    } catch (error) {
      table.close();
      throw error;
    }
    const kept = new Set<MemoryRegion>();
    const gone: MemoryRegion[] = [];
    for (const region of this.memory.regions) {
      const same = table.regions.find(candidate => isSameRegion(candidate, region));
      if (same === undefined) gone.push(region);
      else kept.add(same);
    }
    const paused = this.#pauseRingsIn(gone);
    for (const region of gone) this.#dropRegion(region);
    for (const region of table.regions) {
      if (kept.has(region)) region.close();
      else this.#keepRegion(region);
    }
    this.#startAll(paused);
    return undefined;
  }

  #addRegion(body: DataView, fds: UnclaimedFds): Reply {
    if (this.memory.regions.length >= MEM_SLOTS_MAX) {
      throw new VhostUserError(`ADD_MEM_REG would make more than ${MEM_SLOTS_MAX} regions`);
    }
    this.#keepRegion(openRegion(body, SINGLE_REGION_PADDING, fds.take()));
    this.#startAll();
    return undefined;
  }

  #removeRegion(body: DataView): Reply {
    const addresses = MEM_REGION.read(body, SINGLE_REGION_PADDING);
    const region = this.memory.regions.find(candidate => haveSameAddresses(candidate, addresses));
    if (region === undefined) throw new VhostUserError('REM_MEM_REG names a region that is not there');
    const paused = this.#pauseRingsIn([region]);
    this.#dropRegion(region);
    this.#startAll(paused);
    return undefined;
  }

  /** Takes ownership, also when it throws. */
  #keepRegion(region: MemoryRegion): void {
    addBounded(this.memory, region);
    this.#backend.regionAdded(region);
  }

  #dropRegion(region: MemoryRegion): void {
    this.#backend.regionRemoved(region);
    this.memory.remove(region);
    region.close();
  }

  /**
   * Stops the rings that lie in regions about to go, while their memory is still there. They go on where they
   * stopped as soon as there is memory at their addresses again, which may be the same, handed over anew.
   */
  #pauseRingsIn(regions: readonly MemoryRegion[]): Vring[] {
    const paused = this.#vrings.filter(vring => vring.queue !== undefined && vring.liesIn(regions));
    for (const vring of paused) this.#stop(vring, 'paused');
    return paused;
  }

  // Rings -------------------------------------------------------------------------------------------------

  #vring(index: number): Vring {
    const vring = this.#vrings[index];
    if (vring === undefined) {
      throw new VhostUserError(`ring ${index} does not exist; the device has ${this.#vrings.length}`);
    }
    return vring;
  }

  #setVringSize(body: DataView): Reply {
    const { index, num } = VRING_STATE.read(body);
    const vring = this.#vring(index);
    if (num < 1 || num > QUEUE_SIZE_MAX) {
      throw new VhostUserError(`ring ${index} cannot have ${num} entries; it has 1 to ${QUEUE_SIZE_MAX}`);
    }
    // A ring that is described anew while it runs was abandoned by a front-end that announces no reset.
    this.#stop(vring, 'abandoned');
    vring.size = num;
    return undefined;
  }

  #setVringAddresses(body: DataView): Reply {
    const { index, descriptorTable, availRing, usedRing } = VRING_ADDRESSES.read(body);
    const vring = this.#vring(index);
    const now = vring.addresses;
    const unchanged =
      now?.descriptorTable === descriptorTable && now.availRing === availRing && now.usedRing === usedRing;
    // The same addresses are sent again to switch logging, which is no reason to stop a running ring.
    if (!unchanged) this.#stop(vring, 'abandoned');
    vring.addresses = { descriptorTable, availRing, usedRing };
    this.#start(vring);
    return undefined;
  }

  #setVringBase(body: DataView): Reply {
    const { index, num } = VRING_STATE.read(body);
    const vring = this.#vring(index);
    this.#stop(vring, 'abandoned');
    vring.base = num;
    return undefined;
  }

  #getVringBase(body: DataView): Reply {
    const { index } = VRING_STATE.read(body);
    const vring = this.#vring(index);
    this.#stop(vring, 'paused');
    vring.started = false;
    vring.setKick(undefined);
    return VRING_STATE.encode({ index, num: vring.base });
  }

  #enableVring(body: DataView): Reply {
    const { index, num } = VRING_STATE.read(body);
    if (num > 1) throw new VhostUserError(`SET_VRING_ENABLE of ring ${index} to ${num}`);
    const vring = this.#vring(index);
    vring.enabled = num === 1;
    if (vring.enabled) this.#start(vring);
    else this.#stop(vring, 'paused');
    return undefined;
  }

  #setKick(body: DataView, fds: UnclaimedFds): Reply {
    const vring = this.#vringOfFd('SET_VRING_KICK', body, fds);
    const fd = fds.take();
    if (fd === undefined) {
      // Without a descriptor we would have to poll the ring all the time; no front-end of a balloon does.
      throw new VhostUserError(`SET_VRING_KICK of ring ${vring.index} without a descriptor is not supported`);
    }
    vring.setKick(fd);
    vring.started = true;
    if (vring.queue !== undefined) this.#watchKick(vring, fd);
    this.#start(vring);
    return undefined;
  }

  /** The ring that a doorbell message is about; checks that it has a descriptor just when it says so. */
  #vringOfFd(request: string, body: DataView, fds: UnclaimedFds): Vring {
    const { value } = U64.read(body);
    if ((value & ~(VRING_FD_INDEX_MASK | VRING_FD_NONE)) !== 0n) {
      throw new VhostUserError(`${request} has reserved bits set: 0x${value.toString(16)}`);
    }
    const announced = (value & VRING_FD_NONE) === 0n ? 1 : 0;
    if (fds.count !== announced) {
      throw new VhostUserError(`${request} announces ${announced} descriptors and brought ${fds.count}`);
    }
    return this.#vring(Number(value & VRING_FD_INDEX_MASK));
  }

  /** Starts what can start; says so of those in `expected` that cannot. */
  #startAll(expected: readonly Vring[] = []): void {
    for (const vring of this.#vrings) this.#start(vring);
    for (const vring of expected) {
      if (vring.queue !== undefined) continue;
      const error = new VhostUserError(`ring ${vring.index} stops, since its memory was taken away`);
      this.#host.refused(error, { ringIndex: vring.index });
    }
  }

  /** Starts the ring if all that it needs is there and it does not run yet. */
  #start(vring: Vring): void {
    if (vring.queue !== undefined || !vring.complete || vring.kick === undefined) return;
    try {
      const queue = openQueue(vring, this.memory, this.#features);
      // Memory may still be on its way: rings start when the table that holds them has come.
      if (queue === undefined) return;
      vring.queue = queue;
    } catch (error) {
      if (!(error instanceof AerostatError)) throw error;
      this.#host.refused(error, { ringIndex: vring.index });
      return;
    }
    this.#backend.startQueue(vring.index, vring.queue, this.memory, this.#doorbell(vring));
    this.#watchKick(vring, vring.kick);
    // Kicks that were sent before we watched are lost; what they announced is not.
    this.#backend.serveQueue(vring.index);
  }

  #stop(vring: Vring, reason: StopReason): void {
    if (vring.queue === undefined) return;
    vring.kickWatch?.stop();
    vring.kickWatch = undefined;
    this.#backend.stopQueue(vring.index, reason);
    // An abandoned ring has no place to go on from: the front-end says where the next one starts.
    if (reason === 'paused') vring.base = ringBaseOf(vring.queue, this.#features);
    vring.queue = undefined;
  }

  #watchKick(vring: Vring, fd: OwnedFd): void {
    vring.kickWatch?.stop();
    const watch = this.#host.reactor.watch(fd, () => {
      if (!silence(fd)) {
        // The front-end closed its end or never gave a doorbell; waiting on it further would spin.
        watch.stop();
        this.#host.refused(new VhostUserError(`the kick descriptor of ring ${vring.index} is no doorbell`), {
          ringIndex: vring.index,
        });
        return;
      }
      this.#backend.serveQueue(vring.index);
    });
    vring.kickWatch = watch;
  }

  #doorbell(vring: Vring): RingDoorbell {
    return {
      interrupt: () => {
        if (vring.call !== undefined) ring(vring.call);
      },
      fail: () => {
        if (vring.error !== undefined) ring(vring.error);
      },
    };
  }

  // Configuration space -----------------------------------------------------------------------------------

  #getConfig(body: DataView): Reply {
    const { offset, size, flags } = CONFIG_HEADER.read(body);
    if (offset + size > CONFIG_BYTES_MAX) {
      throw new VhostUserError(`GET_CONFIG of ${size} bytes at ${offset} reaches beyond ${CONFIG_BYTES_MAX}`);
    }
    const reply = new Uint8Array(CONFIG_HEADER.size + size);
    CONFIG_HEADER.write(new DataView(reply.buffer), 0, { offset, size, flags });
    this.#backend.readConfig(offset, reply.subarray(CONFIG_HEADER.size));
    return reply;
  }

  #setConfig(body: DataView): Reply {
    const { offset, size } = CONFIG_HEADER.read(body);
    if (offset + size > CONFIG_BYTES_MAX || body.byteLength !== CONFIG_HEADER.size + size) {
      throw new VhostUserError(
        `SET_CONFIG of ${size} bytes at ${offset} with ${body.byteLength} bytes of payload`,
      );
    }
    // A copy: the payload's buffer is used again for the next message.
    const start = body.byteOffset + CONFIG_HEADER.size;
    this.#backend.writeConfig(offset, new Uint8Array(body.buffer.slice(start, start + size) as ArrayBuffer));
    return undefined;
  }
}

/** Refused requests that have a reply of their own are answered with the protocol's way to say "no". */
function failureReply(name: FrontendRequest, body: DataView): Reply {
  switch (name) {
    // "On failure the back-end replies with a configuration of size 0."
    case 'GET_CONFIG':
      return CONFIG_HEADER.encode({ offset: 0, size: 0, flags: 0 });
    case 'GET_VRING_BASE':
      return VRING_STATE.encode({ index: body.byteLength >= 4 ? body.getUint32(0, true) : 0, num: 0 });
    default:
      return undefined;
  }
}

function openRegion(body: DataView, at: number, fd: OwnedFd | undefined): MemoryRegion {
  if (fd === undefined) throw new VhostUserError('a memory region came without its descriptor');
  const { mmapOffset, ...addresses } = MEM_REGION.read(body, at);
  const backing = new FileBacking(fd, mmapOffset, addresses.size);
  try {
    return new MemoryRegion(addresses, backing);
  } catch (error) {
    backing.close();
    throw error;
  }
}

/**
 * Adds a region to a table; takes ownership, also when it throws.
 * @throws AerostatError when it overlaps another, or there is too much memory
 */
function addBounded(table: GuestMemory, region: MemoryRegion): void {
  try {
    if (table.size + region.size > MEMORY_BYTES_MAX) {
      throw new VhostUserError(`guest memory would have more than ${MEMORY_BYTES_MAX} bytes`);
    }
    table.add(region);
  } catch (error) {
    region.close();
    throw error;
  }
}

const haveSameAddresses = (a: RegionAddresses, b: RegionAddresses): boolean =>
  a.guestAddress === b.guestAddress && a.size === b.size && a.userAddress === b.userAddress;

function isSameRegion(a: MemoryRegion, b: MemoryRegion): boolean {
  if (!haveSameAddresses(a, b)) return false;
  if (!(a.backing instanceof FileBacking && b.backing instanceof FileBacking)) return false;
  return a.backing.fileOffset === b.backing.fileOffset && a.backing.identity === b.backing.identity;
}
