/**
 * How many huge frames of 2 MiB a guest that builds has in use, in parts and as wholes, by its allocator's own counts: what a
 * host would have to keep that looks all the time and takes whole frames. The buddy allocator, which reports its free pages,
 * beside the one of two levels, which a host shares. No host takes part, and no time passes but the guest's own: what
 * `bench build` finds beyond the difference is how often a host looks. Prints a table.
 */
import { FRAME_PAGES, freePagesOf } from '../src/balloon/shared-frames.ts';
import { type BenchRow, type Measured, spreadOf } from '../src/bench/report.ts';
import { Guest } from '../src/guest/guest.ts';
import type { KernelCore } from '../src/guest/kernel-core.ts';
import { PAGE_SIZE } from '../src/memory/page.ts';
import { PageSet } from '../src/memory/page-set.ts';
import { heapMemory } from '../src/testing/heap-memory.ts';
import { NO_PEER, runAsProgram } from './micro.ts';

const MIB = 2 ** 20;
const BYTES = 256 * MIB;
const PAGES = BYTES / PAGE_SIZE;
const FRAMES = PAGES / FRAME_PAGES;
const SEEDS = [1, 2, 3, 4, 5];
/** Builds one behind the other, each looked at so often, every {@link STEP_PAGES} page accesses. */
const BUILDS = 3;
const LOOKS = 300;
const STEP_PAGES = 500;
const SPEC = { kind: 'build', jobs: 4, workingPages: PAGES / 16 } as const;

/** A guest, and how many pages are free in each frame of its memory. */
interface Looked {
  readonly guest: Guest<KernelCore>;
  readonly free: () => readonly number[];
}

function reporting(seed: number): Looked {
  const guest = Guest.boot({ memory: heapMemory(BYTES), seed });
  const { allocator } = guest.kernel;
  return {
    guest,
    free: () => {
      allocator.drainPerCpu();
      const pages = new PageSet(Number.MAX_SAFE_INTEGER);
      allocator.listFree(pages);
      const free = new Array<number>(FRAMES).fill(0);
      pages.forEachRun((pfn, count) => {
        for (let page = pfn; page < pfn + count; page++) free[Math.floor(page / FRAME_PAGES)]++;
      });
      return free;
    },
  };
}

function shared(seed: number): Looked {
  const guest = Guest.bootShared({ memory: heapMemory(BYTES), seed });
  const { frames } = guest.kernel;
  return {
    guest,
    free: () => Array.from({ length: FRAMES }, (_, frame) => freePagesOf(frames.wordOf(frame))),
  };
}

const CASES = { reporting, shared } as const;
type CaseName = keyof typeof CASES;
const NAMES = Object.keys(CASES) as readonly CaseName[];

/** Means over all looks at one guest. */
interface Sample {
  readonly usedMib: number;
  readonly keptMib: number;
  readonly partlyFrames: number;
  /** Builds and looks. */
  readonly elapsedMs: number;
}

function sample(name: CaseName, seed: number): Sample {
  const startedMs = performance.now();
  const { guest, free } = CASES[name](seed);
  let [used, kept, partly] = [0, 0, 0];
  for (let build = 0; build < BUILDS; build++) {
    const workload = guest.start(SPEC);
    for (let look = 0; look < LOOKS; look++) {
      guest.step(STEP_PAGES);
      for (const pages of free()) {
        used += FRAME_PAGES - pages;
        if (pages < FRAME_PAGES) kept++;
        if (pages > 0 && pages < FRAME_PAGES) partly++;
      }
    }
    workload.stop();
  }
  const looks = BUILDS * LOOKS;
  return {
    usedMib: (used * PAGE_SIZE) / MIB / looks,
    keptMib: (kept * FRAME_PAGES * PAGE_SIZE) / MIB / looks,
    partlyFrames: partly / looks,
    elapsedMs: performance.now() - startedMs,
  };
}

async function measure(): Promise<Measured> {
  const samples = NAMES.map(name => ({ name, taken: SEEDS.map(seed => sample(name, seed)) }));
  const rows = samples.map(
    ({ name, taken }): BenchRow => ({
      case: name,
      scenario: `${BUILDS} builds, ${BYTES / MIB} MiB`,
      peer: NO_PEER,
      elapsedMs: spreadOf(taken.map(one => one.elapsedMs)),
      usedMib: spreadOf(taken.map(one => one.usedMib)),
      keptMib: spreadOf(taken.map(one => one.keptMib)),
      keptToUsed: spreadOf(taken.map(one => one.keptMib / one.usedMib)),
      partlyFrames: spreadOf(taken.map(one => one.partlyFrames)),
    }),
  );
  const [buddy, twoLevel] = samples.map(({ taken }) => taken);
  const keptToReporting = spreadOf(twoLevel.map((one, index) => one.keptMib / buddy[index].keptMib));
  console.table(
    samples.map(({ name, taken }) => ({
      case: name,
      'used MiB': spreadOf(taken.map(one => one.usedMib)).median.toFixed(1),
      'kept MiB': spreadOf(taken.map(one => one.keptMib)).median.toFixed(1),
      'partly used frames': spreadOf(taken.map(one => one.partlyFrames)).median.toFixed(1),
    })),
  );
  console.log(`kept, shared to reporting: ${keptToReporting.median.toFixed(3)}`);
  return { rows, ratios: { 'shared.frames.keptToReporting': keptToReporting.median } };
}

await runAsProgram(import.meta.url, 'frames', measure);
