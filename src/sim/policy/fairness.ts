/**
 * How far guests are below their fair parts: parts are max-min fair by shares, between floors and what programs want, of
 * what the guests may have together. How guests come to what they have is not known here.
 */
import { fill, type Part } from '../../policy/allocation.ts';
import { SHARES_DEFAULT, settingsOf } from '../../policy/settings.ts';
import type { Guests } from './guests.ts';
import { type Trace, watermarkOf } from './trace.ts';

interface FairPart extends Part {
  lowBytes: number;
  highBytes: number;
  /** What it has. */
  keepBytes: number;
}

/** The largest part of its fair part that a guest lacks: 0 where every guest has its own, 1 where one has nothing. */
export function belowFair(parts: readonly FairPart[], amount: number): number {
  fill(parts, amount);
  let most = 0;
  for (const { partBytes, keepBytes } of parts) {
    if (partBytes > 0) most = Math.max(most, (partBytes - keepBytes) / partBytes);
  }
  return most;
}

/** Looks at the guests of a run now and then, and keeps how far the one was that was furthest below. */
export class FairParts {
  readonly #guests: Guests;
  readonly #parts: readonly FairPart[];
  #sum = 0;
  #most = 0;
  #count = 0;

  constructor({ guests, settings }: Trace, live: Guests) {
    this.#guests = live;
    this.#parts = guests.map(({ name }) => ({
      ours: true,
      lowBytes: 0,
      highBytes: 0,
      weight: settingsOf(settings, name).shares ?? SHARES_DEFAULT,
      partBytes: 0,
      keepBytes: 0,
    }));
  }

  get mean(): number {
    return this.#sum / Math.max(1, this.#count);
  }

  get most(): number {
    return this.#most;
  }

  count(amount: number, floorOf: (at: number) => number): void {
    const { memory, wanted, balloon } = this.#guests;
    for (const [at, part] of this.#parts.entries()) {
      const wants = wanted[at] + watermarkOf(memory[at]);
      part.lowBytes = Math.min(floorOf(at), memory[at]);
      part.highBytes = Math.max(part.lowBytes, Math.min(memory[at], wants));
      part.keepBytes = memory[at] - balloon[at];
    }
    const below = belowFair(this.#parts, amount);
    this.#sum += below;
    this.#most = Math.max(this.#most, below);
    this.#count++;
  }
}
