/**
 * A list of page runs in two flat arrays: what decoders fill and encoders read. Consecutive runs that touch
 * are joined as they arrive, in rising or falling order, which is how an allocator tends to hand out pages.
 */
import type { PageSink } from './page.ts';

const CAPACITY_START = 256;

export class PageRanges implements PageSink {
  #starts = new Float64Array(CAPACITY_START);
  #counts = new Float64Array(CAPACITY_START);
  #length = 0;
  #pages = 0;

  static of(...runs: readonly (readonly [pfn: number, count: number])[]): PageRanges {
    const ranges = new PageRanges();
    for (const [pfn, count] of runs) ranges.add(pfn, count);
    return ranges;
  }

  /** Number of runs. */
  get length(): number {
    return this.#length;
  }

  /** Pages in all runs; a page that was added twice counts twice. */
  get pages(): number {
    return this.#pages;
  }

  start(index: number): number {
    return this.#starts[index];
  }

  count(index: number): number {
    return this.#counts[index];
  }

  add(pfn: number, count: number): void {
    const last = this.#length - 1;
    this.#pages += count;
    if (last >= 0) {
      if (this.#starts[last] + this.#counts[last] === pfn) {
        this.#counts[last] += count;
        return;
      }
      if (pfn + count === this.#starts[last]) {
        this.#starts[last] = pfn;
        this.#counts[last] += count;
        return;
      }
    }
    this.append(pfn, count);
    this.#pages -= count;
  }

  /** Adds a run of its own, never joined to the one before it. */
  append(pfn: number, count: number): void {
    if (this.#length === this.#starts.length) this.#grow();
    this.#starts[this.#length] = pfn;
    this.#counts[this.#length] = count;
    this.#length++;
    this.#pages += count;
  }

  clear(): void {
    this.#length = 0;
    this.#pages = 0;
  }

  forEach(visit: (pfn: number, count: number) => void): void {
    for (let index = 0; index < this.#length; index++) visit(this.#starts[index], this.#counts[index]);
  }

  /** Sorts the runs and joins those that touch or overlap; afterwards no page is listed twice. */
  normalize(): this {
    const runs = this.toArray().sort((a, b) => a[0] - b[0]);
    this.clear();
    for (const [pfn, count] of runs) {
      const last = this.#length - 1;
      const end = last < 0 ? -1 : this.#starts[last] + this.#counts[last];
      if (pfn > end) {
        this.append(pfn, count);
      } else if (pfn + count > end) {
        this.#counts[last] += pfn + count - end;
        this.#pages += pfn + count - end;
      }
    }
    return this;
  }

  toArray(): (readonly [pfn: number, count: number])[] {
    return Array.from({ length: this.#length }, (_, i) => [this.#starts[i], this.#counts[i]] as const);
  }

  #grow(): void {
    const starts = new Float64Array(this.#starts.length * 2);
    const counts = new Float64Array(this.#counts.length * 2);
    starts.set(this.#starts);
    counts.set(this.#counts);
    this.#starts = starts;
    this.#counts = counts;
  }
}
