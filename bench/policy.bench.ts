/**
 * What a decision over many guests costs, and what it leaves on the heap, when the caller takes two decisions in turn:
 * in steady state, and with a tenth of the guests bursting. The baseline, in the same run, is a bare pass over the same
 * samples. Prints a table.
 */
import { Bench } from 'tinybench';
import type { BenchRow, Measured } from '../src/bench/report.ts';
import { decide } from '../src/policy/decide.ts';
import { newDecision } from '../src/policy/records.ts';
import type { GuestSample, Sample, Settings, StatisticsRead } from '../src/policy/types.ts';
import { NO_PEER, runAsProgram, spreadOfTask } from './micro.ts';

const COUNT = 1000;
const GIB = 2 ** 30;
const SETTINGS: Settings = { guests: {} };
const BURSTING = 10;
/** Decisions over which the heap is watched at a time, and how often. */
const HEAP_ROUNDS = 300;
const HEAP_WINDOWS = 8;

type Mutable<Type> = { -readonly [Key in keyof Type]: Type[Key] };

/** A host with half of what its guests may have; the samples are one set of records, as a caller keeps them. */
class Host {
  readonly sample: Mutable<Sample>;
  readonly #guests: (Omit<Mutable<GuestSample>, 'statistics'> & { statistics: Mutable<StatisticsRead> })[];
  #turns = [newDecision(), newDecision()];
  #round = 0;

  constructor() {
    this.#guests = Array.from({ length: COUNT }, (_, index) => ({
      name: `vm${index}`,
      memoryBytes: 4 * GIB,
      targetBytes: 0,
      actualBytes: 0,
      givenBytes: 0,
      residentBytes: 3.5 * GIB,
      epoch: 1,
      statistics: {
        availableBytes: (3 - (index % 16) / 8) * GIB,
        freeBytes: GIB,
        cacheBytes: GIB,
        swapInBytes: 0,
        swapOutBytes: 0,
        majorFaults: 10.5,
        minorFaults: 1,
        oomKills: 0,
        allocationStalls: 0.5,
        balloonedBytes: 0,
      },
    }));
    const host = {
      totalBytes: COUNT * 2 * GIB,
      availableBytes: COUNT * 0.2 * GIB,
      freeBytes: 0,
      reservedBytes: 0,
    };
    this.sample = { atMs: 1_000_000, host, guests: this.#guests };
  }

  /** Time goes on, guests did what they were told, and statistics are new; a part of the guests uses more each time. */
  next(bursting: boolean): void {
    this.#round++;
    this.sample.atMs += 2000;
    const decided = this.#turns[0].guests;
    for (const [at, guest] of this.#guests.entries()) {
      const target = decided[at]?.targetBytes ?? 0;
      guest.targetBytes = target;
      guest.actualBytes = target;
      guest.givenBytes = target;
      const { statistics } = guest;
      statistics.balloonedBytes = target;
      statistics.minorFaults = this.#round;
      const burst = bursting && at % BURSTING === this.#round % BURSTING ? GIB : 0;
      statistics.availableBytes = Math.max(0.1 * GIB, (3 - (at % 16) / 8) * GIB - target - burst);
    }
  }

  decide(): void {
    const [last, spare] = this.#turns;
    decide(this.sample, SETTINGS, last.memory, spare);
    this.#turns = [spare, last];
  }
}

let sink = 0;

/** Reads what a decision has to read, and decides nothing. */
function barePass({ guests }: Sample): void {
  let sum = 0;
  for (const { memoryBytes, targetBytes, actualBytes, statistics } of guests)
    sum += memoryBytes - targetBytes - actualBytes - (statistics?.availableBytes ?? 0);
  sink += sum;
}

/**
 * Bytes that a decision leaves on the heap, a guest, in steady state: the least of several windows, because V8 compiles
 * behind our back, and code that it has not compiled yet makes a number of the heap for each that it hands on.
 */
function heapPerGuest(): number {
  const host = new Host();
  let least = Number.POSITIVE_INFINITY;
  for (let window = 0; window < HEAP_WINDOWS; window++) least = Math.min(least, heapInWindow(host));
  return least;
}

/** The median of the steps: a collection in between makes a step negative. */
function heapInWindow(host: Host): number {
  const steps: number[] = [];
  for (let round = 0; round < HEAP_ROUNDS; round++) {
    host.next(false);
    const before = process.memoryUsage().heapUsed;
    host.decide();
    steps.push(process.memoryUsage().heapUsed - before);
  }
  steps.sort((a, b) => a - b);
  return steps[Math.floor(steps.length / 2)] / COUNT;
}

async function measure(): Promise<Measured> {
  const bench = new Bench({ time: 1000, warmupTime: 500 });
  const steady = new Host();
  const bursting = new Host();
  bench.add('bare pass', () => barePass(steady.sample));
  bench.add('steady', () => steady.decide(), { beforeEach: () => steady.next(false) });
  bench.add('bursting', () => bursting.decide(), { beforeEach: () => bursting.next(true) });
  await bench.run();
  const heap = heapPerGuest();
  const rows = bench.tasks.map(
    ({ name }): BenchRow => ({
      case: name,
      scenario: `${COUNT} guests`,
      peer: NO_PEER,
      elapsedMs: spreadOfTask(bench, name),
      heapBytesPerGuest: name === 'steady' ? heap : null,
    }),
  );
  console.log(`A decision over ${COUNT} guests, in milliseconds.`);
  console.table(
    rows.map(({ case: name, elapsedMs, heapBytesPerGuest }) => ({
      case: name,
      min: elapsedMs.min.toFixed(3),
      median: elapsedMs.median.toFixed(3),
      max: elapsedMs.max.toFixed(3),
      'heap bytes a guest': heapBytesPerGuest ?? '',
    })),
  );
  if (Number.isNaN(sink)) console.log('the samples make no sense');
  return {
    rows,
    ratios: {
      'steady.msPerThousandGuests': spreadOfTask(bench, 'steady').median,
      'bursting.msPerThousandGuests': spreadOfTask(bench, 'bursting').median,
      'steady.heapBytesPerGuest': heap,
    },
  };
}

await runAsProgram(import.meta.url, 'policy', measure);
