/**
 * What the embedded guest costs: booting, allocating, ageing, writing and checking pages, saving and restoring.
 * The baseline of the allocator, in the same run, pops page frame numbers off an array and marks them, which is
 * the least that any allocator does. Memory is a memfd that is never touched but by the rows that say so.
 * Prints tables.
 */

import { type BenchRow, type Measured, spreadOf } from '../src/bench/report.ts';
import { age, fragmentation } from '../src/guest/fragmentation.ts';
import { GFP_HINT, GFP_MOVABLE } from '../src/guest/gfp.ts';
import { Guest } from '../src/guest/guest.ts';
import { GuestKernel } from '../src/guest/kernel.ts';
import { Random } from '../src/guest/random.ts';
import { FileBacking } from '../src/memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../src/memory/guest-memory.ts';
import { NIL, ORDER_MAX } from '../src/memory/page-blocks.ts';
import { createMemfd } from '../src/sys/file.ts';
import { NO_PEER, runAsProgram } from './micro.ts';

const GIB = 2 ** 30;
const RUNS = 5;
const BASELINE = 'baseline: pop and mark';
/** 7 GiB, what the classic measurement inflates. */
const PAGES = (7 * GIB) / 4096;
const SEED = 1;

/** A guest as large as the classic measurement's: 2 GiB below 4 GiB, the rest above. */
function openMemory(size: number): GuestMemory {
  const low = Math.min(size, 2 * GIB);
  const regions = [{ guestAddress: 0, size: low }];
  if (size > low) regions.push({ guestAddress: 4 * GIB, size: size - low });
  return new GuestMemory(
    regions.map(({ guestAddress, size }) => {
      const backing = new FileBacking(createMemfd({ name: 'bench-guest', size }), 0, size);
      return new MemoryRegion({ guestAddress, size, userAddress: guestAddress }, backing);
    }),
  );
}

const residentBytes = (memory: GuestMemory) =>
  memory.regions.reduce((bytes, region) => bytes + region.backing.residentBytes(), 0);

interface Row {
  readonly name: string;
  /** Work in one run, in whatever unit the rate is given in; 0 where only the time counts. */
  readonly work: number;
  readonly times: number[];
}

const rows = new Map<string, Row>();

function timed<T>(name: string, work: number, run: () => T): T {
  const start = performance.now();
  const result = run();
  const row = rows.get(name) ?? { name, work, times: [] };
  row.times.push(performance.now() - start);
  rows.set(name, row);
  return result;
}

const pfns = new Int32Array(PAGES);

function takeAll(kernel: GuestKernel): void {
  for (let i = 0; i < PAGES; i++) pfns[i] = kernel.allocate(0, GFP_MOVABLE);
  if (pfns[PAGES - 1] === NIL) throw new Error('the guest is too small');
}

function freeAll(kernel: GuestKernel): void {
  for (let i = 0; i < PAGES; i++) kernel.free(pfns[i], 0);
}

/** The least an allocator does for a page. */
function baseline(): void {
  const stack = Int32Array.from({ length: PAGES }, (_, i) => i);
  const state = new Uint8Array(PAGES);
  timed(BASELINE, PAGES, () => {
    for (let top = PAGES - 1; top >= 0; top--) {
      const pfn = stack[top];
      state[pfn] = 1;
      pfns[PAGES - 1 - top] = pfn;
    }
  });
}

