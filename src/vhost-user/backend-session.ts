/**
 * The back-end's side of one vhost-user conversation: the rules of what follows what. It is fed with whole
 * messages, keeps guest memory and the rings' descriptors, and drives a {@link VirtioDevice}. It knows
 * nothing of what the device does, and it reads no socket.
 *
 * A request that is refused changes nothing, is answered as a failure where an answer was asked for, and
 * leaves the conversation going.
 */
import { GuestMemory } from '../memory/guest-memory.ts';
import { AerostatError } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { readConfigOf, readConfigWrite } from './backend-config.ts';
import { offeredProtocolFeatures, TRANSPORT_FEATURES } from './backend-features.ts';
import { BackendLog } from './backend-log.ts';
import { BackendMemory, type OpenSavedRegion } from './backend-memory.ts';
import { BackendRings } from './backend-rings.ts';
import type { Message } from './connection.ts';
import { DeviceStateTransfer } from './device-state.ts';
import {
  F_LOG_ALL,
  F_PROTOCOL_FEATURES,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  type FrontendRequest,
  faultOfShape,
  isRefusal,
  MEM_SLOTS_MAX,
  PROTOCOL_FEATURE,
  requestName,
  U64,
  VhostUserError,
} from './protocol.ts';
import { refusalReply } from './refusals.ts';
import { FdCollector, type FdList, SavedFds } from './saved-fds.ts';
import {
  decodeSession,
  encodeSession,
  type SavedSession,
  type SessionState,
  SessionStateError,
} from './saved-session.ts';
import type { SessionHost, SessionReply } from './session-host.ts';
import { UnclaimedFds } from './unclaimed-fds.ts';

/** Bytes of a reply's payload; undefined: the request has no reply of its own. */
type Reply = Uint8Array | undefined;

const number = (value: number): Uint8Array => U64.encode({ value: BigInt(value) });

type Requests<Result> = {
  readonly [Name in FrontendRequest]?: (session: BackendSession, body: DataView, fds: UnclaimedFds) => Result;
};

export class BackendSession {
  readonly memory = new GuestMemory();
  readonly #device: VirtioDevice;
  readonly #host: SessionHost;
  readonly #rings: BackendRings;
  readonly #table: BackendMemory;
  readonly #log = new BackendLog(this.memory);
  #protocolFeatures = 0n;
  #status = 0;
  /** A front-end took the device over. */
  #owned = false;
  #closed = false;
  readonly #offered: bigint;
  readonly #state: DeviceStateTransfer | undefined;
  /** What goes with the reply under way. */
  #replied: OwnedFd[] = [];

  constructor(device: VirtioDevice, host: SessionHost) {
    const { deviceState } = host;
    this.#state = deviceState && new DeviceStateTransfer(deviceState);
    this.#offered = offeredProtocolFeatures({ saved: deviceState !== undefined });
    this.#device = device;
    this.#host = host;
    this.#rings = new BackendRings(device, this.memory, host);
    this.#table = new BackendMemory(this.memory, device, this.#rings);
  }

  /** Features that the driver took, 0 before it did. */
  get features(): bigint {
    return this.#rings.features ?? 0n;
  }

  /** Rings that the front-end set up before there was a driver, as QEMU does with all that it has; 0 once there is one. */
  get ringsSetUp(): number {
    return this.#rings.features === undefined ? this.#rings.withCall : 0;
  }

  get ringsRunning(): number {
    return this.#rings.running;
  }

