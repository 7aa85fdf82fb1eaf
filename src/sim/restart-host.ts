/**
 * A back-end whose process dies at any boundary: before and after each thing that it shows to anything else
 * (restart-survivors.ts). It is a daemon's own code, from the socket on; what its guest does is restart-guest.ts's.
 */
import type { Profile } from '../balloon/profiles.ts';
import { BalloonDevice } from '../device/balloon-device.ts';
import type { DeviceHost } from '../device/device-host.ts';
import { type DescriptorKeeper, KeptGuest } from '../keeping/kept-guest.ts';
import type { OpenRun } from '../memory/discard-claims.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { PageSink } from '../memory/page.ts';
import { InvariantError } from '../sys/error.ts';
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import { processClock } from '../sys/monotonic.ts';
import { BackendConnection } from '../vhost-user/backend-connection.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import {
  type Boundary,
  FatalMemory,
  FatalQueue,
  HeapGuestFile,
  SimSocket,
  type Survivors,
} from './restart-survivors.ts';

/** How a back-end is made, and where what its guest says of unused pages goes. */
export interface HostPlan {
  readonly abi: Profile;
  readonly features: bigint;
  /** Of the device that runs. */
  readonly unusedPages: (device: () => BalloonDevice) => PageSink;
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
