/**
 * The guest's side of `bench inflate`, in a thread of its own: boots an embedded guest, brings its memory into the
 * scenario's state, follows the host's targets, and tells what its driver counted. Afterwards it takes the floor:
 * the time of a bare loop that punches the very runs that were inflated, in memory of the same state.
 */
import { parentPort, workerData } from 'node:worker_threads';
import type { ProfileName } from '../../balloon/profiles.ts';
import type { DriverCounters } from '../../driver/counters.ts';
import type { DriverTuning } from '../../driver/options.ts';
import { EmbeddedGuest } from '../../embedded/embedded-guest.ts';
import type { RingKind } from '../../embedded/options.ts';
import { fragmentation } from '../../guest/fragmentation.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { gpaOf, PAGE_SIZE } from '../../memory/page.ts';
import { PageSet } from '../../memory/page-set.ts';
import { defined } from '../../sys/defined.ts';
import { InvariantError } from '../../sys/error.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { type BackingName, openMemory } from './backings.ts';
import { firstPages, type Runs, writePassNs } from './write-pass.ts';

/** What free memory is like when the balloon comes. */
export type Scenario = 'idle' | 'touched' | `aged-${number}`;

export interface InflateGuestData {
  readonly socketPath: string;
  readonly memoryBytes: number;
  readonly profile: ProfileName;
  readonly rings: RingKind;
  readonly scenario: Scenario;
  readonly seed: number;
  readonly tuning: Partial<DriverTuning>;
  readonly floor: boolean;
  /** Inflations before the one that counts. */
  readonly warm: number;
  /** What its memory is made of; a memfd where absent. Then the guest's speed is measured, too. */
  readonly backing?: BackingName;
  readonly balloonBytes: number;
  /** The pages of the host that the guest knows of. */
  readonly hostPageBytes?: number;
}

/** The host has all of what the balloon holds. */
export type ToInflateGuest = 'drained';

export type FromInflateGuest =
  /** Memory is in the scenario's state; `counters`: the driver's until now. */
  | {
      readonly kind: 'ready';
      readonly fragmentation: number;
      readonly counters: Readonly<DriverCounters>;
      /** The file that is its memory; open until the guest is switched off. */
      readonly memoryFd: number;
      /** What writing to a page takes, of as many pages as the balloon will leave; NaN where it is not measured. */
      readonly writeNs: number;
    }
  /** The balloon is where the host wants it, `ms` after the guest heard of it; `runs`: maximal runs of what it holds. */
  | {
      readonly kind: 'settled';
      readonly ms: number;
      readonly counters: Readonly<DriverCounters>;
      readonly runs: number;
    }
  /** The same of what the balloon left, when the host has the rest. */
  | { readonly kind: 'written'; readonly writeNs: number }
  | { readonly kind: 'floor'; readonly ms: number; readonly runs: number };

const data = workerData as InflateGuestData;
if (parentPort === null) throw new InvariantError('a guest without a bench');
const port = parentPort;
const tell = (message: FromInflateGuest): void => port.postMessage(message);
const LOOK_MS = 1;

/** One word of each page: the host backs it from then on. */
function touch(memory: GuestMemory, pfn: number, count: number): void {
  for (let page = pfn; page < pfn + count; page++) memory.setU32(gpaOf(page), 1);
}

function age({ movable }: EmbeddedGuest): void {
  const degree = /^aged-(\d+)$/.exec(data.scenario)?.[1];
  if (degree !== undefined) movable.age({ degree: Number(degree) / 100 });
}

/** The host took what the balloon held: before each inflation all free memory is the guest's again. */
function touchFree(machine: EmbeddedGuest): void {
  if (data.scenario === 'idle') return;
  for (const [pfn, count] of freeRuns(machine)) touch(machine.memory, pfn, count);
}

function freeRuns({ movable: { kernel } }: EmbeddedGuest): Runs {
  const free = new PageSet(Number.MAX_SAFE_INTEGER);
  kernel.allocator.listFree(free, 0);
  const runs: [number, number][] = [];
  free.forEachRun((pfn, count) => runs.push([pfn, count]));
  return runs;
}

