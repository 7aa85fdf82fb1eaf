/**
 * A guest that lends its allocator (profile `shared`) and does nothing by itself: kernel, driver, vhost-user front-end and
 * memory, on one reactor in the thread that starts it. It has no console and no housekeeping, so that what is measured
 * is the host's work alone. A guest with both, and with workloads, is embedded-guest.ts's where it `lends`.
 */
import { profile } from '../balloon/profiles.ts';
import { BalloonDriver } from '../driver/balloon-driver.ts';
import { schedulerOf } from '../driver/scheduler.ts';
import { SharedKernel } from '../guest/shared-kernel.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { defined } from '../sys/defined.ts';
import { monotonicMs, Reactor } from '../sys/poll.ts';
import { VhostUserFrontend } from '../vhost-user/frontend-session.ts';
import { createSharedMemory } from '../vhost-user/shared-memory.ts';

interface SharedGuestOptions {
  readonly socketPath: string;
  /** A multiple of 2 MiB. */
  readonly memoryBytes: number;
  /** Takes huge pages of this size from the host's pool. */
  readonly hugePageSize?: number;
  /** In place of memory that is made for it; the guest's to close. */
  readonly memory?: GuestMemory;
  /** How long the thread may wait without a look at Node's loop, which brings messages; for ever where absent. */
  readonly waitMsMax?: number;
}

export class SharedGuest {
  readonly memory: GuestMemory;
  readonly kernel: SharedKernel;
  readonly driver: BalloonDriver;
  readonly #transport: VhostUserFrontend;
  readonly #reactor: Reactor;
  readonly #running: Promise<void>;

  private constructor(
    memory: GuestMemory,
    transport: VhostUserFrontend,
    reactor: Reactor,
    running: Promise<void>,
  ) {
    this.memory = memory;
    this.kernel = new SharedKernel({ memory });
    this.#transport = transport;
    this.#reactor = reactor;
    this.#running = running;
    this.driver = new BalloonDriver({
      kernel: this.kernel,
      transport,
      scheduler: schedulerOf(reactor, monotonicMs),
      profile: profile('shared'),
    });
  }

  /** @throws SystemError when no device listens, or the host has no such memory; what the driver's probe throws */
  static async start({
    socketPath,
    memoryBytes,
    hugePageSize,
    memory = createSharedMemory({
      regions: [{ guestAddress: 0, size: memoryBytes }],
      ...defined({ hugePageSize }),
    }),
    waitMsMax,
  }: SharedGuestOptions): Promise<SharedGuest> {
    const reactor = new Reactor();
    const look = (): void => void reactor.schedule(waitMsMax ?? 0, look);
    if (waitMsMax !== undefined) look();
    const running = new Promise(resolve => setImmediate(resolve)).then(() => reactor.run());
    try {
      const transport = await VhostUserFrontend.connect(socketPath, { reactor, memory, reconnects: false });
      const guest = new SharedGuest(memory, transport, reactor, running);
      await guest.driver.probe();
      return guest;
    } catch (error) {
      await end(memory, reactor, running);
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#transport.close();
    await end(this.memory, this.#reactor, this.#running);
  }
}

async function end(memory: GuestMemory, reactor: Reactor, running: Promise<void>): Promise<void> {
  reactor.stop();
  await running;
  reactor.close();
  memory.close();
}
