/**
 * A simulated back-end: the device of a machine behind the session that a daemon runs, fed with the messages of a
 * front-end. Rings are started and stopped by the rules of vhost-user and nothing else; only doorbells are the
 * simulation's, which rings them some time.
 */
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { assert } from '../sys/error.ts';
import { createEventFd, type OwnedFd } from '../sys/fd.ts';
import { BackendSession } from '../vhost-user/backend-session.ts';
import {
  F_PROTOCOL_FEATURES,
  FLAG_VERSION,
  FRONTEND_REQUEST,
  type FrontendRequest,
  U64,
  VRING_ADDRESSES,
  VRING_STATE,
} from '../vhost-user/protocol.ts';
import type { SavedSession } from '../vhost-user/saved-session.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { QueueConfig } from '../virtio/queue.ts';

interface SimBackendWorld {
  /** What is offered, of the balloon and of the rings. */
  readonly offered: bigint;
  /** The device wants the driver of ring `index` to look. */
  interrupted(index: number): void;
  /** Ring `index` is to be served. */
  kicked(index: number): void;
  complain(what: string): void;
  /** Returns when the device has nothing under way, which every message and every answer waits for. */
  settle(): void;
}

export class SimBackend {
  readonly device: BalloonDevice;
  readonly #session: BackendSession;
  readonly #memory: GuestMemory;
  readonly #world: SimBackendWorld;

  /** Serves `device`, which knows the regions of `memory` already. */
  constructor(device: BalloonDevice, memory: GuestMemory, world: SimBackendWorld) {
    this.device = device;
    this.#world = world;
    this.#session = new BackendSession(this.#behindSession(), {
      reactor: { watch: () => ({ stop: () => {}, wantWrite: false }) },
      refused: error => world.complain(error.message),
      backendChannel: fd => fd?.close(),
    });
    this.#memory = memory;
  }

  /** A back-end of a guest that has said nothing yet. */
  static begin(device: BalloonDevice, memory: GuestMemory, world: SimBackendWorld): SimBackend {
    const backend = new SimBackend(device, memory, world);
    for (const region of memory.regions) backend.#session.memory.add(region);
    return backend;
  }

  setFeatures(features: bigint): void {
    this.#say('SET_FEATURES', U64.encode({ value: features | F_PROTOCOL_FEATURES }));
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    this.device.writeConfig(offset, bytes);
  }

  startRing(index: number, config: QueueConfig, base: number): void {
    this.#say('SET_VRING_NUM', VRING_STATE.encode({ index, num: config.size }));
    this.#say('SET_VRING_BASE', VRING_STATE.encode({ index, num: base }));
    const addresses = VRING_ADDRESSES.encode({
      index,
      flags: 0,
      descriptorTable: config.descriptorArea,
      availRing: config.driverArea,
      usedRing: config.deviceArea,
      log: 0,
    });
    this.#say('SET_VRING_ADDR', addresses);
    this.#say('SET_VRING_KICK', U64.encode({ value: BigInt(index) }), [createEventFd()]);
    this.enable(index, true);
  }

  /** GET_VRING_BASE. */
  stopRing(index: number): void {
    this.#say('GET_VRING_BASE', VRING_STATE.encode({ index, num: 0 }));
  }

  enable(index: number, enabled: boolean): void {
    this.#say('SET_VRING_ENABLE', VRING_STATE.encode({ index, num: Number(enabled) }));
  }

  reset(): void {
    this.#say('RESET_DEVICE');
  }

  /** Every ring stands still, as it does while a back-end hands its guest to a successor. */
  suspend(): void {
    this.#session.suspend();
  }

  /** What the front-end had said; rings are suspended. The holder of the answer owns the descriptors. */
  save(): SavedSession {
    return this.#session.save(undefined);
  }

  /** Goes on where another back-end was saved, in the same memory, once {@link resume} is called. */
  load(saved: SavedSession): void {
    this.#session.load(saved, ({ guestAddress, size }) => {
      const region = this.#memory.regions.find(
        candidate => candidate.guestAddress === guestAddress && candidate.size === size,
      );
      assert(region !== undefined, 'a region of another guest was saved');
      return region;
    });
  }

  resume(): void {
    this.#session.resume();
  }

  /** Lets go of descriptors; what becomes of the device is of no interest any more. */
  close(): void {
    this.#session.close();
  }

  #say(name: FrontendRequest, payload: Uint8Array = new Uint8Array(0), fds: OwnedFd[] = []): void {
    this.#world.settle();
    this.#session.serve({
      request: FRONTEND_REQUEST[name],
      flags: FLAG_VERSION,
      payload: new DataView(payload.buffer, payload.byteOffset, payload.length),
      fds,
    });
    this.#world.settle();
  }

  /** The device, whose interrupts and kicks arrive when the simulation has them arrive. */
  #behindSession(): VirtioDevice {
    const { device } = this;
    const world = this.#world;
    return {
      features: world.offered,
      queueCount: device.queueCount,
      setFeatures: features => device.setFeatures(features),
      readConfig: (offset, into) => device.readConfig(offset, into),
      writeConfig: (offset, bytes) => device.writeConfig(offset, bytes),
      // The device has the regions for as long as it lives.
      regionAdded: () => {},
      regionRemoved: () => {},
      startQueue: (index, queue, memory, { fail }) => {
        const interrupt = () => world.interrupted(index);
        device.startQueue(index, queue, memory, { interrupt, fail });
      },
      suspendQueue: index => device.suspendQueue(index),
      resumeQueue: index => device.resumeQueue(index),
      stopQueue: (index, reason) => device.stopQueue(index, reason),
      serveQueue: index => world.kicked(index),
      reset: () => device.reset(),
    };
  }
}
