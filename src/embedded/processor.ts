/**
 * The guest's processor: it lets tasks and workloads have the thread in slices, between the turns in which the reactor
 * serves rings and messages. A guest without work sleeps but for its kernel's housekeeping.
 */

import type { Scheduler } from '../driver/scheduler.ts';
import type { Guest } from '../guest/guest.ts';
import type { KernelCore } from '../guest/kernel-core.ts';
import type { Timer } from '../sys/poll.ts';

/** Pages that are used in a row: about a millisecond, so that a deflation is never kept waiting for longer. */
const SLICE_PAGES = 2048;
/** Until a task that found no memory tries again; a deflation takes less. */
const STALL_MS = 2;
/** Between two rounds of housekeeping of a guest that does nothing else. */
const IDLE_MS = 500;

/** Something that the guest does to its end. */
export interface Task {
  readonly done: boolean;
  /** Uses up to `pages` pages; returns how many. Fewer when there is no memory for more, or nothing left to do. */
  step(pages: number): number;
}

interface Running {
  readonly task: Task;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

interface ProcessorOptions {
  readonly guest: Guest<KernelCore>;
  readonly scheduler: Scheduler;
  /** Pages that workloads may use in a second. */
  readonly pagesPerSecondMax: number;
  /** A workload found a page that is not what it wrote, or our own code is wrong. */
  readonly onFailure: (error: unknown) => void;
}

export class Processor {
  readonly #options: ProcessorOptions;
  readonly #running = new Set<Running>();
  #timer: Timer | undefined;
  /** Pages that workloads may use now, and since when that is so. */
  #credit = SLICE_PAGES;
  #creditedMs: number;
  #paused = false;
  #stopped = false;
  /** The part of its time that the guest has. */
  #share = 1;

  constructor(options: ProcessorOptions) {
    this.#options = options;
    this.#creditedMs = options.scheduler.now();
    this.wake();
  }

  /** Runs `task` to its end beside everything else; rejects with what its step throws. */
  run(task: Task): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#running.add({ task, resolve, reject });
      this.wake();
    });
  }

  /** The guest stands still from now on. */
  pause(): void {
    this.#paused = true;
    this.#timer?.cancel();
  }

  resume(): void {
    this.#paused = false;
    this.wake();
  }

  /** Lets the guest have this share of its time, (0, 1]. */
  throttle(share: number): void {
    this.#share = share;
  }

  /** There is something new to do. */
  wake(): void {
    this.#schedule(0);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    for (const { reject } of this.#running) reject(new Error('the guest ends'));
    this.#running.clear();
  }

  #schedule(delayMs: number): void {
    this.#timer?.cancel();
    if (!this.#stopped && !this.#paused)
      this.#timer = this.#options.scheduler.schedule(delayMs, () => this.#slice());
  }

  #slice(): void {
    const { scheduler, guest } = this.#options;
    const startedMs = scheduler.now();
    try {
      const used = this.#stepTasks() + this.#stepWorkloads();
      const idle = this.#running.size === 0 && guest.workloads.length === 0;
      // What it used of its share is followed by the rest of the time.
      const restMs = (scheduler.now() - startedMs) * (1 / this.#share - 1);
      this.#schedule(idle ? IDLE_MS : used > 0 ? restMs : Math.max(STALL_MS, restMs));
    } catch (error) {
      this.stop();
      this.#options.onFailure(error);
    }
  }

  #stepTasks(): number {
    let used = 0;
    for (const running of this.#running) {
      const { task, resolve, reject } = running;
      try {
        used += task.step(SLICE_PAGES);
        if (!task.done) continue;
        resolve();
      } catch (error) {
        reject(error);
      }
      this.#running.delete(running);
    }
    return used;
  }

  #stepWorkloads(): number {
    const { guest, scheduler, pagesPerSecondMax } = this.#options;
    const now = scheduler.now();
    const perMs = Math.min(pagesPerSecondMax / 1000, Number.MAX_VALUE);
    this.#credit = Math.min(SLICE_PAGES, this.#credit + (now - this.#creditedMs) * perMs);
    this.#creditedMs = now;
    const used = guest.step(Math.floor(this.#credit));
    this.#credit -= used;
    return used;
  }
}
