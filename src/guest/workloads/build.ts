/**
 * Compiling something large, as memory sees it: jobs that each read some sources, grow to a working set that
 * they write and check, leave dirty object pages and kernel objects behind, and exit for the next one.
 */
import type { KernelCore } from '../kernel-core.ts';
import { type CachedFile, FILE_PAGES_MAX, FILES_MAX } from '../page-cache.ts';
import type { Process } from '../process.ts';
import { RANDOM_STATE_WORDS, Random } from '../random.ts';
import { SavedGuestError, type StateReader, type StateWriter } from '../saved-state.ts';
import { WORKING_PER_PAGE_MAX, type Workload } from './workload.ts';

export interface BuildSpec {
  readonly kind: 'build';
  /** Compilers at once. */
  readonly jobs: number;
  /** Mean working set of a job; an eighth of memory shared by all jobs unless said otherwise. */
  readonly workingPages?: number;
  /** Size of the sources; a sixteenth of memory unless said otherwise. */
  readonly sourcePages?: number;
}

/** Pages of source that a job reads, and of object that it writes, for each 16 of its working set. */
const SOURCE_SHARE = 4;
const OBJECT_SHARE = 1;
/** Of so many pages that a job reads one brings a page of kernel objects with it. */
const READS_PER_SLAB_PAGE = 8;
const JOBS_MAX = 1024;

const PHASES = ['read', 'work', 'check', 'emit'] as const;
type Phase = (typeof PHASES)[number];

interface Job {
  process: Process;
  phase: Phase;
  /** Pages done in this phase. */
  at: number;
  /** Where in the sources it reads. */
  source: number;
  working: number;
}

export class Build implements Workload {
  readonly kind = 'build';
  /** Jobs that ended, by themselves and killed. */
  finished = 0;
  killed = 0;
  readonly #kernel: KernelCore;
  readonly #random: Random;
  readonly #sources: CachedFile;
  readonly #objects: CachedFile;
  readonly #workingPages: number;
  readonly #jobs: Job[] = [];
  #turn = 0;
  #objectAt = 0;
  #stopped = false;

  constructor(
    kernel: KernelCore,
    spec: BuildSpec,
    random: Random,
    files?: readonly [CachedFile, CachedFile],
  ) {
    const { managedPages } = kernel.allocator;
    this.#kernel = kernel;
    this.#random = random;
    this.#workingPages = spec.workingPages ?? Math.max(16, Math.floor(managedPages / 8 / spec.jobs));
    const sourcePages = Math.min(FILE_PAGES_MAX, spec.sourcePages ?? Math.max(16, managedPages >>> 4));
    this.#sources = files?.[0] ?? kernel.cache.create(sourcePages);
    this.#objects = files?.[1] ?? kernel.cache.create(Math.max(1, sourcePages >>> 1));
    if (files === undefined) {
      for (let i = 0; i < Math.min(spec.jobs, JOBS_MAX); i++) this.#jobs.push(this.#newJob());
    }
  }

  get done(): boolean {
    return this.#stopped;
  }

