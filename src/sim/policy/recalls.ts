/**
 * How long guests wait for the memory of their bursts: from the beginning of a burst until all that it comes to is usable,
 * of bursts for which memory had to be fetched. Whose guests they are, the model's or real ones, is not known here.
 */
import { type Burst, type Trace, watermarkOf } from './trace.ts';

interface Recall {
  readonly burst: Burst;
  endS: number | null;
}

export class Recalls {
  readonly #trace: Trace;
  readonly #begun = new Set<Burst>();
  readonly #recalls: Recall[] = [];

  constructor(trace: Trace) {
    this.#trace = trace;
  }

  /** Seconds, one for each; a burst that ended before counts with its length. */
  get seconds(): number[] {
    return this.#recalls.map(({ burst, endS }) => (endS ?? burst.untilS) - burst.atS);
  }

  /** Looks at all bursts; `keptBytes` is what a guest has without its balloon. */
  follow(atS: number, keptBytes: (guest: number) => number, memoryBytes: (guest: number) => number): void {
    for (const burst of this.#trace.bursts) {
      if (atS < burst.atS) continue;
      const { guest, untilS, toBytes } = burst;
      const own = watermarkOf(memoryBytes(guest));
      const enough = Math.max(0, keptBytes(guest) - own) >= Math.min(toBytes, memoryBytes(guest) - own);
      if (!this.#begun.has(burst)) {
        this.#begun.add(burst);
        if (!enough && atS < untilS) this.#recalls.push({ burst, endS: null });
      }
      const open = this.#recalls.find(recall => recall.burst === burst && recall.endS === null);
      if (open !== undefined && (enough || atS >= untilS)) open.endS = Math.min(atS, untilS);
    }
  }
}
