/**
 * What a plan over a whole fleet costs a leader: 1,000 hosts with 50,000 guests, while nothing is to be done, and while a
 * tenth of the hosts is short and another one drained. The baseline, in the same run, is a bare pass over the same
 * guests. Prints a table, the heap that a plan needs, and some of a
 * plan in words.
 */
import { Bench } from 'tinybench';
import type { BenchRow, Measured } from '../src/bench/report.ts';
import {
  explainEnd,
  explainFleet,
  explainOrder,
  explainPlacement,
  explainStaying,
} from '../src/placement/explain.ts';
import { plan } from '../src/placement/plan.ts';
import type { FleetHost, FleetView, Placement } from '../src/placement/types.ts';
import { NO_PEER, runAsProgram, spreadOfTask } from './micro.ts';

const HOSTS = 1000;
const GUESTS = 50;
const GIB = 2 ** 30;
const PERIOD_MS = 2000;
/** Plans until a new leader has settled and short hosts are due. */
const SETTLING = 30;

/** A host whose guests need `part` of what they may have. */
function hostOf(index: number, part: number, draining: boolean): FleetHost {
  const host = `host${index}`;
  const memoryBytes = 256 * GIB;
  const needBytes = (part * 0.9 * memoryBytes) / GUESTS;
  return {
    host,
    revision: 1,
    ageMs: 1000,
    draining,
    memoryBytes,
    reserveBytes: 0.05 * memoryBytes,
    othersBytes: 0.05 * memoryBytes,
    linkBytesPerSecond: 1.25e9,
    guests: Array.from({ length: GUESTS }, (_, at) => ({
      guest: `vm${index * GUESTS + at}`,
      incarnation: `${index}.${at}`,
      sizeBytes: 16 * GIB,
      residentBytes: needBytes * (0.5 + (at % 10) / 20),
      needBytes,
      minBytes: GIB,
      dirtyBytesPerSecond: (at % 7) * 20e6,
      obstacle: at % 20 === 0 ? 'it has a device of the host' : null,
      moving: null,
      left: [],
    })),
    incoming: [],
  };
}

/** A leader that has looked on for a minute, and its view; a caller plans with it as often as it wishes. */
function leaderOf(partOf: (index: number) => number, drains: (index: number) => boolean): () => Placement {
  const hosts = Array.from({ length: HOSTS }, (_, index) => hostOf(index, partOf(index), drains(index)));
  let atMs = 1_000_000;
  const viewed = (): FleetView => ({ atMs, hosts });
  // It orders nothing yet: what is measured is its first plan with orders, again and again.
  let { memory } = plan(viewed(), undefined, { movesMax: 0 });
  for (let at = 0; at < SETTLING; at++) {
    atMs += PERIOD_MS;
    ({ memory } = plan(viewed(), memory, { movesMax: 0 }));
  }
  return () => plan(viewed(), memory);
}

let sink = 0;

function barePass(hosts: readonly FleetHost[]): void {
  for (const { guests } of hosts)
    for (const { needBytes, residentBytes } of guests) sink += needBytes + residentBytes;
}

/** Mebibytes that one plan leaves on the heap: the median of those in which nothing was collected. */
function heapMiB(leader: () => Placement): number {
  const steps: number[] = [];
  for (let round = 0; round < 30; round++) {
    const before = process.memoryUsage().heapUsed;
    leader();
    steps.push(process.memoryUsage().heapUsed - before);
  }
  const grown = steps.filter(step => step > 0).sort((a, b) => a - b);
  return (grown[Math.floor(grown.length / 2)] ?? 0) / 2 ** 20;
}

/** The first of each kind of sentence that a plan gives. */
function inWords({ state, unknownHosts, hosts, orders, staying, ends }: Placement): string[] {
  const size = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`;
  return [
    explainFleet(state, unknownHosts),
    ...hosts.slice(0, 1).map(host => explainPlacement(host, size)),
    ...orders.slice(0, 1).map(order => explainOrder(order, size)),
    ...staying.slice(0, 1).map(guest => explainStaying(guest, size)),
    ...ends.slice(0, 1).map(explainEnd),
  ];
}

async function measure(): Promise<Measured> {
  const steady = leaderOf(
    () => 0.7,
    () => false,
  );
  const busy = leaderOf(
    index => (index % 10 === 0 ? 1.05 : 0.7),
    index => index % 10 === 5,
  );
  const hosts = Array.from({ length: HOSTS }, (_, index) => hostOf(index, 0.7, false));
  const bench = new Bench({ time: 2000, warmupTime: 500 });
  bench.add('bare pass', () => barePass(hosts));
  bench.add('steady', () => steady());
  bench.add('busy', () => busy());
  await bench.run();
  const leaders: Record<string, (() => Placement) | undefined> = { steady, busy };
  const rows = bench.tasks.map(({ name }): BenchRow => {
    const leader = leaders[name];
    const made = leader?.();
    return {
      case: name,
      scenario: `${HOSTS} hosts, ${HOSTS * GUESTS} guests`,
      peer: NO_PEER,
      elapsedMs: spreadOfTask(bench, name),
      orders: made?.orders.length ?? null,
      looks: made?.looks ?? null,
      heapMiB: leader === undefined ? null : heapMiB(leader),
      // Fleet and plans of all cases together.
      peakMiB: process.resourceUsage().maxRSS / 1024,
    };
  });
  console.log(`A plan over ${HOSTS} hosts with ${HOSTS * GUESTS} guests, in milliseconds.`);
  console.table(
    rows.map(({ case: name, elapsedMs, orders, looks, heapMiB: heap }) => ({
      case: name,
      min: elapsedMs.min.toFixed(1),
      median: elapsedMs.median.toFixed(1),
      max: elapsedMs.max.toFixed(1),
      orders: orders ?? '',
      looks: looks ?? '',
      'heap MiB': typeof heap === 'number' ? heap.toFixed(1) : '',
    })),
  );
  for (const sentence of inWords(busy())) console.log(sentence);
  if (Number.isNaN(sink)) console.log('the fleet makes no sense');
  return {
    rows,
    ratios: {
      'steady.msPerPlan': spreadOfTask(bench, 'steady').median,
      'busy.msPerPlan': spreadOfTask(bench, 'busy').median,
      'busy.toSteady': spreadOfTask(bench, 'busy').median / spreadOfTask(bench, 'steady').median,
      'busy.heapMiB': heapMiB(busy),
    },
  };
}

await runAsProgram(import.meta.url, 'placement', measure);