  #newJob(): Job {
    return {
      process: this.#kernel.spawn('cc'),
      phase: 'read',
      at: 0,
      source: this.#random.below(this.#sources.pages),
      working: this.#random.between(
        this.#workingPages >>> 1,
        this.#workingPages + (this.#workingPages >>> 1),
      ),
    };
  }

  step(n: number): number {
    if (this.#stopped) return 0;
    let stalled = 0;
    let used = 0;
    while (used < n && stalled < this.#jobs.length) {
      this.#turn = (this.#turn + 1) % this.#jobs.length;
      const job = this.#jobs[this.#turn];
      if (job.process.state !== 'running') {
        this.killed++;
        this.#jobs[this.#turn] = this.#newJob();
      } else if (this.#work(job)) {
        stalled = 0;
        used++;
        if (job.process.state !== 'running') this.#jobs[this.#turn] = this.#newJob();
      } else {
        stalled++;
      }
    }
    return used;
  }

  /** One page of a job's work; false if there was no memory for it. */
  #work(job: Job): boolean {
    switch (job.phase) {
      case 'read':
        if (!this.#kernel.cache.read(this.#sources, (job.source + job.at) % this.#sources.pages))
          return false;
        if (job.at % READS_PER_SLAB_PAGE === 0) this.#kernel.slab.grow();
        this.#advance(job, (job.working * SOURCE_SHARE) >>> 4, 'work');
        return true;
      case 'work': {
        // Half of the pages are written once, half twice: what a compiler builds up and changes again.
        const index = job.at < job.working ? job.at : (job.at - job.working) * 2;
        job.process.verify(index);
        if (!job.process.write(index)) return false;
        this.#advance(job, job.working + (job.working >>> 1), 'check');
        return true;
      }
      case 'check':
        job.process.verify(job.at);
        this.#advance(job, job.working, 'emit');
        return true;
      case 'emit': {
        if (!this.#kernel.cache.write(this.#objects, this.#objectAt)) return false;
        this.#objectAt = (this.#objectAt + 1) % this.#objects.pages;
        if (this.#advance(job, (job.working * OBJECT_SHARE) >>> 4, 'read')) {
          job.process.exit();
          this.finished++;
        }
        return true;
      }
    }
  }

  #advance(job: Job, pages: number, next: Phase): boolean {
    if (++job.at < pages) return false;
    job.at = 0;
    job.phase = next;
    return true;
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const { process } of this.#jobs) process.exit();
    this.#kernel.cache.delete(this.#sources);
    this.#kernel.cache.delete(this.#objects);
  }

  save(into: StateWriter): void {
    into.u32(this.#sources.id);
    into.u32(this.#objects.id);
    into.u32(this.#workingPages);
    into.array(this.#random.save());
    into.u32(this.#turn);
    into.u32(this.#objectAt);
    into.integer(this.finished);
    into.integer(this.killed);
    into.u32(this.#jobs.length);
    for (const job of this.#jobs) {
      into.u32(job.process.state === 'running' ? job.process.pid : 0);
      into.u32(PHASES.indexOf(job.phase));
      into.u32(job.at);
      into.u32(job.source);
      into.u32(job.working);
    }
  }

  static restore(kernel: KernelCore, from: StateReader): Build {
    const sources = kernel.cache.file(from.u32('the sources', FILES_MAX - 1));
    const objects = kernel.cache.file(from.u32('the objects', FILES_MAX - 1));
    if (sources === undefined || objects === undefined) throw new SavedGuestError('a built file is missing');
    const workingMax = WORKING_PER_PAGE_MAX * kernel.allocator.managedPages;
    const workingPages = from.u32('the working set', workingMax);
    const random = Random.restore(from.array('random state', RANDOM_STATE_WORDS));
    const build = new Build(kernel, { kind: 'build', jobs: 0, workingPages }, random, [sources, objects]);
    build.#turn = from.u32('the turn', JOBS_MAX);
    build.#objectAt = from.u32('the object page', objects.pages - 1);
    build.finished = from.integer('jobs finished');
    build.killed = from.integer('jobs killed');
    const jobs = from.u32('jobs', JOBS_MAX);
    for (let i = 0; i < jobs; i++) {
      const pid = from.u32('a compiler');
      const process = pid === 0 ? kernel.spawn('cc') : kernel.processes.get(pid);
      if (process === undefined) throw new SavedGuestError('a compiler is missing');
      build.#jobs.push({
        process,
        phase: PHASES[from.u32('a phase', PHASES.length - 1)],
        at: from.u32('a place in a phase', workingMax * 4),
        source: from.u32('a place in the sources', sources.pages - 1),
        working: from.u32('a working set', workingMax * 2),
      });
    }
    return build;
  }
}
