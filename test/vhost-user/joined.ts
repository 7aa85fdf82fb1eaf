/** A front-end and a back-end of ours in one thread, joined by a socket pair, on a guest memory that both map. */
import { afterEach, beforeEach, expect } from 'vitest';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { BackendConnection } from '../../src/vhost-user/backend-connection.ts';
import { type FrontendOptions, VhostUserFrontend } from '../../src/vhost-user/frontend-session.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { SegmentList } from '../../src/virtio/chain.ts';
import { createDriverQueue } from '../../src/virtio/create.ts';
import type { DriverQueue, QueueConfig } from '../../src/virtio/queue.ts';
import { DEVICE_STATUS } from '../../src/virtio/transport.ts';
import { openDescriptors } from '../support/descriptors.ts';
import { TestLoop } from '../support/loop.ts';
import { MIB } from './conversation.ts';
import { RingDevice } from './ring-device.ts';

export class Joined {
  readonly loop = new TestLoop();
  readonly memory: GuestMemory;
  readonly device: RingDevice;
  readonly refused: string[] = [];
  /** Why the back-end thinks that it is over. */
  readonly ends: (Error | undefined)[] = [];
  backend: BackendConnection | undefined;
  readonly #frontends: VhostUserFrontend[] = [];
  readonly #sockets: UnixSocket[] = [];

  constructor({ device = new RingDevice(), regions = [{ guestAddress: 0, size: MIB }] } = {}) {
    this.device = device;
    this.memory = createSharedMemory({ regions });
  }

  /** A socket at whose other end a back-end sits. */
  serve(device: RingDevice = this.device): UnixSocket {
    const [ours, theirs] = UnixSocket.pair();
    const backend = new BackendConnection(theirs, device, {
      reactor: this.loop.reactor,
      refused: ({ message }) => this.refused.push(message),
      ended: error => this.ends.push(error),
    });
    this.backend?.close();
    this.backend = backend;
    return ours;
  }

  /** Two ends of a socket, the second for the test to be the back-end itself. */
  socketPair(): [UnixSocket, UnixSocket] {
    const pair = UnixSocket.pair();
    this.#sockets.push(pair[1]);
    return pair;
  }

  async connect(
    options: Partial<FrontendOptions> = {},
    socket: UnixSocket = this.serve(),
  ): Promise<VhostUserFrontend> {
    const { reactor } = this.loop;
    const frontend = await this.loop.until(
      VhostUserFrontend.connect(socket, { reactor, memory: this.memory, ...options }),
    );
    this.#frontends.push(frontend);
    return frontend;
  }

  /** The steps of 3.1.1 with `count` queues of eight entries. */
  async start(frontend: VhostUserFrontend, features: bigint, count = 1): Promise<Ring[]> {
    const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DEVICE_STATUS;
    const { loop } = this;
    await loop.until(frontend.reset());
    await loop.until(frontend.writeStatus(ACKNOWLEDGE | DRIVER));
    await loop.until(frontend.setFeatures(features));
    await loop.until(frontend.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK));
    const rings: Ring[] = [];
    for (let index = 0; index < count; index++) {
      const ring = new Ring(this, frontend, index, features);
      await loop.until(frontend.enableQueue(index, ring.config));
      rings.push(ring);
    }
    await loop.until(frontend.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK));
    return rings;
  }

  close(): void {
    for (const frontend of this.#frontends) frontend.close();
    for (const socket of this.#sockets) socket.close();
    this.backend?.close();
    this.memory.close();
    this.loop.close();
  }
}

/** The driver's side of one ring. */
export class Ring {
  readonly config: QueueConfig;
  readonly queue: DriverQueue;
  readonly #joined: Joined;
  readonly #frontend: VhostUserFrontend;
  readonly #index: number;

  constructor(joined: Joined, frontend: VhostUserFrontend, index: number, features: bigint) {
    const base = 0x1000 + index * 0x3000;
    this.config = {
      size: 8,
      features,
      descriptorArea: base,
      driverArea: base + 0x1000,
      deviceArea: base + 0x2000,
    };
    this.queue = createDriverQueue(this.config);
    this.queue.initialize(joined.memory);
    this.#joined = joined;
    this.#frontend = frontend;
    this.#index = index;
  }

  /** Offers `count` buffers, and kicks when the device wants that. */
  offer(count = 1): void {
    const { memory } = this.#joined;
    const list = new SegmentList();
    for (let i = 0; i < count; i++) {
      list.clear();
      list.addReadable(0x8_0000, 4);
      expect(this.queue.addBuffer(memory, list, i)).toBe(true);
    }
    if (this.queue.publish(memory)) this.#frontend.kick(this.#index);
  }

  collect(): number {
    const used = { token: 0, written: 0 };
    let count = 0;
    while (this.queue.popUsed(this.#joined.memory, used)) count++;
    return count;
  }

  /** Sends `count` buffers one by one; each comes back with an interrupt. */
  async exchange(count: number): Promise<void> {
    const { loop, memory } = this.#joined;
    let interrupts = 0;
    const stopListening = this.#frontend.onInterrupt(index => {
      if (index === this.#index) interrupts++;
    });
    for (let i = 0; i < count; i++) {
      this.queue.requestInterrupts(memory);
      const before = interrupts;
      this.offer();
      await loop.turnUntil(() => interrupts > before);
      expect(this.collect()).toBe(1);
    }
    stopListening();
  }
}

/** Pairs for a suite's tests: each is closed after its test, and none may leave a descriptor open. */
export function joins(): (options?: ConstructorParameters<typeof Joined>[0]) => Joined {
  const open: Joined[] = [];
  let before: unknown;
  beforeEach(() => {
    before = openDescriptors();
  });
  afterEach(() => {
    for (const joined of open.splice(0)) joined.close();
    expect(openDescriptors()).toEqual(before);
  });
  return options => {
    const joined = new Joined(options);
    open.push(joined);
    return joined;
  };
}
