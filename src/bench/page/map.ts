/**
 * What the map of a large guest costs: bytes, the daemon's time, and the browser's. The guest is the worst that a map
 * can meet: its memory is broken up, the host holds pages of it here and there, and no two cells are alike.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { MemoryMap } from '../../control/memory-map.ts';
import { type BenchRow, type Measured, spreadOf } from '../report.ts';
import type { Drawing, Onlooker } from './view.ts';
import { PageWorld } from './world.ts';

interface MapBenchOptions {
  readonly memoryBytes: number;
  readonly runs: number;
  readonly onlooker: Onlooker;
  readonly signal: AbortSignal;
  readonly step: (what: string) => void;
}

const GUEST = 'guest';
/** In a run: maps of memory that stays as it is, and changes with a map after each. */
const MAPS = 3;
const CHANGES = 2;
/** Of memory: the balloon at first, and what all changes add. */
const BALLOON_SHARE = 1 / 8;
const CHANGED_SHARE = 1 / 4;
/** What the host holds is not looked at again for 200 ms, however many ask. */
const BETWEEN_MS = 250;
const HINTED_MS_MAX = 10_000;
const FIRST_LOOKS_MAX = 100;

export async function measureMap(options: MapBenchOptions): Promise<Measured> {
  const { memoryBytes, onlooker, signal, step } = options;
  step('a broken up guest');
  const world = await PageWorld.start({ guests: [GUEST], memoryBytes, signal });
  try {
    await world.tell({ kind: 'scatter' });
    await world.reach(GUEST, pages(memoryBytes * BALLOON_SHARE), signal);
    await hinted(world, signal);
    step('maps');
    const scenario = `map of ${memoryBytes / 2 ** 30} GiB`;
    const first = await fetchMap(world);
    await wholeMap(world, signal);
    const drawn = await draws(world, options);
    const changes = await fetchChanges(world, options, 0);
    const row = (name: string, maps: readonly FetchedMap[]): BenchRow => ({
      case: name,
      scenario,
      peer: 'client',
      elapsedMs: spreadOf(maps.map(({ elapsedMs }) => elapsedMs)),
      bytes: spreadOf(maps.map(({ bytes }) => bytes)),
    });
    const rows = [row('first map', [first]), { ...row('map again', drawn.maps), daemonCpuMs: drawn.cpuMs }];
    rows.push(row('map after a change', changes));
    step('maps in the browser');
    const view = await onlooker.look(world.place(GUEST));
    const [{ drawing }] = await Promise.all([
      view.watch(options.runs * CHANGES * 2 * BETWEEN_MS, signal),
      fetchChanges(world, options, 1),
    ]);
    await view.leave();
    if (drawing !== null && drawing.mapDrawsMs.length > 0) rows.push(drawnRow(scenario, onlooker, drawing));
    return { rows, ratios: {} };
  } finally {
    await world.close();
  }
}

/** The guest names what it does not use; it tells when it has named all. */
async function hinted({ daemon: { control } }: PageWorld, signal: AbortSignal): Promise<void> {
  await control.hint(GUEST, { action: 'start' });
  for (const deadline = Date.now() + HINTED_MS_MAX; Date.now() < deadline; ) {
    if ((await control.guest(GUEST)).hint.state === 'stopped') return;
    await delay(BETWEEN_MS / 5, undefined, { signal });
  }
}

const pages = (bytes: number): number => Math.floor(bytes / 4096) * 4096;

interface FetchedMap {
  readonly elapsedMs: number;
  readonly bytes: number;
  readonly map: MemoryMap;
}

async function fetchMap({ daemon }: PageWorld): Promise<FetchedMap> {
  const startMs = performance.now();
  const text = await (await daemon.get(`v1/guests/${GUEST}/map`)).text();
  return { elapsedMs: performance.now() - startMs, bytes: text.length, map: JSON.parse(text) };
}

/** Until every page has been looked at once. */
async function wholeMap(world: PageWorld, signal: AbortSignal): Promise<void> {
  for (let look = 0; look < FIRST_LOOKS_MAX; look++) {
    if ((await fetchMap(world)).map.residentAgeMs !== null) return;
    await delay(BETWEEN_MS / 5, undefined, { signal });
  }
}

/** Maps one after the other, and the daemon's processor time for one. */
async function draws(
  world: PageWorld,
  { runs, signal }: MapBenchOptions,
): Promise<{ maps: FetchedMap[]; cpuMs: number }> {
  const maps: FetchedMap[] = [];
  const cpuMs = world.daemon.cpuMs();
  for (let count = 0; count < runs * MAPS; count++) {
    maps.push(await fetchMap(world));
    await delay(BETWEEN_MS, undefined, { signal });
  }
  return { maps, cpuMs: (world.daemon.cpuMs() - cpuMs) / maps.length };
}

/** The balloon grows step by step, for the first time or again; the map after each. */
async function fetchChanges(
  world: PageWorld,
  { memoryBytes, runs, signal }: MapBenchOptions,
  before: 0 | 1,
): Promise<FetchedMap[]> {
  const steps = runs * CHANGES;
  const maps: FetchedMap[] = [];
  for (let step = 1; step <= steps; step++) {
    const share = BALLOON_SHARE + (CHANGED_SHARE / 2) * (before + step / steps);
    await world.reach(GUEST, pages(memoryBytes * share), signal);
    await delay(BETWEEN_MS, undefined, { signal });
    maps.push(await fetchMap(world));
  }
  return maps;
}

const drawnRow = (scenario: string, { name }: Onlooker, drawing: Drawing): BenchRow => ({
  case: 'map drawn',
  scenario,
  peer: name,
  elapsedMs: spreadOf(drawing.mapDrawsMs),
  framesPerSecond: drawing.framesPerSecond,
  lateFramesPercent: 100 * drawing.lateShare,
  longestFrameMs: drawing.longestFrameMs,
  pageCpuPercent: 100 * drawing.busyShare,
});