  /** Serves one message and takes its descriptors; returns the payload of the reply, if one is due. */
  serve(message: Message): SessionReply | undefined {
    const name = requestName(message.request);
    const fds = new UnclaimedFds(message.fds);
    const isReply = (message.flags & FLAG_REPLY) !== 0;
    let payload: Reply;
    let failed = false;
    try {
      if (name === undefined) throw new VhostUserError(`request ${message.request} is unknown`);
      if (isReply) throw new VhostUserError(`${name} came as a reply`);
      const fault = faultOfShape(name, message.payload.byteLength, message.fds.length);
      if (fault !== undefined) throw new VhostUserError(`${name} ${fault}`);
      payload = this.#dispatch(name, message.payload, fds);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      // Its number is in the error's message, and not here: logs are limited by this name.
      this.#host.refused(error, { request: name ?? 'unknown request' });
      failed = true;
      payload = name === undefined ? undefined : refusalReply(name, message.payload);
    } finally {
      fds.close();
    }
    // Answering an answer could go on for ever.
    if (isReply) return undefined;
    if (payload !== undefined) {
      return { request: message.request, flags: FLAG_REPLY, payload, fds: this.#replied.splice(0) };
    }
    // Looked at only now: a front-end may ask for the answer to the very request that negotiates answers.
    const acknowledges = (this.#protocolFeatures & PROTOCOL_FEATURE.REPLY_ACK) !== 0n;
    if ((message.flags & FLAG_NEED_REPLY) === 0 || !acknowledges) return undefined;
    return { request: message.request, flags: FLAG_REPLY, payload: number(failed ? 1 : 0), fds: [] };
  }

  /** The front-end is gone: all rings stop, all memory is let go, and the device starts over. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#rings.close();
    this.#device.reset();
    this.#log.clear();
    this.#state?.close();
    this.#table.close();
    this.#host.backendChannel(undefined);
  }

  // Handing over ------------------------------------------------------------------------------------------

  /**
   * Another process has the session, which was suspended: what of it is this process's goes, and nothing that is shared with
   * that process changes.
   */
  abandon(): void {
    if (this.#closed) return;
    this.#closed = true;
    // They are not stopped, for that would change what the two share.
    this.#rings.releaseAll();
    this.#log.clear();
    this.#table.close();
    this.#host.backendChannel(undefined);
  }

  /**
   * The rings stand still, so that the session can be saved as soon as the device has settled once more. The device, which has
   * settled before, keeps what it knows of the guest and discards nothing.
   */
  suspend(): void {
    this.#rings.suspendAll();
  }

  /** The rings go on, where they were suspended or loaded. */
  resume(): void {
    this.#rings.startAll();
  }

  /**
   * All that the front-end has said, for a session of another process: rings are suspended. This session stays as it is, and
   * may be resumed. `channel` is the one for requests of the back-end; it is duplicated by the caller.
   */
  save(channel: OwnedFd | undefined): SavedSession {
    if (this.#rings.inflight.used) {
      throw new SessionStateError('its front-end keeps what is in flight, and goes on by that');
    }
    const fds = new FdCollector();
    const state = this.#snapshot(fds, fds.add(channel));
    return { bytes: encodeSession(state, fds.fds.length), fds: fds.fds };
  }

  /** The same while rings run, for a session that goes on if this process ends at any moment. */
  record(channel: OwnedFd | undefined, fds: FdList & { readonly count: number }): Uint8Array {
    return encodeSession(this.#snapshot(fds, fds.note(channel)), fds.count);
  }

  #snapshot(fds: FdList, channel: number | undefined): SessionState {
    return {
      features: this.#rings.features,
      protocolFeatures: this.#protocolFeatures,
      status: this.#status,
      owned: this.#owned,
      channel,
      ...this.#rings.writtenAtRest.save(),
      regions: this.#table.save(fds),
      rings: this.#rings.save(fds),
      ...this.#log.save(fds),
      inflight: this.#rings.inflight.save(fds),
    };
  }

  /**
   * A session that has not begun goes on where the saved one stopped, with the device told of features and memory. Rings
   * start at {@link resume}, before which the device is to be loaded. Takes ownership of the descriptors.
   * @throws SessionStateError; the session is as it was
   */
  load({ bytes, fds }: SavedSession, open?: OpenSavedRegion): void {
    const descriptors = new SavedFds(fds);
    try {
      const state = decodeSession(bytes, fds.length);
      const offered = this.#device.features | F_PROTOCOL_FEATURES;
      if (((state.features ?? 0n) & ~offered) !== 0n) {
        throw new SessionStateError('its driver took features that are not offered here');
      }
      if ((state.protocolFeatures & ~this.#offered) !== 0n) {
        throw new SessionStateError('its front-end took protocol features that are not offered here');
      }
      this.#loadParts(state, descriptors, open);
    } catch (error) {
      if (error instanceof SessionStateError || !(error instanceof AerostatError)) throw error;
      throw new SessionStateError(error.message, { cause: error });
    } finally {
      descriptors.close();
    }
  }

  #loadParts(state: SessionState, fds: SavedFds, open: OpenSavedRegion | undefined): void {
    try {
      this.#rings.load(state.rings, fds);
      const channel = fds.take(state.channel);
      if (channel !== undefined) this.#host.backendChannel(channel);
      this.#table.load(state.regions, fds, open);
      this.#log.load(state, this.#rings.logged, fds);
      this.#rings.inflight.load(state, fds);
      this.#rings.findPlaces();
    } catch (error) {
      this.#rings.forgetAll();
      this.#rings.abandonAll();
      this.#rings.releaseAll();
      this.#log.clear();
      this.#host.backendChannel(undefined);
      throw error;
    }
    this.#rings.features = state.features;
    this.#rings.writtenAtRest.load(state);
    this.#protocolFeatures = state.protocolFeatures;
    this.#status = state.status;
    this.#owned = state.owned;
    if (state.features !== undefined) this.#device.setFeatures(state.features & ~F_PROTOCOL_FEATURES);
  }

  #dispatch(name: FrontendRequest, body: DataView, fds: UnclaimedFds): Reply {
    const answer = BackendSession.#ANSWERS[name];
    if (answer !== undefined) return answer(this, body, fds);
    const act = BackendSession.#ACTIONS[name];
    if (act === undefined) throw new VhostUserError(`${name} is not supported`);
    act(this, body, fds);
    return undefined;
  }

  /** The way of the device's state, which may be moved while no ring runs. */
  #stateAtRest(): DeviceStateTransfer {
    if (this.#state === undefined) throw new VhostUserError('the state of this device cannot be moved');
    if (this.#rings.running > 0)
      throw new VhostUserError('the state of a device whose rings run was to be moved');
    return this.#state;
  }

  /**
   * A front-end takes the device over. On a connection that had one already, the former left without a word, as
   * QEMU's device does that is unplugged while its character device stays: what it said of memory and rings is void.
   * Protocol features and the channel are the new one's, for QEMU sends both before this.
   */
  #begin(): void {
    const former = this.#owned;
    this.#owned = true;
    if (!former) return;
    if (this.#rings.features !== undefined || this.memory.regions.length > 0) this.#reset();
    this.#rings.releaseAll();
    this.#log.clear();
    this.#table.clear();
    this.#host.taken?.();
  }

  #setFeatures(taken: bigint): void {
    const unknown = taken & ~(this.#device.features | TRANSPORT_FEATURES);
    if (unknown !== 0n) {
      throw new VhostUserError(
        `the driver took feature bits 0x${unknown.toString(16)}, which were not offered`,
      );
    }
    const features = taken & ~F_LOG_ALL;
    // A front-end begins or ends the move of its guest, whose driver negotiates nothing.
    if (this.#log.switched(taken) && features === this.#rings.features) return;
    // A driver negotiates once. Negotiating again while rings run is how a front-end that announces no reset
    // (User Mode Linux) shows that another driver begins. The same features with all rings stopped in order are a
    // guest that was paused and goes on (QEMU), or another driver after all (Cloud Hypervisor): the rings will tell.
    const before = this.#rings.features;
    const mayGoOn = this.ringsRunning === 0 && features === before;
    if (before !== undefined && !mayGoOn) this.#restart();
    this.#rings.features = features;
    if (!mayGoOn) this.#device.setFeatures(features & ~F_PROTOCOL_FEATURES);
    // Without protocol features there is no SET_VRING_ENABLE, and rings are enabled from the start.
    if ((features & F_PROTOCOL_FEATURES) === 0n) this.#rings.enableAll();
    this.#rings.startAll();
  }

  #setProtocolFeatures(features: bigint): void {
    const unknown = features & ~this.#offered;
    if (unknown !== 0n) {
      throw new VhostUserError(`protocol feature bits 0x${unknown.toString(16)} were not offered`);
    }
    this.#protocolFeatures = features;
  }

  #setStatus(status: bigint): void {
    if (status === 0n) this.#reset();
    this.#status = Number(status & 0xffn);
  }

  #reset(): void {
    this.#restart();
    this.#rings.forgetAll();
    this.#status = 0;
  }

  /** Stops all rings and makes the device forget what it knew of the driver. */
  #restart(): void {
    this.#rings.abandonAll();
    this.#device.reset();
  }

