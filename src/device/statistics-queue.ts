/**
 * The statistics queue (VIRTIO 1.4, 5.5.6.3): the guest posts a filled buffer, the device keeps it and returns
 * it when it wants a newer one.
 */
import { PageListError } from '../balloon/page-list.ts';
import {
  decodeStatistics,
  noStatistics,
  STATS_BYTES_MAX,
  type Statistics,
  StatisticsError,
} from '../balloon/statistics.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { PoppedBuffer } from '../virtio/chain.ts';
import type { DeviceCounters } from './counters.ts';
import type { RunningQueue } from './running-queue.ts';

export class StatisticsQueue {
  readonly #counters: DeviceCounters;
  readonly #arrived: () => void;
  /** The guest's buffer, while we have one. */
  #held: PoppedBuffer | undefined;
  #running = false;
  sample: Statistics = noStatistics();
  /** When it came; null before the first. */
  sampledMs: number | null = null;
  /** Pages in the balloon then: the fewer of those when the sample was asked for and when it came. */
  sampledBalloonPages = 0;
  /** When the guest was asked for a sample that has not come; null when it owes none. */
  askedMs: number | null = null;
  /** The driver has posted a buffer since its ring started. */
  given = false;
  /** The driver has answered a request since it began: Linux fills its first buffer unasked, while it still starts. */
  answered = false;
  readonly #balloonPages: () => number;
  #askedBalloonPages = Number.POSITIVE_INFINITY;

  constructor(counters: DeviceCounters, balloonPages: () => number, arrived: () => void) {
    this.#counters = counters;
    this.#balloonPages = balloonPages;
    this.#arrived = arrived;
  }

  get running(): boolean {
    return this.#running;
  }

  start(): void {
    this.#running = true;
  }

  /**
   * Takes the buffer that was popped.
   * @throws PageListError when it is no list of statistics
   */
  take(running: RunningQueue): void {
    const { queue, memory, chain } = running;
    this.#counters.statsBuffers++;
    this.given = true;
    const asked = this.askedMs !== null;
    this.askedMs = null;
    // D11: a driver has at most one buffer here. One that posts another gets the older one back, and gets it
    // first, whatever the newer one holds: buffers return in their order.
    if (this.#held !== undefined) queue.pushUsed(memory, this.#held, 0);
    this.#held = undefined;
    if (chain.readableBytes > STATS_BYTES_MAX) {
      throw new PageListError(
        'too-long',
        `statistics of ${chain.readableBytes} bytes; the limit is ${STATS_BYTES_MAX}`,
      );
    }
    const list = running.readList();
    try {
      this.sample = decodeStatistics(list.view, list.length);
    } catch (error) {
      if (!(error instanceof StatisticsError)) throw error;
      throw new PageListError('message', error.message);
    }
    this.sampledMs = monotonicMs();
    this.sampledBalloonPages = Math.min(this.#balloonPages(), this.#askedBalloonPages);
    this.#askedBalloonPages = Number.POSITIVE_INFINITY;
    this.#held = chain.hold();
    this.answered ||= asked;
    this.#arrived();
  }

  /**
   * Asks the guest for a sample by returning its buffer. True when the buffer was pushed: the caller publishes.
   * Without a buffer the guest is about to post one, which is the sample that is wanted.
   */
  request({ queue, memory }: RunningQueue): boolean {
    if (this.#held === undefined) return false;
    this.#askedBalloonPages = this.#balloonPages();
    this.askedMs = monotonicMs();
    queue.pushUsed(memory, this.#held, 0);
    this.#held = undefined;
    return true;
  }

  /** Gives the buffer back before a ring that goes on elsewhere stops. True when it was pushed. */
  release({ queue, memory }: RunningQueue): boolean {
    this.#running = false;
    this.given = false;
    this.askedMs = null;
    if (this.#held === undefined) return false;
    queue.pushUsed(memory, this.#held, 0);
    this.#held = undefined;
    return true;
  }

  /** The ring is gone, and the buffer with it. */
  reset(): void {
    this.#running = false;
    this.given = false;
    this.askedMs = null;
    this.#held = undefined;
    this.answered = false;
    this.sample = noStatistics();
    this.sampledMs = null;
  }
}
