/**
 * A guest as its host process sees it: a kernel, the workloads that use its memory, and one stream of chance. A
 * worker steps it between messages, a simulation between other steps, and a migration saves it here and
 * restores it there.
 */
import { type Aged, type AgeingOptions, age } from './fragmentation.ts';
import { GuestKernel } from './kernel.ts';
import type { KernelCore } from './kernel-core.ts';
import type { GuestKernelOptions, GuestResumeOptions, SharedKernelOptions } from './kernel-options.ts';
import { RANDOM_STATE_WORDS, Random } from './random.ts';
import {
  SAVED_STATE_MAGIC,
  SAVED_STATE_VERSION,
  SavedGuestError,
  StateReader,
  StateWriter,
} from './saved-state.ts';
import { SharedKernel } from './shared-kernel.ts';
import { Build, type BuildSpec } from './workloads/build.ts';
import { Churn, type ChurnSpec } from './workloads/churn.ts';
import { Read, type ReadSpec } from './workloads/read.ts';
import { Touch, type TouchSpec } from './workloads/touch.ts';
import type { Workload } from './workloads/workload.ts';

export type WorkloadSpec = BuildSpec | ChurnSpec | ReadSpec | TouchSpec;

/** Pages that one workload uses before the next has its turn and the kernel's own threads run. */
const SLICE_PAGES = 256;
const WORKLOADS_MAX = 1024;
const KINDS = ['build', 'churn', 'read', 'touch'] as const;

type WordRange = readonly [start: number, end: number];

interface Seeded {
  /** Names the whole history of the guest. */
  readonly seed: number;
}

/** Ageing and saving need a kernel on the buddy allocator. */
export class Guest<Kernel extends KernelCore = GuestKernel> {
  readonly kernel: Kernel;
  #random: Random;
  /** Where in what this was restored from stands what passes by itself, in words; see {@link becomeLater}. */
  #passing: readonly [WordRange, WordRange] | undefined;
  readonly #workloads: Workload[] = [];
  #started = 0;
  #turn = 0;

  private constructor(kernel: Kernel, random: Random) {
    this.kernel = kernel;
    this.#random = random;
  }

  static boot(options: GuestKernelOptions & Seeded): Guest {
    return new Guest(new GuestKernel(options), new Random(options.seed));
  }

  /** On the allocator that a host may share. */
  static bootShared(options: SharedKernelOptions & Seeded): Guest<SharedKernel> {
    return new Guest(new SharedKernel(options), new Random(options.seed));
  }

  /** Those that are not done. */
  get workloads(): readonly Workload[] {
    return this.#workloads.filter(workload => !workload.done);
  }

  start(spec: WorkloadSpec): Workload {
    const random = this.#random.split(`${spec.kind} ${this.#started++}`);
    const workload = workloadOf(this.kernel, spec, random);
    this.#workloads.push(workload);
    return workload;
  }

