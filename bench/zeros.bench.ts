/**
 * What the drafts of 2026 that promise zeros give a guest, and what they cost it: the time for 256 MiB of zeroed pages, each
 * of which is then written to, after the guest's free memory was reported (bit 6), and after it came back from the balloon
 * (bit 7), with the promise and without. For bit 7 the device discards before it acknowledges, so the time of the inflation
 * is measured, too. Device and driver are in one thread; memory is a memfd that was all in use. Prints a table.
 */
import { DEVICE_INIT_ON_INFLATE, DEVICE_INIT_REPORTED } from '../src/balloon/features.ts';
import { profile } from '../src/balloon/profiles.ts';
import { type BenchRow, type Measured, spreadOf } from '../src/bench/report.ts';
import { BalloonDriver } from '../src/driver/balloon-driver.ts';
import { ManualScheduler } from '../src/driver/scheduler.ts';
import { GFP_MOVABLE, GFP_ZERO } from '../src/guest/gfp.ts';
import { GuestKernel } from '../src/guest/kernel.ts';
import { FileBacking } from '../src/memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../src/memory/guest-memory.ts';
import { NIL } from '../src/memory/page-blocks.ts';
import { createMemfd } from '../src/sys/file.ts';
import { LoopbackTransport } from '../test/support/loopback-transport.ts';
import { promisesSettled } from '../test/support/promises.ts';
import { NO_PEER, runAsProgram } from './micro.ts';

const MIB = 2 ** 20;
const MEMORY_BYTES = 640 * MIB;
const WANTED_PAGES = (256 * MIB) / 4096;
const BALLOON_PAGES = (512 * MIB) / 4096;
const RUNS = 5;
const REPORTING_MS = 2_000;

type Way = 'reported' | 'ballooned';

interface Sample {
  readonly givingMs: number;
  readonly allocatingMs: number;
  readonly promisedPages: number;
}

/** Milliseconds that `work` takes, with all that it sets off. */
async function timed(rest: () => Promise<void>, work: () => void): Promise<number> {
  const startedMs = performance.now();
  work();
  await rest();
  return performance.now() - startedMs;
}

async function sample(way: Way, promised: boolean): Promise<Sample> {
  const backing = new FileBacking(createMemfd({ name: 'bench-zeros', size: MEMORY_BYTES }), 0, MEMORY_BYTES);
  const memory = new GuestMemory([
    new MemoryRegion({ guestAddress: 0, size: MEMORY_BYTES, userAddress: 0 }, backing),
  ]);
  memory.fill(0, 0x5a, MEMORY_BYTES);
  const scheduler = new ManualScheduler();
  const kernel = new GuestKernel({ memory, clock: scheduler });
  const abi = profile('device-init');
  const transport = new LoopbackTransport({ profile: abi, memory });
  const off = promised ? 0n : DEVICE_INIT_REPORTED | DEVICE_INIT_ON_INFLATE;
  const features =
    abi.featureMask & ~(off | (way === 'reported' ? DEVICE_INIT_ON_INFLATE : DEVICE_INIT_REPORTED));
  const driver = new BalloonDriver({ kernel, transport, scheduler, profile: abi, features });
  const rest = async () => {
    for (;;) {
      await promisesSettled();
      const served = transport.run() > 0;
      const due = scheduler.nextDueMs;
      if (due !== undefined && due <= scheduler.now()) scheduler.runDue();
      else if (!served) return;
    }
  };
  await driver.probe();
  await rest();
  const aim = (pages: number) => () => {
    transport.device.targetPages = pages;
  };
  let givingMs: number;
  if (way === 'reported') {
    givingMs = await timed(rest, () => scheduler.advance(REPORTING_MS));
  } else {
    givingMs = await timed(rest, aim(BALLOON_PAGES));
    transport.device.drain();
    await timed(rest, aim(0));
  }
  const startedMs = performance.now();
  for (let taken = 0; taken < WANTED_PAGES; taken++) {
    const pfn = kernel.allocate(0, GFP_MOVABLE | GFP_ZERO);
    if (pfn === NIL) throw new Error(`the guest has no more than ${taken} pages`);
    memory.setU32(pfn * 4096, 1);
  }
  const allocatingMs = performance.now() - startedMs;
  const promisedPages = driver.counters.zeroedPages;
  memory.close();
  return { givingMs, allocatingMs, promisedPages };
}

async function measure(): Promise<Measured> {
  const samples = new Map<string, Sample[]>();
  const cases = (['reported', 'ballooned'] as const).flatMap(way =>
    [false, true].map(promised => ({
      way,
      promised,
      name: `${way}, ${promised ? 'promised zeros' : 'nothing said'}`,
    })),
  );
  for (let run = 0; run <= RUNS; run++) {
    for (const { way, promised, name } of cases) {
      const one = await sample(way, promised);
      if (one.promisedPages > 0 !== promised)
        throw new Error(`${name}: ${one.promisedPages} pages were promised`);
      // The first turn is for the compiler.
      if (run > 0) samples.set(name, [...(samples.get(name) ?? []), one]);
    }
  }
  const spread = (name: string, figure: keyof Sample) =>
    spreadOf((samples.get(name) ?? []).map(one => one[figure]));
  const rows = cases.map(
    ({ name }): BenchRow => ({
      case: name,
      scenario: '256 MiB of zeros, each page written to',
      peer: NO_PEER,
      elapsedMs: spread(name, 'allocatingMs'),
      givingMs: spread(name, 'givingMs'),
    }),
  );
  console.table(
    rows.map(({ case: name }) => ({
      case: name,
      'giving ms': spread(name, 'givingMs').median.toFixed(1),
      'allocating ms': spread(name, 'allocatingMs').median.toFixed(1),
    })),
  );
  const ratio = (way: Way, figure: keyof Sample) =>
    spread(`${way}, promised zeros`, figure).median / spread(`${way}, nothing said`, figure).median;
  return {
    rows,
    ratios: {
      'reported.allocating': ratio('reported', 'allocatingMs'),
      'ballooned.allocating': ratio('ballooned', 'allocatingMs'),
      'ballooned.giving': ratio('ballooned', 'givingMs'),
    },
  };
}

await runAsProgram(import.meta.url, 'zeros', measure);
