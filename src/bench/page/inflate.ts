/**
 * Whether the data plane notices a viewer: a guest gives memory away that the host backs, with no viewer, and with the
 * guest's own page open and metrics scraped, in turn.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type BenchRow, type Measured, spreadOf } from '../report.ts';
import type { Onlooker } from './view.ts';
import { PageWorld } from './world.ts';

interface PageInflateOptions {
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly runs: number;
  /** Each is a case of its own. */
  readonly onlookers: readonly Onlooker[];
  readonly signal: AbortSignal;
  readonly step: (what: string) => void;
}

interface Sample {
  readonly elapsedMs: number;
  readonly guestMs: number;
  /** Of all of the daemon's threads, its account of clock ticks. */
  readonly daemonCpuMs: number;
}

const GUEST = 'guest';
const SCRAPE_MS = 1000;
/** Until the page has found its pace, and the viewer that left is gone. */
const SETTLE_MS = 1500;

export async function measureInflateWithPage(options: PageInflateOptions): Promise<Measured> {
  const { memoryBytes, runs, onlookers, signal, step } = options;
  const cases: readonly (Onlooker | undefined)[] = [undefined, ...onlookers];
  const samples = cases.map((): Sample[] => []);
  const world = await PageWorld.start({
    guests: [GUEST],
    memoryBytes,
    words: ['--without', 'page-reporting'],
    signal,
  });
  try {
    // What runs for the first time is slower than ever after, with every viewer.
    for (const one of cases.slice(0, 2)) await inflate(world, one, options);
    for (let run = 0; run < runs; run++) {
      // Every run begins with another case, so that none always follows the same one.
      for (let turn = 0; turn < cases.length; turn++) {
        const at = (run + turn) % cases.length;
        signal.throwIfAborted();
        step(`inflate, ${cases[at]?.name ?? 'alone'}`);
        samples[at].push(await inflate(world, cases[at], options));
      }
    }
  } finally {
    await world.close();
  }
  const rows = cases.map((onlooker, at) => rowOf(onlooker, options, samples[at]));
  const [alone, ...looked] = rows;
  return {
    rows,
    ratios: Object.fromEntries(
      looked.map((row, at) => [
        `inflateWithPage${at === 0 ? '' : `.${onlookers[at].name.split(' ')[0]}`}`,
        row.elapsedMs.median / alone.elapsedMs.median,
      ]),
    ),
  };
}

async function inflate(
  world: PageWorld,
  onlooker: Onlooker | undefined,
  { balloonBytes, signal }: PageInflateOptions,
): Promise<Sample> {
  await world.tell({ kind: 'touch' });
  const view = await onlooker?.look(world.place(GUEST));
  await delay(SETTLE_MS, undefined, { signal });
  const scraper = onlooker === undefined ? undefined : scrape(world);
  const cpuMs = world.daemon.cpuMs();
  try {
    const { progress } = await world.reach(GUEST, balloonBytes, signal);
    return {
      elapsedMs: progress?.drainedMs ?? Number.NaN,
      guestMs: progress?.reachedMs ?? Number.NaN,
      daemonCpuMs: world.daemon.cpuMs() - cpuMs,
    };
  } finally {
    await scraper?.stop();
    await view?.leave();
    await world.reach(GUEST, 0, signal);
  }
}

/** Scrapes now and every second, so that no inflation is too short to meet one. */
function scrape({ daemon }: PageWorld): { stop(): Promise<unknown> } {
  const scrapes: Promise<unknown>[] = [];
  const once = () => void scrapes.push(daemon.get('metrics').then(response => response.text()));
  once();
  const timer = setInterval(once, SCRAPE_MS);
  return {
    stop: () => {
      clearInterval(timer);
      return Promise.all(scrapes);
    },
  };
}

const rowOf = (
  onlooker: Onlooker | undefined,
  { balloonBytes }: PageInflateOptions,
  samples: readonly Sample[],
): BenchRow => ({
  case: onlooker === undefined ? 'no onlooker' : `page (${onlooker.name}), metrics`,
  scenario: `inflate ${(balloonBytes / 2 ** 30).toPrecision(3)} GiB`,
  peer: onlooker?.name ?? 'none',
  elapsedMs: spreadOf(samples.map(({ elapsedMs }) => elapsedMs)),
  guestMs: spreadOf(samples.map(({ guestMs }) => guestMs)),
  daemonCpuMs: spreadOf(samples.map(({ daemonCpuMs }) => daemonCpuMs)),
});