function allocator(): void {
  const memory = openMemory(8 * GIB);
  const kernel = timed('boot 8 GiB', 0, () => new GuestKernel({ memory }));
  if (residentBytes(memory) > 0) throw new Error('boot touched guest memory');
  timed('allocate 7 GiB page by page', PAGES, () => takeAll(kernel));
  timed('free it in the same order', PAGES, () => freeAll(kernel));
  timed('allocate and free 64 pages in turn', PAGES, () => {
    for (let i = 0; i < PAGES; i += 64) {
      for (let k = 0; k < 64; k++) pfns[k] = kernel.allocate(0, GFP_MOVABLE);
      for (let k = 0; k < 64; k++) kernel.free(pfns[k], 0);
    }
  });
  kernel.allocator.drainPerCpu();
  timed('allocate 7 GiB in 4 MiB blocks and free it', PAGES, () => {
    for (let i = 0; i < PAGES >>> ORDER_MAX; i++) pfns[i] = kernel.allocate(ORDER_MAX, GFP_HINT);
    for (let i = 0; i < PAGES >>> ORDER_MAX; i++) kernel.free(pfns[i], ORDER_MAX);
  });
  const random = new Random(SEED);
  const { after } = timed('age to 90 %, untouched', 0, () => age(kernel, random, { degree: 0.9 }));
  if (Math.abs(after.degree - 0.9) > 0.01) throw new Error(`aged to ${after.degree}`);
  timed('allocate 7 GiB page by page, aged 90 %', PAGES, () => takeAll(kernel));
  timed('free it in the same order, aged 90 %', PAGES, () => freeAll(kernel));
  timed('check all invariants', 0, () => kernel.checkInvariants());
  timed('count the fragmentation', 0, () => fragmentation(kernel.allocator));
  memory.close();
}

/** 256 MiB of pages, written and checked. */
function contents(): void {
  const pages = 2 ** 16;
  for (const coverage of ['edges', 'whole'] as const) {
    const memory = openMemory(GIB / 2);
    const kernel = new GuestKernel({ memory, coverage });
    const process = kernel.spawn('bench');
    timed(`first write of a page, ${coverage}`, pages, () => {
      for (let index = 0; index < pages; index++) process.write(index);
    });
    timed(`write it again, ${coverage}`, pages, () => {
      for (let index = 0; index < pages; index++) process.write(index);
    });
    timed(`check it, ${coverage}`, pages, () => process.verifyAll());
    memory.close();
  }
}

/** A guest of 512 MiB at work, saved and restored. */
function workloads(): void {
  const memory = openMemory(GIB / 2);
  const guest = Guest.boot({ memory, seed: SEED });
  guest.start({ kind: 'build', jobs: 4 });
  guest.start({ kind: 'churn', pages: 2 ** 15 });
  const steps = 500_000;
  timed('build and churn in 512 MiB', steps, () => guest.step(steps));
  const bytes = timed('save it', 0, () => guest.save());
  timed('restore it', 0, () => Guest.restore({ memory }, bytes));
  const moved = guest.kernel.vmstat().pagesMigrated;
  timed('compact it', 0, () => guest.kernel.compact());
  if (guest.kernel.vmstat().pagesMigrated === moved) throw new Error('nothing was compacted');
  memory.close();
}

async function measure(): Promise<Measured> {
  for (let run = 0; run < RUNS; run++) {
    baseline();
    allocator();
    contents();
    workloads();
  }
  const measured = [...rows.values()].map(({ name, work, times }) => ({
    name,
    work,
    spread: spreadOf(times),
  }));
  /** Median time for one page (or step) of a row. */
  const cost = (name: string): number => {
    const row = measured.find(row => row.name === name);
    if (row === undefined) throw new Error(`${name} was not measured`);
    return row.spread.median / row.work;
  };
  const floor = cost(BASELINE);
  console.log(`${RUNS} runs; times in milliseconds, rates from the median, relative to the baseline's.`);
  console.table(
    measured.map(({ name, work, spread }) => ({
      name,
      min: spread.min.toFixed(2),
      median: spread.median.toFixed(2),
      max: spread.max.toFixed(2),
      'M pages/s': work === 0 ? '' : (work / spread.median / 1000).toFixed(2),
      'to baseline': work === 0 ? '' : (spread.median / work / floor).toFixed(1),
    })),
  );
  return {
    rows: measured.map(
      ({ name, work, spread }): BenchRow => ({
        case: name,
        scenario: `seed ${SEED}`,
        peer: NO_PEER,
        elapsedMs: spread,
        perSecond: work === 0 ? null : Math.round((work * 1000) / spread.median),
      }),
    ),
    ratios: {
      'allocate.toBaseline': cost('allocate 7 GiB page by page') / floor,
      'allocate.aged90.toBaseline': cost('allocate 7 GiB page by page, aged 90 %') / floor,
    },
  };
}

await runAsProgram(import.meta.url, 'guest', measure);
