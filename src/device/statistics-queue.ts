/**
 * The statistics queue (VIRTIO 1.4, 5.5.6.3): the guest posts a filled buffer, the device keeps it and returns
 * it when it wants a newer one.
 */
import { PageListError } from '../balloon/page-list.ts';
import {
  decodeStatistics,
  noStatistics,
  STATISTIC_NAMES,
  STATS_BYTES_MAX,
  type StatisticName,
  type Statistics,
  StatisticsError,
} from '../balloon/statistics.ts';
import { naturalNumber, nullable, record, type ValueShape } from '../sys/shape.ts';
import type { PoppedBuffer } from '../virtio/chain.ts';
import type { StopReason } from '../virtio/device.ts';
import { type DevicePart, type PartWorld, savedFields } from './part.ts';
import type { RunningQueue } from './running-queue.ts';

/** A guest that was saved has all of them. */
const STATISTICS = Object.fromEntries(STATISTIC_NAMES.map(name => [name, nullable(naturalNumber)])) as Record<
  StatisticName,
  ValueShape<number | null>
>;

export class StatisticsQueue implements DevicePart {
  readonly roles = ['stats'] as const;
  readonly counters = { statsBuffers: 0 };
  readonly #world: PartWorld;
  #ring: RunningQueue | undefined;
  /** The guest's buffer, while we have one. */
  #held: PoppedBuffer | undefined;
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
  #askedBalloonPages = Number.POSITIVE_INFINITY;

  constructor(world: PartWorld) {
    this.#world = world;
  }

  get running(): boolean {
    return this.#ring !== undefined;
  }

  start(ring: RunningQueue): void {
    this.#ring = ring;
  }

  serve(ring: RunningQueue): false {
    const { chain } = ring;
    this.counters.statsBuffers++;
    this.given = true;
    const asked = this.askedMs !== null;
    this.askedMs = null;
    // D11: a driver has at most one buffer here. One that posts another gets the older one back, and gets it
    // first, whatever the newer one holds: buffers return in their order.
    if (this.#held !== undefined) ring.giveBack(this.#held, 0);
    this.#held = undefined;
    if (chain.readableBytes > STATS_BYTES_MAX) {
      throw new PageListError(
        'too-long',
        `statistics of ${chain.readableBytes} bytes; the limit is ${STATS_BYTES_MAX}`,
      );
    }
    const list = ring.readList();
    try {
      this.sample = decodeStatistics(list.view, list.length);
    } catch (error) {
      if (!(error instanceof StatisticsError)) throw error;
      throw new PageListError('message', error.message);
    }
    const { accounts, clock, host } = this.#world;
    this.sampledMs = clock.nowMs();
    this.sampledBalloonPages = Math.min(accounts.balloonedPages, this.#askedBalloonPages);
    this.#askedBalloonPages = Number.POSITIVE_INFINITY;
    this.#held = chain.hold();
    this.answered ||= asked;
    host.statisticsArrived();
    return false;
  }

  /** Rings that are in order take buffers back in no other: the sample that is kept came before the refused one. */
  refuse(ring: RunningQueue): void {
    this.#ask(ring);
  }

  /** Asks the guest for statistics; `DeviceHost.statisticsArrived` tells when they came. */
  request(): void {
    const ring = this.#ring;
    ring?.attempt(() => {
      if (this.#ask(ring)) ring.publish();
    });
  }

  /**
   * Asks for a sample by returning the guest's buffer. True when it was given back.
   * Without a buffer the guest is about to post one, which is the sample that is wanted.
   */
  #ask(ring: RunningQueue): boolean {
    if (this.#held === undefined) return false;
    this.#askedBalloonPages = this.#world.accounts.balloonedPages;
    this.askedMs = this.#world.clock.nowMs();
    ring.giveBack(this.#held, 0);
    this.#held = undefined;
    return true;
  }

  stop(ring: RunningQueue, reason: StopReason): void {
    const returned = reason === 'paused' && ring.returns(...(this.#held === undefined ? [] : [this.#held]));
    this.#forgetRing();
    if (!returned) this.#forgetDriver();
  }

  /** The ring is gone, and the buffer with it. */
  reset(): void {
    this.#forgetRing();
    this.#forgetDriver();
  }

  #forgetRing(): void {
    this.#ring = undefined;
    this.given = false;
    this.askedMs = null;
    this.#held = undefined;
  }

  #forgetDriver(): void {
    this.answered = false;
    this.sample = noStatistics();
    this.sampledMs = null;
  }

  readonly saved = savedFields(
    { statistics: record(STATISTICS) },
    () => ({ statistics: this.sample }),
    ({ statistics }) => {
      this.sample = statistics;
    },
  );
}
