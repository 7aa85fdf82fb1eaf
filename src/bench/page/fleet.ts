/** What a page that shows many guests costs the daemon, and how smoothly a browser draws it. */
import { setTimeout as delay } from 'node:timers/promises';
import { type BenchRow, type Measured, spreadOf } from '../report.ts';
import { PageBrowser } from './browser.ts';
import type { Drawing, Onlooker, Watched } from './view.ts';
import { PageWorld } from './world.ts';

interface FleetOptions {
  readonly guests: number;
  /** How long each state of affairs is watched. */
  readonly seconds: number;
  readonly onlooker: Onlooker;
  readonly signal: AbortSignal;
  readonly step: (what: string) => void;
}

const MEMORY_BYTES = 64 * 2 ** 20;
/** Statistics are asked for as often as the page looks, so that it has something new to show of every guest. */
const WORDS = ['--poll-interval', '1s', '--log-level', 'info'];
/** Until what was started has come to its pace. */
const SETTLE_MS = 2000;
const SCRAPES = 5;

export async function measureFleet(options: FleetOptions): Promise<Measured> {
  const { guests, seconds, onlooker, signal, step } = options;
  const names = Array.from({ length: guests }, (_, index) => `guest-${index + 1}`);
  step(`${guests} guests`);
  const blank = onlooker instanceof PageBrowser ? await onlooker.blank(seconds * 500, signal) : null;
  const world = await PageWorld.start({ guests: names, memoryBytes: MEMORY_BYTES, words: WORDS, signal });
  try {
    await world.tell({ kind: 'live' });
    await delay(SETTLE_MS, undefined, { signal });
    step('no onlooker');
    const idle = await cpuWhile(world, () => delay(seconds * 1000, undefined, { signal }));
    step('a page is open');
    const view = await onlooker.look(world.place());
    await delay(SETTLE_MS, undefined, { signal });
    let watched: Watched | undefined;
    const open = await cpuWhile(world, async () => {
      watched = await view.watch(seconds * 1000, signal);
    });
    await view.leave();
    step('metrics are scraped');
    const scraped = await scrape(world, guests);
    const rows = [pageRow(options, watched as Watched, open, idle, blank), scraped];
    const smooth = watched?.drawing ?? null;
    return {
      rows,
      ratios: {
        'page.cpuShare': open,
        'page.cpuShareWithoutPage': idle,
        ...(smooth === null || blank === null
          ? {}
          : { 'page.framesToBlank': smooth.framesPerSecond / blank.framesPerSecond }),
      },
    };
  } finally {
    await world.close();
  }
}

/** The share of one core that the daemon used. */
async function cpuWhile({ daemon }: PageWorld, act: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  const cpuMs = daemon.cpuMs();
  await act();
  return (daemon.cpuMs() - cpuMs) / (performance.now() - startMs);
}

function pageRow(
  { guests, onlooker }: FleetOptions,
  { elapsedMs, updates, drawing }: Watched,
  open: number,
  idle: number,
  blank: Drawing | null,
): BenchRow {
  return {
    case: 'page open',
    scenario: `${guests} guests`,
    peer: onlooker.name,
    elapsedMs: spreadOf(updates.map(update => update.elapsedMs)),
    bytes: spreadOf(updates.map(({ bytes }) => bytes)),
    updatesPerSecond: (1000 * updates.length) / elapsedMs,
    daemonCpuPercent: 100 * open,
    daemonCpuPercentWithoutPage: 100 * idle,
    framesPerSecond: drawing?.framesPerSecond ?? null,
    framesPerSecondOfBlankPage: blank?.framesPerSecond ?? null,
    lateFramesPercent: drawing === null ? null : 100 * drawing.lateShare,
    longestFrameMs: drawing?.longestFrameMs ?? null,
    pageCpuPercent: drawing === null ? null : 100 * drawing.busyShare,
  };
}

async function scrape({ daemon }: PageWorld, guests: number): Promise<BenchRow> {
  const elapsedMs: number[] = [];
  let bytes = 0;
  const cpuMs = daemon.cpuMs();
  for (let count = 0; count < SCRAPES; count++) {
    const startMs = performance.now();
    bytes = (await (await daemon.get('metrics')).arrayBuffer()).byteLength;
    elapsedMs.push(performance.now() - startMs);
  }
  return {
    case: 'metrics scraped',
    scenario: `${guests} guests`,
    peer: 'client',
    elapsedMs: spreadOf(elapsedMs),
    bytes,
    daemonCpuMs: (daemon.cpuMs() - cpuMs) / SCRAPES,
    // Last of all, so that it is the peak of everything before, too.
    daemonPeakMiB: daemon.peakMiB(),
  };
}
