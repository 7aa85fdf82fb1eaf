/**
 * Guests of one host control, as they were seen last. Each source is asked by itself: one that is slow, stopped or gone
 * costs its own guests their fresh figures, and no other source's. What follows from the figures is the runner's.
 */
import type { GuestStatus, StatisticsSample } from '../control/contract.ts';
import type { GuestSource } from '../control/operations.ts';
import { AerostatError } from '../sys/error.ts';

/** Guests that share a control; without `names`, all that it has, as it calls them. */
export interface SteeredSource {
  readonly control: GuestSource;
  /** What its guests are called here, by what they are called there. */
  readonly names?: ReadonlyMap<string, string>;
}

/** One guest as it was seen last. */
export interface SeenGuest {
  /** What it is called here. */
  readonly name: string;
  readonly remoteName: string;
  readonly watch: SourceWatch;
  status: GuestStatus;
  sample: StatisticsSample | undefined;
  /** The clock's time from which the sample's age counts. */
  sampledAtMs: number;
  /** Another number after each start of its driver. */
  epoch: number;
}

export class SourceWatch {
  readonly source: SteeredSource;
  readonly #nowMs: () => number;
  /** By the name here. */
  readonly guests = new Map<string, SeenGuest>();
  /** Why it could not be asked the last time; null where it could. */
  error: string | null = null;
  #looking: Promise<void> | undefined;

  constructor(source: SteeredSource, nowMs: () => number) {
    this.source = source;
    this.#nowMs = nowMs;
  }

  /** It was asked, and has not answered yet. */
  get isLate(): boolean {
    return this.#looking !== undefined;
  }

  /** Asks for all of its guests, unless that is under way. It may take as long as it likes. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    const { control } = this.source;
    // An answer that is long on its way makes statistics older than they are, never younger.
    const askedAtMs = this.#nowMs();
    try {
      const [statuses, samples] = await Promise.all([control.guests(), control.samples()]);
      this.error = null;
      const there = new Set<string>();
      for (const status of statuses) {
        const name = this.nameOf(status.name);
        if (name === undefined) continue;
        there.add(name);
        this.note(name, status, samples[status.name], askedAtMs);
      }
      for (const name of this.guests.keys()) if (!there.has(name)) this.guests.delete(name);
    } catch (error) {
      if (!(error instanceof AerostatError)) throw error;
      this.error = error.message;
    }
  }

  /** What a guest of this source is called here; undefined for one that is not meant. */
  nameOf(remoteName: string): string | undefined {
    const { names } = this.source;
    return names === undefined ? remoteName : names.get(remoteName);
  }

  /** `sample` absent: the one before stays, and grows older. */
  note(name: string, status: GuestStatus, sample?: StatisticsSample, sampledAtMs = this.#nowMs()): void {
    const seen = this.guests.get(name) ?? {
      name,
      remoteName: status.name,
      watch: this,
      status,
      sample,
      sampledAtMs,
      epoch: 1,
    };
    seen.status = status;
    if (sample !== undefined) {
      seen.sample = sample;
      seen.sampledAtMs = sampledAtMs;
    }
    const { counters } = status;
    // Both only ever rise, so that their sum is another one after each start.
    if (counters !== null) seen.epoch = 1 + counters.resets + counters.connections;
    this.guests.set(name, seen);
  }

  /** Its driver starts anew, by a host that has no counters. */
  restarted(name: string): void {
    const seen = this.guests.get(name);
    if (seen?.status.counters === null) seen.epoch++;
  }
}