/** Of as many free pages as are left when the balloon holds `balloonBytes`. Memory that was not touched is left so. */
function speed(machine: EmbeddedGuest, balloonBytes: number): number {
  if (data.backing === undefined || data.scenario === 'idle') return Number.NaN;
  const runs = freeRuns(machine);
  const pages = runs.reduce((sum, [, count]) => sum + count, 0) - balloonBytes / PAGE_SIZE;
  return writePassNs(machine.memory.regions[0], firstPages(runs, pages));
}

function ballooned({ driver }: EmbeddedGuest): PageSet {
  const pages = new PageSet(Number.MAX_SAFE_INTEGER);
  driver.forEachBlock((pfn, order) => pages.add(pfn, 2 ** order));
  return pages;
}

/** Punches `pages` run by run with nothing in between, after their memory was brought into the scenario's state. */
function floorMs({ memory }: EmbeddedGuest, pages: PageSet): { ms: number; runs: number } {
  if (data.scenario !== 'idle') pages.forEachRun((pfn, count) => touch(memory, pfn, count));
  const [{ backing, firstPfn }] = memory.regions;
  const runs = joined(pages);
  const startedMs = monotonicMs();
  for (const [pfn, count] of runs) {
    backing.discard(gpaOf(pfn - firstPfn), gpaOf(count));
  }
  return { ms: monotonicMs() - startedMs, runs: runs.length };
}

/** Maximal runs; a set hands them out cut at every GiB. */
function joined(pages: PageSet): [pfn: number, count: number][] {
  const runs: [number, number][] = [];
  pages.forEachRun((pfn, count) => {
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === pfn) last[1] += count;
    else runs.push([pfn, count]);
  });
  return runs;
}

let drained = 0;
port.on('message', (_: ToInflateGuest) => {
  drained++;
});
const machine = await EmbeddedGuest.start(
  {
    socketPath: data.socketPath,
    memoryBytes: data.memoryBytes,
    profile: data.profile,
    rings: data.rings,
    seed: data.seed,
    driver: data.tuning,
    ...defined({ hostPageBytes: data.hostPageBytes }),
  },
  { memory: openMemory(data.backing ?? 'memfd', data.memoryBytes) },
);
try {
  age(machine);
  let held = new PageSet(0);
  // After the one that counts, one of little more than the way there and back.
  const rounds = data.warm + (data.backing === undefined ? 1 : 2);
  for (let round = 0; round < rounds; round++) {
    touchFree(machine);
    tell({
      kind: 'ready',
      fragmentation: fragmentation(machine.movable.kernel.allocator).degree,
      counters: { ...machine.driver.counters },
      memoryFd: machine.memory.regions[0].backing.file?.fd.number ?? -1,
      writeNs: speed(machine, data.balloonBytes),
    });
    const holds = await follow(machine, true);
    if (round === data.warm) held = holds;
    await hasDrained(machine, round);
    tell({ kind: 'written', writeNs: speed(machine, 0) });
    await follow(machine, false);
  }
  if (data.floor) tell({ kind: 'floor', ...floorMs(machine, held) });
} finally {
  await machine.close();
}
port.close();

/** Lets the driver reach the host's next target, tells how long that took, and returns what the balloon holds then. */
async function follow(machine: EmbeddedGuest, up: boolean): Promise<PageSet> {
  await targetMoved(machine, up);
  const startedMs = monotonicMs();
  await machine.driver.settled();
  const ms = monotonicMs() - startedMs;
  const held = up ? ballooned(machine) : new PageSet(0);
  tell({ kind: 'settled', ms, counters: { ...machine.driver.counters }, runs: joined(held).length });
  return held;
}

/** Until the host has what was inflated. The thread sleeps, and leaves its processor to those that discard. */
async function hasDrained({ reactor }: EmbeddedGuest, before: number): Promise<void> {
  while (drained <= before) {
    await new Promise<void>(resolve => void reactor.schedule(LOOK_MS, resolve));
    // Messages come through Node's loop.
    await new Promise(resolve => setImmediate(resolve));
  }
}

/** Until the host wants something (or nothing) of the guest. */
async function targetMoved({ driver }: EmbeddedGuest, up: boolean): Promise<void> {
  while (driver.targetPages > 0 !== up) await new Promise(resolve => setImmediate(resolve));
}
