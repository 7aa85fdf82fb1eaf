/**
 * A process that never rests: it writes, checks and frees pages of a working set in random order, a tenth of
 * them most of the time. How fast it dirties memory is up to its caller.
 */
import type { KernelCore } from '../kernel-core.ts';
import type { Process } from '../process.ts';
import { RANDOM_STATE_WORDS, Random } from '../random.ts';
import { SavedGuestError, type StateReader, type StateWriter } from '../saved-state.ts';
import { WORKING_PER_PAGE_MAX, type Workload } from './workload.ts';

export interface ChurnSpec {
  readonly kind: 'churn';
  /** Size of the working set. */
  readonly pages: number;
}

const HOT_SHARE = 0.1;
const HOT_CHANCE = 0.8;
const WRITE_CHANCE = 0.65;
const CHECK_CHANCE = 0.3;

export class Churn implements Workload {
  readonly kind = 'churn';
  readonly #kernel: KernelCore;
  readonly #random: Random;
  readonly #pages: number;
  #process: Process;
  #stopped = false;

  constructor(kernel: KernelCore, { pages }: ChurnSpec, random: Random, process?: Process) {
    this.#kernel = kernel;
    this.#random = random;
    this.#pages = pages;
    this.#process = process ?? kernel.spawn('churn');
  }

  get done(): boolean {
    return this.#stopped;
  }

  step(n: number): number {
    if (this.#stopped) return 0;
    // Killed for want of memory: a new one takes its place.
    if (this.#process.state !== 'running') this.#process = this.#kernel.spawn('churn');
    const random = this.#random;
    for (let used = 0; used < n; used++) {
      const range = random.chance(HOT_CHANCE) ? Math.ceil(this.#pages * HOT_SHARE) : this.#pages;
      const index = random.below(range);
      const what = random.u32() / 2 ** 32;
      this.#process.verify(index);
      if (what < WRITE_CHANCE) {
        if (!this.#process.write(index)) return used;
      } else if (what >= WRITE_CHANCE + CHECK_CHANCE) {
        this.#process.unmap(index);
      }
    }
    return n;
  }

  stop(): void {
    this.#stopped = true;
    this.#process.exit();
  }

  save(into: StateWriter): void {
    into.u32(this.#process.state === 'running' ? this.#process.pid : 0);
    into.u32(this.#pages);
    into.array(this.#random.save());
  }

  static restore(kernel: KernelCore, from: StateReader): Churn {
    const pid = from.u32('the churning process');
    const process = pid === 0 ? kernel.spawn('churn') : kernel.processes.get(pid);
    if (process === undefined) throw new SavedGuestError('the churning process is missing');
    const pages = from.u32('the working set', WORKING_PER_PAGE_MAX * kernel.allocator.managedPages);
    return new Churn(
      kernel,
      { kind: 'churn', pages },
      Random.restore(from.array('random state', RANDOM_STATE_WORDS)),
      process,
    );
  }
}
