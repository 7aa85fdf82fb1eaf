/**
 * Host and guests as a policy sees them: all sources are asked at the same time, and what they said last makes a sample.
 * When they are asked, and what follows from it, is the runner's.
 */
import type { HostStatus } from '../control/contract.ts';
import type { GuestSample, HostSample, Sample } from '../policy/types.ts';
import type { SteeringClock } from './clock.ts';
import { type SeenGuest, SourceWatch, type SteeredSource } from './guest-source.ts';
import { guestSample, type HostLimits, hostSample } from './sampling.ts';

interface HostViewOptions {
  readonly sources: readonly SteeredSource[];
  readonly host: () => Promise<HostStatus>;
  readonly clock: SteeringClock;
  /** Told of what should not happen. */
  readonly onError?: (error: unknown) => void;
}

export class HostView {
  readonly watches: readonly SourceWatch[];
  /** The guests of the newest sample, in its order. */
  seen: readonly SeenGuest[] = [];
  /** The host of the newest sample: what the policy divides of it. */
  divided: HostSample | undefined;
  readonly #options: HostViewOptions;
  #host: HostStatus | undefined;

  constructor(options: HostViewOptions) {
    this.#options = options;
    const { clock, sources } = options;
    this.watches = sources.map(source => new SourceWatch(source, () => clock.nowMs()));
  }

  /** Every guest that is known, also those that are not there. */
  find(name: string): SeenGuest | undefined {
    for (const { guests } of this.watches) {
      const seen = guests.get(name);
      if (seen !== undefined) return seen;
    }
    return undefined;
  }

  get names(): string[] {
    return this.watches.flatMap(({ guests }) => [...guests.keys()]);
  }

  /** Why guests of a source cannot be asked; null where they can. */
  errorOf(name: string): string | null {
    return this.watches.find(({ guests }) => guests.has(name))?.error ?? null;
  }

  /** Looks at everything; a source that is slower than `patienceMs` is not waited for. */
  async look(patienceMs: number): Promise<void> {
    const { clock, host, onError } = this.#options;
    // One that has not answered since the last time is not waited for at all.
    const looks = this.watches.map(async watch => {
      if (watch.isLate) return;
      await watch.look().catch((error: unknown) => onError?.(error));
    });
    let late: { cancel(): void } | undefined;
    const patience = new Promise<void>(resolve => {
      late = clock.schedule(patienceMs, resolve);
    });
    const [seen] = await Promise.all([host(), Promise.race([Promise.all(looks), patience])]);
    late?.cancel();
    this.#host = seen;
  }

  /** Undefined while the host does not say what it has. */
  sample(limits: HostLimits): Sample | undefined {
    const atMs = this.#options.clock.nowMs();
    const guests: GuestSample[] = [];
    const seen: SeenGuest[] = [];
    for (const watch of this.watches) {
      for (const one of watch.guests.values()) {
        const guest = guestSample(one, atMs);
        if (guest === undefined) continue;
        guests.push(guest);
        seen.push(one);
      }
    }
    this.seen = seen;
    this.divided = this.#host && hostSample(this.#host, guests, limits);
    return this.divided && { atMs, host: this.divided, guests };
  }
}
