/**
 * Which pages leave the balloon: those that compaction moved, those above the target, and those that a guest out of
 * memory asks for. They are the guest's again when the host has acknowledged that (docs/conformance.md, D7), never before.
 */
import type { BalloonPages } from './balloon-pages.ts';
import type { Batch } from './batch.ts';
import type { DriverCounters } from './counters.ts';
import type { PageSource } from './page-channel.ts';
import type { Scheduler } from './scheduler.ts';

interface LeakOptions {
  readonly pages: BalloonPages;
  readonly scheduler: Scheduler;
  readonly counters: DriverCounters;
}

export class Leak implements PageSource {
  /** The guest is about to stand still: nothing is begun. */
  halted = false;
  readonly #options: LeakOptions;
  /** Pages that are wanted whatever the target is. */
  #demanded = 0;

  constructor(options: LeakOptions) {
    this.#options = options;
  }

  /** Pages that are on their way to the guest, or will be in the next buffer. */
  get coming(): number {
    return this.#options.pages.deflating + this.#demanded;
  }

  /** Asks up to `count` pages back, target or not; returns how many there are. */
  demand(count: number): number {
    this.#demanded = Math.min(this.#options.pages.resting, count);
    return this.#demanded;
  }

  gather(batch: Batch): void {
    const { pages } = this.#options;
    pages.dismissDepartures(batch);
    if (this.halted) return;
    const wanted = Math.max(this.#demanded, pages.surplus);
    if (wanted > 0) this.#demanded = Math.max(0, this.#demanded - pages.dismiss(batch, wanted));
  }

  withdrawn(batch: Batch): void {
    this.#options.pages.keep(batch);
  }

  settled(batch: Batch): void {
    const { pages, scheduler, counters } = this.#options;
    counters.deflatedPages += batch.pages;
    const started = scheduler.now();
    pages.deflated(batch);
    counters.freeingMs += scheduler.now() - started;
  }
}
