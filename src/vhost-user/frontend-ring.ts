/** One ring as the front-end holds it: where it lies, its doorbells, and where a back-end takes it up. */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { closeAll, createEventFd, drainEvent, type OwnedFd } from '../sys/fd.ts';
import type { Reactor, Watch } from '../sys/poll.ts';
import { hasFeature, RING_PACKED } from '../virtio/features.ts';
import { RING_HEADER } from '../virtio/layout.ts';
import { initialState, type QueueConfig } from '../virtio/queue.ts';
import { stateToVringBase } from '../virtio/vring-base.ts';

export interface RingListener {
  /** The device returned buffers. */
  interrupted(index: number): void;
  /** The device gave the ring up. */
  failed(index: number): void;
}

export class FrontendRing {
  readonly index: number;
  readonly config: QueueConfig;
  readonly kick: OwnedFd;
  readonly call: OwnedFd;
  readonly error: OwnedFd;
  readonly #watches: readonly Watch[];
  /** Where the back-end stopped; undefined while one runs the ring, or when it vanished without saying. */
  base: number | undefined;

  constructor(index: number, config: QueueConfig, reactor: Pick<Reactor, 'watch'>, listener: RingListener) {
    this.index = index;
    this.config = config;
    this.kick = createEventFd();
    this.call = createEventFd();
    this.error = createEventFd();
    const listen = (fd: OwnedFd, rung: () => void) =>
      reactor.watch(fd, () => {
        drainEvent(fd);
        rung();
      });
    this.#watches = [
      listen(this.call, () => listener.interrupted(index)),
      listen(this.error, () => listener.failed(index)),
    ];
  }

  /** Where a ring begins that was not used yet. */
  get firstBase(): number {
    const { features } = this.config;
    return stateToVringBase(features, initialState(features));
  }

  /**
   * Where a ring goes on whose back-end vanished: at the first buffer that was not returned, so that none is
   * lost. That is true of a split ring whose buffers are returned in order; a packed ring does not show it.
   */
  baseFromMemory(memory: GuestMemory): number | undefined {
    if (hasFeature(this.config.features, RING_PACKED)) return undefined;
    return memory.atomicLoadU16(this.config.deviceArea + RING_HEADER.offset.index);
  }

  close(): void {
    for (const watch of this.#watches) watch.stop();
    closeAll([this.kick, this.call, this.error]);
  }
}