  /** Breaks free memory up; see {@link age}. */
  age(this: Guest, options: AgeingOptions): Aged {
    return age(this.kernel, this.#random.split(`age ${this.#started++}`), options);
  }

  /**
   * Lets the workloads use `n` pages between them, in turns; returns how many they used, fewer when all are
   * done or wait for memory.
   * @throws ContentError when one finds a page that does not hold what it wrote
   */
  step(n: number): number {
    let used = 0;
    let waiting = 0;
    while (used < n && waiting < this.#workloads.length) {
      if (this.#turn >= this.#workloads.length) this.#turn = 0;
      const workload = this.#workloads[this.#turn];
      const part = workload.done ? 0 : workload.step(Math.min(SLICE_PAGES, n - used));
      used += part;
      if (workload.done) {
        this.#workloads.splice(this.#turn, 1);
      } else {
        this.#turn++;
        waiting = part === 0 ? waiting + 1 : 0;
      }
      this.kernel.runBackground();
    }
    if (used === 0) this.kernel.runBackground();
    return used;
  }

  /** Checks every page that was written to; returns how many. @throws ContentError */
  verify(): number {
    return this.kernel.verify();
  }

  /** The whole guest but the contents of its memory. */
  save(this: Guest): Uint8Array {
    const into = new StateWriter();
    into.u32(SAVED_STATE_MAGIC);
    into.u32(SAVED_STATE_VERSION);
    this.kernel.save(into);
    into.array(this.#random.save());
    into.integer(this.#started);
    into.u32(this.#turn);
    const { workloads } = this;
    into.u32(workloads.length);
    for (const workload of workloads) {
      into.u32(KINDS.indexOf(workload.kind));
      workload.save(into);
    }
    return into.bytes();
  }

  /**
   * A guest that was restored from `before` and has not run since becomes one that was saved later. False, having changed
   * nothing, where more is different than what passes in a guest that does nothing.
   * @throws SavedGuestError
   */
  becomeLater(this: Guest, before: Uint8Array, later: Uint8Array): boolean {
    const passing = this.#passing;
    if (passing === undefined || !alikeBut(before, later, passing)) return false;
    const from = new StateReader(later);
    from.seek(passing[0][0]);
    this.kernel.loadCounters(from);
    from.seek(passing[1][0]);
    this.#loadCounters(from);
    return true;
  }

  #loadCounters(from: StateReader): void {
    this.#random = Random.restore(from.array('random state', RANDOM_STATE_WORDS));
    this.#started = from.integer('workloads so far');
    this.#turn = from.u32('the turn', WORKLOADS_MAX);
  }

  /**
   * The guest that {@link save} wrote, over memory of the same layout that holds the same bytes.
   * @throws SavedGuestError for anything else
   */
  static restore(options: GuestResumeOptions, bytes: Uint8Array): Guest {
    const from = new StateReader(bytes);
    if (from.u32('its magic number') !== SAVED_STATE_MAGIC) throw new SavedGuestError('it is no saved guest');
    const version = from.u32('its version');
    if (version !== SAVED_STATE_VERSION) {
      throw new SavedGuestError(`its version is ${version}; this program reads ${SAVED_STATE_VERSION}`);
    }
    const kernel = GuestKernel.restore(options, from);
    const guest = new Guest(kernel, new Random(0));
    const start = from.at;
    guest.#loadCounters(from);
    guest.#passing = [kernel.countersPlace, [start, from.at]];
    const count = from.u32('workloads', WORKLOADS_MAX);
    for (let i = 0; i < count; i++) guest.#workloads.push(restoreWorkload(kernel, from));
    from.end();
    return guest;
  }
}

/** Whether two saved guests are the same outside of these stretches. */
function alikeBut(one: Uint8Array, other: Uint8Array, stretches: readonly WordRange[]): boolean {
  if (one.length !== other.length) return false;
  let at = 0;
  for (const [start, end] of [...stretches, [one.length / 4, one.length / 4]]) {
    if (Buffer.compare(one.subarray(at, start * 4), other.subarray(at, start * 4)) !== 0) return false;
    at = end * 4;
  }
  return true;
}

function workloadOf(kernel: KernelCore, spec: WorkloadSpec, random: Random): Workload {
  switch (spec.kind) {
    case 'build':
      return new Build(kernel, spec, random);
    case 'churn':
      return new Churn(kernel, spec, random);
    case 'read':
      return new Read(kernel, spec);
    case 'touch':
      return new Touch(kernel, spec);
  }
}

function restoreWorkload(kernel: KernelCore, from: StateReader): Workload {
  switch (KINDS[from.u32('the kind of a workload', KINDS.length - 1)]) {
    case 'build':
      return Build.restore(kernel, from);
    case 'churn':
      return Churn.restore(kernel, from);
    case 'read':
      return Read.restore(kernel, from);
    case 'touch':
      return Touch.restore(kernel, from);
  }
}
