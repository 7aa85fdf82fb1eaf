/**
 * Asks a guest for its statistics, at an interval or because a caller waits for fresh ones, and hands a sample to
 * everybody who waits for it.
 */

import type { StatisticsSample } from '../control/contract.ts';
import { GuestStateError } from '../control/errors.ts';
import type { BalloonDevice } from '../device/balloon-device.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { monotonicMs, type Reactor, type Timer } from '../sys/poll.ts';

interface Waiter {
  readonly resolve: (sample: StatisticsSample) => void;
  readonly reject: (error: Error) => void;
  readonly timer: Timer;
}

/** What an event tells of a sample: enough to see a guest that is running out of memory. */
export const tellSample = ({ statistics, balloonedBytes }: StatisticsSample) => ({
  freeBytes: statistics.freeBytes,
  availableBytes: statistics.availableBytes,
  balloonedBytes,
});

export class StatisticsPoll {
  readonly #name: string;
  readonly #device: BalloonDevice;
  readonly #reactor: Reactor;
  readonly #waiters = new Set<Waiter>();
  #intervalMs: number;
  #timer: Timer | undefined;
  readonly #obstacle: () => string | undefined;
  #running = false;

  /** `obstacle` says why the guest cannot answer at all, where it cannot. */
  constructor(
    name: string,
    device: BalloonDevice,
    reactor: Reactor,
    { intervalMs, obstacle }: { readonly intervalMs: number; readonly obstacle: () => string | undefined },
  ) {
    this.#name = name;
    this.#device = device;
    this.#reactor = reactor;
    this.#intervalMs = intervalMs;
    this.#obstacle = obstacle;
  }

  /** 0 turns polling off. */
  set intervalMs(intervalMs: number) {
    this.#intervalMs = intervalMs;
    this.#schedule();
  }

  /** The guest's driver is there. */
  start(): void {
    this.#running = true;
    this.#schedule();
  }

  /** It is gone, and so is whatever was asked of it. */
  stop(): void {
    this.#running = false;
    this.#timer?.cancel();
    this.dismiss(`${this.#name} left before it sent statistics`);
  }

  /** Who waits is told why the guest sends nothing. */
  dismiss(why: string): void {
    for (const { timer, reject } of this.#waiters) {
      timer.cancel();
      reject(new GuestStateError(why));
    }
    this.#waiters.clear();
  }

  /** The newest sample. */
  get sample(): StatisticsSample {
    const { sample, sampledMs, sampledBalloonPages } = this.#device.statistics;
    if (sampledMs === null) return { statistics: sample, ageMs: null, balloonedBytes: null };
    return {
      statistics: sample,
      ageMs: monotonicMs() - sampledMs,
      balloonedBytes: sampledBalloonPages * PAGE_SIZE,
    };
  }

  /** Resolves with a sample that is at most `freshMs` old; with any, if that is null. @throws GuestStateError */
  fresh(freshMs: number | null, timeoutMs: number): Promise<StatisticsSample> {
    const newest = this.sample;
    if (freshMs === null) return Promise.resolve(newest);
    if (newest.ageMs !== null && newest.ageMs <= freshMs) return Promise.resolve(newest);
    const obstacle = this.#obstacle();
    if (obstacle !== undefined) throw new GuestStateError(`${this.#name} sends no statistics: ${obstacle}`);
    if (!this.#device.statistics.running) {
      const why = this.#running ? 'its driver did not take the feature' : 'no guest is connected';
      throw new GuestStateError(`${this.#name} has no statistics queue: ${why}`);
    }
    return new Promise((resolve, reject) => {
      const timer = this.#reactor.schedule(timeoutMs, () => {
        this.#waiters.delete(waiter);
        reject(new GuestStateError(this.#late(timeoutMs)));
      });
      const waiter: Waiter = { resolve, reject, timer };
      this.#waiters.add(waiter);
      this.#device.statistics.request();
    });
  }

  /** Why no sample came in time. */
  #late(timeoutMs: number): string {
    const name = this.#name;
    // Nothing can be asked for then: the device asks by returning the driver's buffer.
    if (!this.#device.statistics.given) {
      return `the driver of ${name} has given no statistics buffer; its front-end may have skipped the first one. It gives one when it starts anew`;
    }
    const obstacle = this.#obstacle() ?? 'it may be busy or stopped';
    return `${name} did not send statistics within ${timeoutMs} ms: ${obstacle}`;
  }

  /** A sample arrived. */
  arrived(): void {
    const { sample } = this;
    for (const { timer, resolve } of this.#waiters) {
      timer.cancel();
      resolve(sample);
    }
    this.#waiters.clear();
  }

  #schedule(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#intervalMs <= 0 || !this.#running) return;
    this.#timer = this.#reactor.schedule(this.#intervalMs, () => {
      this.#device.statistics.request();
      this.#schedule();
    });
  }
}
