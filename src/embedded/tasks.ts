/** What a guest can be told to do with its memory, beside the workloads: use some and keep it, or wait for a workload. */
import type { Process } from '../guest/process.ts';
import type { Workload } from '../guest/workloads/workload.ts';
import { AerostatError } from '../sys/error.ts';
import type { Task } from './processor.ts';

/** What processes are called that were told to use memory. */
export const USER_NAME = 'use';

/** The guest had not the memory that it was told to use. */
export class GuestMemoryError extends AerostatError {
  constructor(process: string) {
    super('AEROSTAT_GUEST_MEMORY', `${process} was killed: the guest is out of memory`);
  }
}

/** A new process writes that many pages and keeps them. */
export class Use implements Task {
  readonly #process: Process;
  readonly #end: number;
  #at = 0;

  constructor(process: Process, pages: number) {
    this.#process = process;
    this.#end = pages;
  }

  get done(): boolean {
    return this.#at >= this.#end;
  }

  /** @throws GuestMemoryError when the process was killed for want of memory */
  step(pages: number): number {
    const end = Math.min(this.#end, this.#at + pages);
    const from = this.#at;
    while (this.#at < end && this.#process.write(this.#at)) this.#at++;
    if (this.#process.state === 'killed') {
      throw new GuestMemoryError(this.#process.name);
    }
    return this.#at - from;
  }
}

/** Waits for a workload that the guest steps itself. */
export class WorkloadEnd implements Task {
  readonly #workload: Workload;

  constructor(workload: Workload) {
    this.#workload = workload;
  }

  get done(): boolean {
    return this.#workload.done;
  }

  step(): number {
    return 0;
  }
}
