/**
 * A guest of our own is taken over and served again and again, in the thread that is about to take over guests: code that
 * runs for the first time is compiled first, and guests would wait for it, 50 ms for the first and less for each of the next.
 * Nothing of it is kept, told or counted.
 */
import { CONFIG } from '../balloon/config-space.ts';
import { profile, queueRoles } from '../balloon/profiles.ts';
import type { GuestsKeeper } from '../keeping/guests-keeper.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { createEventFd } from '../sys/fd.ts';
import { UnixSocket } from '../sys/socket.ts';
import { VhostUserFrontend } from '../vhost-user/frontend-session.ts';
import { createSharedMemory } from '../vhost-user/shared-memory.ts';
import { SegmentList } from '../virtio/chain.ts';
import { createDriverQueue } from '../virtio/create.ts';
import { RING_PACKED, VERSION_1 } from '../virtio/features.ts';
import type { DriverQueue, QueueConfig } from '../virtio/queue.ts';
import { DEVICE_STATUS } from '../virtio/transport.ts';
import { GuestHost } from './guest-host.ts';
import { abandonGuest, leaveGuest } from './guest-leaving.ts';
import type { GuestHostWorld } from './guest-world.ts';
import type { GuestOptions } from './options.ts';

/** After so many the compiler has little left to do that one would see. */
const ROUNDS = 8;
/** Of buffers, for each ring that gives or takes pages. */
const EXCHANGES = 4;
const MEMORY_BYTES = 8 * 2 ** 20;
const QUEUE_SIZE = 64;
const RING_BYTES = 0x1_0000;
const LIST_AT = 0x8_0000;
const FIRST_PAGE = 512;
const PAGES = 256;

const OPTIONS: GuestOptions = {
  name: 'rehearsal',
  fd: 0,
  targetBytes: 0,
  profile: 'virtio',
  discard: 'auto',
  without: [],
  pollIntervalMs: 0,
};

const KEEPS_NOTHING: GuestsKeeper = {
  of: () => ({ keep: () => {}, drop: () => {} }),
  clear: () => {},
  hasAll: true,
};

/** On both kinds of rings. `hosted` is told which host is to hear of the threads that discard. */
export async function rehearse(
  world: GuestHostWorld,
  hosted: (host: GuestHost | undefined) => void,
): Promise<void> {
  for (const rings of [0n, RING_PACKED]) await new Rehearsal(world, hosted).run(rings);
}

class Rehearsal {
  readonly #world: GuestHostWorld;
  readonly #hosted: (host: GuestHost | undefined) => void;
  #host: GuestHost | undefined;

  constructor(world: GuestHostWorld, hosted: (host: GuestHost | undefined) => void) {
    this.#world = { ...world, keeper: KEEPS_NOTHING, emit: () => {}, log: () => {} };
    this.#hosted = hosted;
  }

  async run(rings: bigint): Promise<void> {
    const [ours, theirs] = UnixSocket.pair();
    this.#open({ fd: ours.fd.release(), listening: false });
    const memory = createSharedMemory({ regions: [{ guestAddress: 0, size: MEMORY_BYTES }] });
    const { reactor } = this.#world;
    try {
      const frontend = await VhostUserFrontend.connect(theirs, { reactor, memory });
      try {
        const driver = await RehearsalDriver.start(frontend, memory, rings);
        for (let round = 0; round < ROUNDS; round++) {
          for (let exchange = 0; exchange < EXCHANGES; exchange++) {
            await driver.send(0, exchange);
            await driver.send(1, exchange);
          }
          await driver.tellActual();
          await this.#handOver();
        }
      } finally {
        frontend.close();
      }
    } finally {
      memory.close();
      await this.#host?.close();
      this.#hosted(undefined);
    }
  }

  #open(socket: ConstructorParameters<typeof GuestHost>[1]): void {
    this.#host = new GuestHost(OPTIONS, socket, this.#world);
    this.#hosted(this.#host);
  }

  async #handOver(): Promise<void> {
    const former = this.#host!;
    const kept = await leaveGuest(former);
    // No front-end comes there.
    this.#open({ fd: createEventFd().release(), listening: true, kept, handedOver: true });
    abandonGuest(former);
  }
}

/** Inflates and deflates as Linux does. */
class RehearsalDriver {
  readonly #frontend: VhostUserFrontend;
  readonly #memory: GuestMemory;
  readonly #queues: readonly DriverQueue[];
  readonly #segments = new SegmentList();
  readonly #used = { token: 0, written: 0 };
  #returned: () => void = () => {};

  private constructor(frontend: VhostUserFrontend, memory: GuestMemory, queues: readonly DriverQueue[]) {
    this.#frontend = frontend;
    this.#memory = memory;
    this.#queues = queues;
    frontend.onInterrupt(() => this.#returned());
  }

  static async start(
    frontend: VhostUserFrontend,
    memory: GuestMemory,
    rings: bigint,
  ): Promise<RehearsalDriver> {
    const abi = profile(OPTIONS.profile);
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DEVICE_STATUS;
    await frontend.writeStatus(ACKNOWLEDGE | DRIVER);
    const features = (await frontend.getFeatures()) & (abi.featureMask | VERSION_1 | rings);
    await frontend.setFeatures(features);
    await frontend.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    const queues: DriverQueue[] = [];
    for (let index = 0; index < queueRoles(abi, features).length; index++) {
      const config = placeOf(index, features);
      const queue = createDriverQueue(config);
      queue.initialize(memory);
      await frontend.enableQueue(index, config);
      queues.push(queue);
    }
    await frontend.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    return new RehearsalDriver(frontend, memory, queues);
  }

  /** Resolves when the buffer is back. */
  async send(index: number, exchange: number): Promise<void> {
    const queue = this.#queues[index];
    const memory = this.#memory;
    for (let page = 0; page < PAGES; page++)
      memory.setU32(LIST_AT + page * 4, FIRST_PAGE + exchange * PAGES + page);
    const segments = this.#segments.clear();
    segments.addReadable(LIST_AT, PAGES * 4);
    queue.addBuffer(memory, segments, 0);
    const back = new Promise<void>(resolve => {
      this.#returned = () => {
        if (queue.popUsed(memory, this.#used)) resolve();
      };
    });
    queue.publish(memory);
    this.#frontend.kick(index);
    if (queue.requestInterrupts(memory)) this.#returned();
    await back;
  }

  async tellActual(): Promise<void> {
    await this.#frontend.writeConfig(CONFIG.offset.actual, new Uint8Array(4));
  }
}

const placeOf = (index: number, features: bigint): QueueConfig => {
  const at = index * RING_BYTES;
  return {
    size: QUEUE_SIZE,
    descriptorArea: at,
    driverArea: at + RING_BYTES / 2,
    deviceArea: at + (RING_BYTES * 3) / 4,
    features,
  };
};
