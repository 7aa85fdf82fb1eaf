/**
 * A small guest shown as a large one, and a short time as a long one: the policy at work sees a host of its usual size in
 * its usual time, while its guests are a fraction of that and what happens to them happens faster. All figures that pass
 * are multiplied or divided here, and nowhere else.
 */
import type {
  GuestChanges,
  GuestEvent,
  GuestStatistics,
  GuestStatus,
  StatisticsSample,
} from '../../../control/contract.ts';
import type { Control, GuestSource } from '../../../control/operations.ts';
import { PAGE_SIZE } from '../../../memory/page.ts';
import { monotonicMs } from '../../../sys/poll.ts';

export interface Scale {
  /** So many bytes of a trace are one byte of a guest. */
  readonly size: number;
  /** So many seconds of a trace pass in one second. */
  readonly speed: number;
}

/** Whole pages of a guest for so many bytes of a trace. */
export const realBytes = (bytes: number, { size }: Scale): number =>
  Math.max(0, Math.round(bytes / size / PAGE_SIZE) * PAGE_SIZE);

/** A time that goes `speed` times as fast from now on, which is `fromMs`. */
export function scaledClock(fromMs: number, { speed }: Scale) {
  const startedMs = monotonicMs();
  return {
    nowMs: () => fromMs + (monotonicMs() - startedMs) * speed,
    wallMs: () => Date.now(),
    schedule: (ms: number, run: () => void) => {
      const timer = setTimeout(run, ms / speed);
      return { cancel: () => clearTimeout(timer) };
    },
  };
}

type Figures = Readonly<Record<string, unknown>>;

/** These count events that come with so many bytes each, so that a small guest has fewer of them. */
const COUNTS: ReadonlySet<string> = new Set(['majorFaults', 'minorFaults', 'allocationStalls']);

/** A copy in which sizes, and what counts pages, are multiplied by `factor`. */
function multiplied<Type extends object>(figures: Type, factor: number): Type {
  const entries = Object.entries(figures as Figures).map(([key, value]) =>
    typeof value === 'number' && (key.endsWith('Bytes') || COUNTS.has(key))
      ? [key, value * factor]
      : [key, value],
  );
  return Object.fromEntries(entries) as Type;
}

export class ScaledControl implements GuestSource {
  readonly #control: Control;
  readonly #scale: Scale;
  /** What was asked for last: a guest's pages cannot say it exactly. */
  readonly #asked = new Map<string, number>();

  constructor(control: Control, scale: Scale) {
    this.#control = control;
    this.#scale = scale;
  }

  async guest(name: string): Promise<GuestStatus> {
    return this.#status(await this.#control.guest(name));
  }

  async guests(): Promise<readonly GuestStatus[]> {
    return (await this.#control.guests()).map(status => this.#status(status));
  }

  async change(name: string, changes: GuestChanges = {}): Promise<GuestStatus> {
    const { targetBytes, pollIntervalMs, lease, ...rest } = changes;
    const { speed } = this.#scale;
    if (targetBytes !== undefined) this.#asked.set(name, targetBytes);
    const status = await this.#control.change(name, {
      ...rest,
      ...(targetBytes === undefined ? {} : { targetBytes: realBytes(targetBytes, this.#scale) }),
      ...(pollIntervalMs === undefined ? {} : { pollIntervalMs: Math.round(pollIntervalMs / speed) }),
      ...(lease === undefined ? {} : { lease: { ...lease, forMs: Math.ceil(lease.forMs / speed) } }),
    });
    return this.#status(status);
  }

  async statistics(name: string): Promise<StatisticsSample> {
    return this.#sample(await this.#control.statistics(name));
  }

  async samples(): Promise<Readonly<Record<string, StatisticsSample>>> {
    const samples = await this.#control.samples();
    return Object.fromEntries(Object.entries(samples).map(([name, one]) => [name, this.#sample(one)]));
  }

  renewLeases({ forMs }: { readonly forMs: number }) {
    return this.#control.renewLeases({ forMs: Math.ceil(forMs / this.#scale.speed) });
  }

  subscribe(listener: (event: GuestEvent) => void): () => void {
    return this.#control.subscribe(event =>
      listener({ ...event, detail: multiplied(event.detail, this.#scale.size) }),
    );
  }

  #status(status: GuestStatus): GuestStatus {
    const scaled = multiplied(status, this.#scale.size);
    const asked = this.#asked.get(status.name);
    if (asked === undefined || status.targetBytes !== realBytes(asked, this.#scale)) return scaled;
    return { ...scaled, targetBytes: asked };
  }

  #sample({ statistics, ageMs, balloonedBytes }: StatisticsSample): StatisticsSample {
    const { size, speed } = this.#scale;
    return {
      statistics: multiplied<GuestStatistics>(statistics, size),
      ageMs: ageMs === null ? null : ageMs * speed,
      balloonedBytes: balloonedBytes === null ? null : balloonedBytes * size,
    };
  }
}