  #setConfig(body: DataView): void {
    const { offset, bytes } = readConfigWrite(body);
    if (this.ringsRunning === 0) this.#rings.writtenAtRest.note(offset, bytes);
    this.#device.writeConfig(offset, bytes);
  }

  // What each request does ---------------------------------------------------------------------------------

  /** Those that have a reply of their own. */
  static readonly #ANSWERS: Requests<Uint8Array> = {
    GET_FEATURES: session => U64.encode({ value: session.#device.features | TRANSPORT_FEATURES }),
    GET_PROTOCOL_FEATURES: session => U64.encode({ value: session.#offered }),
    GET_QUEUE_NUM: session => number(session.#rings.count),
    GET_MAX_MEM_SLOTS: () => number(MEM_SLOTS_MAX),
    GET_VRING_BASE: (session, body) => session.#rings.getBase(body),
    GET_CONFIG: (session, body) => readConfigOf(session.#device, body),
    GET_STATUS: session => number(session.#status),
    SET_LOG_BASE: (session, body, fds) => {
      session.#log.setBase(body, fds);
      return number(0);
    },
    GET_INFLIGHT_FD: (session, body) => {
      const { reply, fd } = session.#rings.inflight.create(body, session.#rings.features);
      session.#replied = [fd];
      return reply;
    },
    SET_DEVICE_STATE_FD: (session, body) => {
      session.#replied = [session.#stateAtRest().begin(body)];
      return number(0);
    },
    CHECK_DEVICE_STATE: session => {
      session.#stateAtRest().check();
      return number(0);
    },
  };

  /** Those that are acknowledged at most. */
  static readonly #ACTIONS: Requests<void> = {
    SET_FEATURES: (session, body) => session.#setFeatures(U64.read(body).value),
    SET_PROTOCOL_FEATURES: (session, body) => session.#setProtocolFeatures(U64.read(body).value),
    SET_OWNER: session => session.#begin(),
    // Deprecated, and does nothing.
    RESET_OWNER: () => {},
    SET_MEM_TABLE: (session, body, fds) => session.#table.setTable(body, fds),
    ADD_MEM_REG: (session, body, fds) => session.#table.add(body, fds),
    REM_MEM_REG: (session, body) => session.#table.remove(body),
    SET_VRING_NUM: (session, body) => session.#rings.setSize(body),
    SET_LOG_FD: (session, _, fds) => session.#log.setDoorbell(fds),
    SET_VRING_ADDR: (session, body) => {
      session.#rings.setAddresses(body);
      session.#log.ringsLogged(session.#rings.logged);
    },
    SET_VRING_BASE: (session, body) => session.#rings.setBase(body),
    SET_VRING_ENABLE: (session, body) => session.#rings.enable(body),
    SET_VRING_KICK: (session, body, fds) => session.#rings.setKick(body, fds),
    SET_VRING_CALL: (session, body, fds) => session.#rings.setCall(body, fds),
    SET_VRING_ERR: (session, body, fds) => session.#rings.setError(body, fds),
    SET_BACKEND_REQ_FD: (session, _, fds) => session.#host.backendChannel(fds.take()),
    SET_INFLIGHT_FD: (session, body, fds) => session.#rings.inflight.take(body, session.#rings.features, fds),
    SET_CONFIG: (session, body) => session.#setConfig(body),
    RESET_DEVICE: session => session.#reset(),
    SET_STATUS: (session, body) => session.#setStatus(U64.read(body).value),
  };
}
