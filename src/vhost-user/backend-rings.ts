/**
 * The rings of a back-end: what the front-end says about each, message by message, when one is complete enough
 * to run, and its doorbells while it does. What runs on a ring is the device's.
 */
import type { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { silenceEventFd } from '../sys/peer-doorbell.ts';
import type { Doorbell, StopReason, VirtioDevice } from '../virtio/device.ts';
import { type DeviceQueue, QUEUE_SIZE_MAX, type QueueConfig } from '../virtio/queue.ts';
import { BackendInflight } from './backend-inflight.ts';
import { ConfigWrites } from './config-writes.ts';
import {
  F_PROTOCOL_FEATURES,
  type FrontendRequest,
  isRefusal,
  VhostUserError,
  VRING_ADDRESSES,
  VRING_FLAG_LOG,
  VRING_STATE,
} from './protocol.ts';
import { isAnotherRing, openRing } from './ring.ts';
import { RingPlace } from './ring-place.ts';
import type { FdList, SavedFds } from './saved-fds.ts';
import { type SavedRing, SessionStateError } from './saved-session.ts';
import type { SessionHost } from './session-host.ts';
import type { UnclaimedFds } from './unclaimed-fds.ts';
import { ringOfDoorbell, Vring } from './vring.ts';

type RingsHost = Pick<SessionHost, 'reactor' | 'refused' | 'kicked' | 'kept'>;

export class BackendRings {
  /** What the driver took, once it did: it decides what kind of queue a ring is, so none runs before. */
  features: bigint | undefined;
  /** What the driver wrote into the configuration space while no ring ran. */
  readonly writtenAtRest = new ConfigWrites();
  /** Where the front-end has it noted what is in flight. */
  readonly inflight = new BackendInflight();
  readonly #device: VirtioDevice;
  readonly #memory: GuestMemory;
  readonly #host: RingsHost;
  readonly #vrings: readonly Vring[];

  constructor(device: VirtioDevice, memory: GuestMemory, host: RingsHost) {
    this.#device = device;
    this.#memory = memory;
    this.#host = host;
    this.#vrings = Array.from({ length: device.queueCount }, (_, index) => new Vring(index));
  }

  get count(): number {
    return this.#vrings.length;
  }

  /** Rings that have a call descriptor. */
  get withCall(): number {
    return this.#vrings.filter(({ call }) => call !== undefined).length;
  }

  /** The front-end has a ring's writes logged. */
  get logged(): boolean {
    return this.#vrings.some(vring => vring.logged);
  }

  get running(): number {
    return this.#vrings.filter(vring => vring.running).length;
  }

  // Requests ----------------------------------------------------------------------------------------------
  // A ring that is described anew while it runs was abandoned by a front-end that announces no reset. It runs
  // again when its kick descriptor comes, which every front-end sends last. What a description of a ring that stopped
  // in order means shows when the first ring starts.

  setSize(body: DataView): void {
    const { index, num } = VRING_STATE.read(body);
    const vring = this.#vring(index);
    if (num < 1 || num > QUEUE_SIZE_MAX) {
      throw new VhostUserError(`ring ${index} cannot have ${num} entries; it has 1 to ${QUEUE_SIZE_MAX}`);
    }
    if (vring.running) this.#stop(vring, 'abandoned');
    vring.size = num;
  }

  setAddresses(body: DataView): void {
    const { index, flags, descriptorTable, availRing, usedRing } = VRING_ADDRESSES.read(body);
    const vring = this.#vring(index);
    vring.logged = (flags & VRING_FLAG_LOG) !== 0;
    const now = vring.addresses;
    const unchanged =
      now?.descriptorTable === descriptorTable && now.availRing === availRing && now.usedRing === usedRing;
    // The same addresses are sent again to switch logging, which is no reason to stop a running ring.
    if (!unchanged && vring.running) this.#stop(vring, 'abandoned');
    vring.addresses = { descriptorTable, availRing, usedRing };
    this.#start(vring);
  }

  setBase(body: DataView): void {
    const { index, num } = VRING_STATE.read(body);
    const vring = this.#vring(index);
    if (vring.running) this.#stop(vring, 'abandoned');
    vring.base = num;
  }

  /** Stops the ring; returns the reply, which says where it stopped. */
  getBase(body: DataView): Uint8Array {
    const { index } = VRING_STATE.read(body);
    const vring = this.#vring(index);
    this.#stop(vring, 'paused');
    vring.withdrawKick();
    return VRING_STATE.encode({ index, num: vring.base });
  }

  enable(body: DataView): void {
    const { index, num } = VRING_STATE.read(body);
    if (num > 1) throw new VhostUserError(`SET_VRING_ENABLE of ring ${index} to ${num}`);
    const vring = this.#vring(index);
    vring.enabled = num === 1;
    if (vring.enabled) this.#start(vring);
    else this.#suspend(vring);
  }

  setKick(body: DataView, fds: UnclaimedFds): void {
    const vring = this.#vringOfFd('SET_VRING_KICK', body, fds);
    const fd = fds.take();
    if (fd === undefined) {
      // Without a descriptor we would have to poll the ring all the time; no front-end of a balloon does.
      throw new VhostUserError(`SET_VRING_KICK of ring ${vring.index} without a descriptor is not supported`);
    }
    vring.setKick(fd);
    if (vring.running) this.#watchKick(vring, fd);
    this.#start(vring);
  }

  setCall(body: DataView, fds: UnclaimedFds): void {
    this.#vringOfFd('SET_VRING_CALL', body, fds).setCall(fds.take());
  }

  setError(body: DataView, fds: UnclaimedFds): void {
    this.#vringOfFd('SET_VRING_ERR', body, fds).setError(fds.take());
  }

  // The device's life -------------------------------------------------------------------------------------

  /** Enables all rings. */
  enableAll(): void {
    for (const vring of this.#vrings) vring.enabled = true;
  }

  /**
   * Stops all rings. They wait to be described anew, addresses and kick: a memory table that comes before that
   * must not start them where they were, in memory that by now has another use.
   */
  abandonAll(): void {
    this.inflight.forget();
    for (const vring of this.#vrings) {
      this.#stop(vring, 'abandoned');
      vring.withdrawKick();
      vring.addresses = undefined;
      vring.left = undefined;
    }
  }

  /** All rings are as in the beginning; they were stopped before. */
  forgetAll(): void {
    this.features = undefined;
    this.writtenAtRest.clear();
    for (const vring of this.#vrings) {
      vring.enabled = false;
      vring.base = 0;
      vring.left = undefined;
    }
  }

  /**
   * Stops the rings that lie in regions about to go, while their memory is still there; returns them. They go
   * on where they stopped as soon as there is memory at their addresses again, which may be the same, handed
   * over anew.
   */
  pauseIn(regions: readonly MemoryRegion[]): Vring[] {
    const inside = this.#vrings.filter(vring => vring.queue !== undefined && vring.liesIn(regions));
    const paused = inside.filter(vring => vring.running);
    for (const vring of inside) this.#stop(vring, vring.suspended ? 'undecided' : 'paused');
    return paused;
  }

  /** Starts what can start; says so of those in `expected` that cannot. */
  startAll(expected: readonly Vring[] = []): void {
    for (const vring of this.#vrings) this.#start(vring);
    for (const vring of expected) {
      if (vring.running) continue;
      const error = new VhostUserError(`ring ${vring.index} stops, since its memory was taken away`);
      this.#host.refused(error, { ringIndex: vring.index });
    }
  }

  /** Lets go of the descriptors of rings that were stopped before: the next front-end brings its own. */
  releaseAll(): void {
    this.inflight.clear();
    for (const vring of this.#vrings) {
      vring.close();
      vring.size = 0;
    }
  }

  /** Stops all rings for good, and lets go of their descriptors. */
  close(): void {
    this.inflight.clear();
    for (const vring of this.#vrings) {
      this.#stop(vring, 'abandoned');
      vring.close();
    }
  }

  // Handing over ------------------------------------------------------------------------------------------

  /**
   * Every ring stands still from now on, as if the front-end had disabled it. {@link startAll} has them go on, as long as the
   * front-end has said nothing meanwhile.
   */
  suspendAll(): void {
    for (const vring of this.#vrings) this.#suspend(vring);
  }

  readonly save = (fds: FdList): SavedRing[] =>
    this.#vrings.map(vring => ({ ...vring.save(fds), noted: this.inflight.hasBegun(vring.index) }));

  /**
   * Takes over rings that were saved, before anything was said of these. None starts before {@link startAll}.
   * @throws SessionStateError, VhostUserError; the rings are to be released then
   */
  load(saved: readonly SavedRing[], fds: SavedFds): void {
    if (saved.length !== this.count) {
      throw new SessionStateError(`it has ${saved.length} rings, and the device ${this.count}`);
    }
    for (const [index, ring] of saved.entries()) this.#vrings[index].load(ring, fds);
  }

  /** The memory is there in which loaded rings lie. @throws VirtqueueError, MemoryAccessError */
  findPlaces(): void {
    for (const vring of this.#vrings) vring.findPlace(this.#memory, this.#host.kept);
  }

  // Parts -------------------------------------------------------------------------------------------------

  #vring(index: number): Vring {
    const vring = this.#vrings[index];
    if (vring === undefined) {
      const { count } = this;
      throw new VhostUserError(
        `ring ${index} does not exist: the device has ${count}, from 0 on; QEMU's generic device needs num_vqs=${count}`,
      );
    }
    return vring;
  }

  /** The ring that a doorbell message is about; checks that it has a descriptor just when it says so. */
  #vringOfFd(request: FrontendRequest, body: DataView, fds: UnclaimedFds): Vring {
    return this.#vring(ringOfDoorbell(request, body, fds.count));
  }

  /** Starts the ring if all that it needs is there and it does not run yet. */
  #start(vring: Vring): void {
    const { features } = this;
    if (features === undefined || vring.running || !vring.complete) return;
    if (this.#vrings.some(other => isAnotherRing(other, this.#memory, features))) this.#beginAnew(features);
    if (vring.suspended && vring.left!.keepsBuffersAt(vring.base)) {
      this.#resume(vring);
    } else {
      // Its queue stands behind buffers that this ring has yet to bring.
      if (vring.suspended) this.#stop(vring, 'undecided');
      this.#open(vring, features);
    }
    if (vring.running) this.writtenAtRest.clear();
  }

  #open(vring: Vring, features: bigint): void {
    const { index, kick } = vring;
    if (kick === undefined) return;
    try {
      const outliving = { kept: this.#host.kept, inflight: this.inflight };
      const ring = openRing(vring, this.#memory, features, outliving);
      // Memory may still be on its way: rings start when the table that holds them has come.
      if (ring === undefined) return;
      vring.queue = ring.queue;
      vring.config = ring.config;
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.#host.refused(error, { ringIndex: index });
      return;
    }
    vring.left = undefined;
    this.#device.startQueue(index, vring.queue, this.#memory, this.#doorbell(vring));
    // Of a ring that was saved while it ran it is not known whether its driver was told of what was returned last.
    if (vring.ran) vring.call?.ring();
    vring.ran = false;
    this.#watchKick(vring, kick);
    // Kicks that were sent before we watched are lost; what they announced is not.
    this.#device.serveQueue(index);
  }

  /**
   * The front-end disabled the ring. Some pause their guest by that and enable the ring again; others say with it that
   * a driver is gone, and describe the rings of the next one.
   */
  #suspend(vring: Vring): void {
    if (!vring.running) return;
    this.#unwatchKick(vring);
    this.#device.suspendQueue(vring.index);
    vring.suspended = true;
    vring.left = RingPlace.of(vring.config!, vring.queue!);
    vring.base = vring.left.base;
  }

  #resume(vring: Vring): void {
    vring.suspended = false;
    vring.left = undefined;
    this.#device.resumeQueue(vring.index);
    this.#watchKick(vring, vring.kick!);
    this.#device.serveQueue(vring.index);
  }

  /**
   * The rings are another driver's: what is known of the last one is forgotten, before the first of them starts. One
   * that had stopped just where a new ring begins was taken for the same, and starts again.
   */
  #beginAnew(features: bigint): void {
    const started = this.#vrings.filter(vring => vring.running);
    for (const vring of this.#vrings) {
      if (vring.running) vring.base = RingPlace.of(vring.config!, vring.queue!).unreturnedBase;
      if (vring.queue !== undefined) this.#detach(vring, 'abandoned');
      vring.left = undefined;
    }
    this.#device.reset();
    this.#device.setFeatures(features & ~F_PROTOCOL_FEATURES);
    this.writtenAtRest.replay((offset, bytes) => this.#device.writeConfig(offset, bytes));
    for (const vring of started) this.#open(vring, features);
  }

  #stop(vring: Vring, reason: StopReason): void {
    if (vring.queue === undefined) return;
    const { queue, config } = this.#detach(vring, reason);
    // An abandoned ring has no place to go on from: the front-end says where the next one starts, and when.
    if (reason === 'abandoned') {
      vring.left = undefined;
      vring.withdrawKick();
      return;
    }
    vring.left = RingPlace.of(config, queue);
    // A buffer that the device kept without returning it is taken again.
    vring.base = reason === 'undecided' ? vring.left.unreturnedBase : vring.left.base;
  }

  #detach(vring: Vring, reason: StopReason): { readonly queue: DeviceQueue; readonly config: QueueConfig } {
    const queue = vring.queue!;
    const config = vring.config!;
    this.#unwatchKick(vring);
    this.#device.stopQueue(vring.index, reason);
    vring.queue = undefined;
    vring.config = undefined;
    vring.suspended = false;
    return { queue, config };
  }

  #unwatchKick(vring: Vring): void {
    vring.kickWatch?.stop();
    vring.kickWatch = undefined;
  }

  #watchKick(vring: Vring, fd: OwnedFd): void {
    this.#unwatchKick(vring);
    const watch = this.#host.reactor.watch(fd, () => {
      if (!silenceEventFd(fd)) {
        // The front-end closed its end or never gave a doorbell; waiting on it further would spin.
        watch.stop();
        this.#host.refused(new VhostUserError(`the kick descriptor of ring ${vring.index} is no doorbell`), {
          ringIndex: vring.index,
        });
        return;
      }
      if (this.#host.kicked !== undefined) this.#host.kicked(vring.index);
      else this.#device.serveQueue(vring.index);
    });
    vring.kickWatch = watch;
  }

  #doorbell(vring: Vring): Doorbell {
    return {
      interrupt: () => {
        vring.call?.ring();
      },
      // Its indices are nonsense: it is not served until the front-end describes it anew.
      fail: error => {
        vring.error?.ring();
        this.#host.refused(error, { ringIndex: vring.index });
        this.#stop(vring, 'abandoned');
      },
    };
  }
}
