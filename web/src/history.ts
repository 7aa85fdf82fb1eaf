/** What a guest's figures were since the page was opened, in a ring of samples. */
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { GuestStatus, StatisticsSample } from './api.ts';

/** Fifteen minutes of one sample a second. */
export const HISTORY_SAMPLES_MAX = 900;

const GAUGES = ['resident', 'ballooned', 'target', 'available', 'free'] as const;
/** These only rise; charts show their rates. */
const TOTALS = ['discarded', 'reported', 'deflated', 'buffers', 'kicks', 'notifications'] as const;

export type Gauge = (typeof GAUGES)[number];
export type Total = (typeof TOTALS)[number];

type Series = readonly (number | null)[];

export class History {
  readonly #times = new Float64Array(HISTORY_SAMPLES_MAX);
  readonly #values = new Map<Gauge | Total, Float64Array>(
    [...GAUGES, ...TOTALS].map(name => [name, new Float64Array(HISTORY_SAMPLES_MAX)]),
  );
  #count = 0;

  get length(): number {
    return Math.min(this.#count, HISTORY_SAMPLES_MAX);
  }

  add(timeMs: number, guest: GuestStatus, sample: StatisticsSample | undefined): void {
    const at = this.#count++ % HISTORY_SAMPLES_MAX;
    const { counters } = guest;
    const values: Record<Gauge | Total, number | null | undefined> = {
      resident: guest.residentBytes,
      ballooned: guest.balloonedBytes ?? guest.actualBytes,
      target: guest.targetBytes,
      available: guest.connected ? sample?.statistics.availableBytes : null,
      free: guest.connected ? sample?.statistics.freeBytes : null,
      discarded: guest.discardedBytes,
      reported: guest.reportedBytes,
      deflated: counters === null ? null : counters.deflatedPages * PAGE_SIZE,
      buffers: counters?.buffers,
      kicks: counters?.kicks,
      notifications: counters?.notifications,
    };
    this.#times[at] = timeMs;
    for (const [name, series] of this.#values) series[at] = values[name] ?? Number.NaN;
  }

  /** Seconds since the epoch, in rising order. */
  times(): number[] {
    return this.#order().map(at => this.#times[at] / 1000);
  }

  gauge(name: Gauge): Series {
    const series = this.#series(name);
    return this.#order().map(at => (Number.isNaN(series[at]) ? null : series[at]));
  }

  /** Change per second from each sample to the next; the first has none. */
  rate(name: Total): Series {
    const series = this.#series(name);
    const order = this.#order();
    return order.map((at, index) => {
      if (index === 0) return null;
      const before = order[index - 1];
      const rate = ((series[at] - series[before]) * 1000) / (this.#times[at] - this.#times[before]);
      // A daemon that started anew counts from 0 again.
      return Number.isFinite(rate) && rate >= 0 ? rate : null;
    });
  }

  /** The newest rate; null if there is none. */
  rateNow(name: Total): number | null {
    return this.rate(name).at(-1) ?? null;
  }

  #series(name: Gauge | Total): Float64Array {
    return this.#values.get(name) ?? new Float64Array(HISTORY_SAMPLES_MAX);
  }

  /** Places in the ring, oldest first. */
  #order(): number[] {
    const first = this.#count - this.length;
    return Array.from({ length: this.length }, (_, index) => (first + index) % HISTORY_SAMPLES_MAX);
  }
}
