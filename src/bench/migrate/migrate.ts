/**
 * What free pages are worth to a migration: the embedded guest moves from one process to another over TCP at the speed
 * of a network, with each way of naming free pages and with none. Each migration is of a guest of its own, which has used
 * all of its memory and freed most of it: the host backs it, and it is not needed.
 *
 * The floor is the time that the bytes in use take at that speed.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { PAGE_SIZE } from '../../memory/page.ts';
import { Convergence } from '../../migration/convergence.ts';
import { MigrationSource } from '../../migration/source.ts';
import type { MigrationProgress, MigrationSummary } from '../../migration/source-shapes.ts';
import { defined } from '../../sys/defined.ts';
import { AerostatError } from '../../sys/error.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { systemClock } from '../../transfer/clock.ts';
import { TransferConnector } from '../../transfer/connector.ts';
import { type ChannelName, FREE_PAGE_CHANNELS } from '../../vm/free-page-channel.ts';
import { OutgoingMigration } from '../../vm/outgoing-migration.ts';
import type { Vm } from '../../vm/vm.ts';
import { startWarm } from '../../vm/warm-up.ts';
import { cpuMsOf } from '../cpu-time.ts';
import type { ChartPlan } from '../html.ts';
import { PeerProcess } from '../peer-process.ts';
import { type BenchRow, type Measured, type Spread, spreadOf } from '../report.ts';
import { type FirstTouch, firstTouchRows, touchFirst } from './first-touch.ts';
import { runUntil } from './interruptible.ts';
import { pauseFigures } from './pause-figures.ts';
import type { FromPlace, ToPlace } from './place.ts';

export type BenchChannel = Exclude<ChannelName, 'auto'>;

export const BENCH_CHANNELS: readonly BenchChannel[] = [
  'none',
  ...(Object.keys(FREE_PAGE_CHANNELS) as BenchChannel[]),
];

/** What the guest does while it moves: nothing, write so many bytes a second, or compile. */
export type Load =
  | { readonly kind: 'idle' | 'build' }
  | { readonly kind: 'dirty'; readonly bytesPerSecond: number };

/** One guest, and how it moves. */
export interface GuestMoveOptions {
  readonly memoryBytes: number;
  /** Share of memory in use, (0, 1). */
  readonly usedShare: number;
  readonly load: Load;
  readonly bytesPerSecond: number;
  readonly connections: number;
  readonly downtimeMsMax: number;
  /** Rounds after which the guest runs at its destination and gets the rest there. */
  readonly postcopyAfterRound?: number | undefined;
  readonly signal: AbortSignal;
}

export interface MigrateBenchOptions extends GuestMoveOptions {
  readonly channels: readonly BenchChannel[];
  readonly runs: number;
  readonly progress: (done: number, total: number, what: string) => void;
}

export interface MigrationSample {
  readonly summary: MigrationSummary;
  /** In use when the migration began, by the guest's own books. */
  readonly usedBytes: number;
  readonly balloonedPages: number;
  /** The guest's work in a second while it was copied, against before; NaN where it has none, or no time for it. */
  readonly workShare: number;
  /** Of both processes while the guest moved. */
  readonly cpuMs: number;
}

/** Of the workload's pages, so many are written in a step: see guest/workloads/churn.ts. */
const WRITES_PER_STEP = 0.65;
/** Of the memory in use, the workload's part. */
export const WORKING_SHARE = 0.5;
/** How long the guest's work is counted before it moves. */
const WORK_MS = 600;
/** Shorter than this, a count of work says nothing. */
const WORK_MS_MIN = 100;
/** Reports come in bursts with pauses; this long without one, and the guest has reported what is free. */
const REPORTS_QUIET_MS = 3000;
const REPORTS_MS_MAX = 120_000;
const REPORTS_LOOK_MS = 100;

const nameOf = (load: Load): string =>
  load.kind === 'dirty' ? `dirty ${(load.bytesPerSecond / 1e6).toFixed(0)} MB/s` : load.kind;

/** @throws AerostatError when a migration fails, or a guest finds at its destination that it lost something */
export async function benchMigrate(options: MigrateBenchOptions): Promise<Measured> {
  const { channels, runs, signal, progress, load } = options;
  const samples = new Map<BenchChannel, MigrationSample[]>(channels.map(channel => [channel, []]));
  // Without a channel all of memory moves, and all of it is new to the destination's host.
  const touchesFirst = channels.includes('none');
  const touches: FirstTouch[] = [];
  const total = (channels.length + (touchesFirst ? 1 : 0)) * runs;
  let done = 0;
  for (let run = 0; run < runs; run++) {
    for (const channel of channels) {
      signal.throwIfAborted();
      progress(done++, total, channel);
      const sample = await moveGuest(channel, options).catch(error => {
        // Whatever an interrupted migration fails of, that it was interrupted is why.
        signal.throwIfAborted();
        throw error;
      });
      samples.get(channel)?.push(sample);
    }
    if (touchesFirst) {
      progress(done++, total, 'bare write');
      touches.push(await touchBesideGuest(options));
    }
  }
  const rows = channels.map(channel => rowOf(channel, options, samples.get(channel) ?? []));
  const ratios = ratiosOf(rows, load);
  const touchRows = touchesFirst ? firstTouchRows(touches) : [];
  const none = rows.find(row => row.case === 'none');
  if (touchRows.length > 0 && none !== undefined) {
    const wireMs = ((none.bytes as Spread).median / options.bytesPerSecond) * 1e3;
    ratios['none.toWire'] = none.elapsedMs.median / wireMs;
    ratios['none.toBareWrite'] = none.elapsedMs.median / touchRows[0].elapsedMs.median;
  }
  return {
    rows: [...rows, ...touchRows],
    ratios,
    notes: [
      'bare write: as much memory as the guest has, written into a new file as a destination writes it, once fresh and once',
      'again, while such a guest has its own memory; the migration without a channel / its bytes at the bandwidth is',
      'none.toWire, / the fresh write none.toBareWrite: it can be no faster than the slower of the two.',
      'The floor is the time that the bytes in use take at the bandwidth. With reporting and hinting the guest has',
      'reported what is free before the migration begins; with the others it is asked when it does.',
    ],
  };
}

const reports = (channel: BenchChannel): boolean =>
  channel !== 'none' && FREE_PAGE_CHANNELS[channel].way === 'reports';

/** What a destination's host takes for new memory, in the place of a migration: beside a guest that is ready to move. */
async function touchBesideGuest(options: MigrateBenchOptions): Promise<FirstTouch> {
  const vm = await bootGuest('none', options);
  try {
    await settleGuest(vm, 'none', options);
    return await touchFirst(options.memoryBytes, options.signal);
  } finally {
    await vm.close();
  }
}

/** One migration of one guest. */
export async function moveGuest(channel: BenchChannel, options: GuestMoveOptions): Promise<MigrationSample> {
  const { memoryBytes, bytesPerSecond, connections, downtimeMsMax, load, signal } = options;
  const peer = new PeerProcess<ToPlace, FromPlace>(workerUrl('./place', import.meta.url), { signal });
  const vm = await bootGuest(channel, options);
  try {
    peer.send({ kind: 'open', memoryBytes });
    const { port } = await peer.hear('listening');
    await settleGuest(vm, channel, options);
    const usedBytes = await usedBy(vm);
    const { postcopyAfterRound: afterRound } = options;
    const before = load.kind === 'idle' ? undefined : await workIn(vm, WORK_MS);
    const outgoing = await OutgoingMigration.of(vm, { channel });
    const { ram, dirty, sent } = outgoing.source;
    const address = { host: '127.0.0.1', port };
    const connector = new TransferConnector({ address, ram, dirty, sent, bytesPerSecond });
    const during = new WorkDuring(vm);
    const cpuMs = () => cpuMsOf(process.pid) + cpuMsOf(peer.pid);
    const cpuBeforeMs = cpuMs();
    try {
      const source = new MigrationSource({
        ...outgoing.source,
        id: crypto.getRandomValues(new Uint8Array(16)),
        connector,
        connections: afterRound === undefined ? connections : Math.max(2, connections),
        postcopy: afterRound === undefined ? undefined : { afterRound },
        convergence: new Convergence({ downtimeMsMax, roundsMax: 30, autoConverge: true }),
        clock: systemClock,
        ...(before === undefined ? {} : { observer: progress => during.hear(progress) }),
      });
      const summary = await runUntil(source, signal);
      const cpuSpentMs = cpuMs() - cpuBeforeMs;
      const balloonedPages = outgoing.balloonedPages;
      peer.send({ kind: 'look' });
      const { arrivingWorkPerMs } = await peer.hear('seen');
      const duringPerMs = async () =>
        afterRound === undefined ? during.perMs() : (arrivingWorkPerMs ?? Number.NaN);
      const workShare = before === undefined ? Number.NaN : (await duringPerMs()) / before;
      return { summary, usedBytes, balloonedPages, workShare, cpuMs: cpuSpentMs };
    } finally {
      await outgoing.close();
    }
  } finally {
    await vm.close();
    await peer.end();
  }
}

async function bootGuest(channel: BenchChannel, { memoryBytes, load }: GuestMoveOptions): Promise<Vm> {
  const rate = load.kind === 'dirty' ? load.bytesPerSecond / PAGE_SIZE / WRITES_PER_STEP : undefined;
  return startWarm({
    memoryBytes,
    profile: channel === 'none' ? 'virtio' : FREE_PAGE_CHANNELS[channel].profiles[0],
    // What one channel would have spared must not be to another one's credit.
    without: channel === 'none' || channel === 'hint' ? ['page-reporting'] : [],
    ...defined({ pagesPerSecondMax: rate }),
  });
}

/** Uses all memory, frees most of it, and begins the work. */
async function settleGuest(vm: Vm, channel: BenchChannel, options: GuestMoveOptions): Promise<void> {
  const { memoryBytes, usedShare, load } = options;
  const used = memoryBytes * usedShare;
  const working = load.kind === 'dirty' ? used * WORKING_SHARE : 0;
  const still = Math.max(0, used - working - (await usedBy(vm)));
  await vm.command({ do: 'use', bytes: Math.floor(still / PAGE_SIZE) * PAGE_SIZE });
  await vm.command({ do: 'touch' });
  if (reports(channel)) await untilReported(vm, options.signal);
  if (load.kind === 'dirty') {
    await vm.command({ do: 'start', workload: 'churn', bytes: Math.floor(working / PAGE_SIZE) * PAGE_SIZE });
  } else if (load.kind === 'build') {
    await vm.command({ do: 'start', workload: 'build' });
  }
  // Time for the work to come to its pace.
  if (load.kind !== 'idle') await delay(WORK_MS * 2);
}

async function usedBy(vm: Vm): Promise<number> {
  const { totalBytes, freeBytes } = await vm.command({ do: 'meminfo' });
  return totalBytes - freeBytes;
}

async function untilReported(vm: Vm, signal: AbortSignal): Promise<void> {
  const [{ backing }] = vm.ram.memory.regions;
  let resident = backing.residentBytes();
  let quietMs = 0;
  for (let waitedMs = 0; quietMs < REPORTS_QUIET_MS; waitedMs += REPORTS_LOOK_MS) {
    if (waitedMs > REPORTS_MS_MAX)
      throw new AerostatError('AEROSTAT_BENCH', 'the guest does not stop reporting');
    await delay(REPORTS_LOOK_MS, undefined, { signal });
    const now = backing.residentBytes();
    quietMs = now === resident ? quietMs + REPORTS_LOOK_MS : 0;
    resident = now;
  }
}

/** Faults of the guest's processes so far: what its work shows in, and what the driver does not. */
const workOf = async (vm: Vm): Promise<number> => (await vm.command({ do: 'status' })).vmstat.minorFaults;

/** Work of a guest in a millisecond. */
async function workIn(vm: Vm, elapsedMs: number): Promise<number> {
  const startMs = systemClock.nowMs();
  const start = await workOf(vm);
  await delay(elapsedMs);
  return ((await workOf(vm)) - start) / (systemClock.nowMs() - startMs);
}

/** Counts the guest's work from the first round to the stop. */
class WorkDuring {
  readonly #vm: Vm;
  #marks: Promise<{ readonly work: number; readonly atMs: number }>[] = [];
  #phase = '';

  constructor(vm: Vm) {
    this.#vm = vm;
  }

  hear({ phase }: MigrationProgress): void {
    if (phase === this.#phase) return;
    this.#phase = phase;
    if (phase !== 'copying' && phase !== 'stopping') return;
    const atMs = systemClock.nowMs();
    // Asked before the guest is asked to stop, so answered before that.
    this.#marks.push(workOf(this.#vm).then(work => ({ work, atMs })));
  }

  async perMs(): Promise<number> {
    const [from, to] = await Promise.all(this.#marks);
    if (to === undefined || to.atMs - from.atMs < WORK_MS_MIN) return Number.NaN;
    return (to.work - from.work) / (to.atMs - from.atMs);
  }
}

function rowOf(
  channel: BenchChannel,
  options: MigrateBenchOptions,
  samples: readonly MigrationSample[],
): BenchRow {
  const figure = (of: (sample: MigrationSample) => number): Spread => spreadOf(samples.map(of));
  const usedBytes = figure(sample => sample.usedBytes);
  const floorMs = (usedBytes.median / options.bytesPerSecond) * 1e3;
  const elapsedMs = figure(({ summary }) => summary.totalMs);
  const bytes = figure(({ summary }) => summary.bytes);
  const work = samples.map(({ workShare }) => workShare).filter(share => !Number.isNaN(share));
  const pages = (of: (summary: MigrationSummary) => number): number =>
    figure(({ summary }) => of(summary) * PAGE_SIZE).median;
  return {
    case: channel,
    scenario: nameOf(options.load),
    peer: 'embedded',
    elapsedMs,
    downtimeMs: figure(({ summary }) => summary.downtimeMs),
    floorMs,
    toFloor: elapsedMs.median / floorMs,
    rounds: figure(({ summary }) => summary.rounds).median,
    bytes,
    usedBytes: usedBytes.median,
    bytesToUsed: bytes.median / usedBytes.median,
    zeroBytes: pages(summary => summary.zeroPages),
    freeBytes: pages(summary => summary.freePages),
    unbackedBytes: pages(summary => summary.unbackedPages),
    resentBytes: pages(summary => summary.resentPages),
    hintRaces: figure(({ summary }) => summary.hintRaces).median,
    guestShareMin: figure(({ summary }) => summary.guestShareMin).median,
    workShare: work.length === 0 ? null : spreadOf(work),
    stateBytes: figure(({ summary }) => summary.stateBytes).median,
    ...pauseFigures(samples.map(({ summary }) => summary)),
    ...(options.postcopyAfterRound === undefined ? {} : postcopyFigures(samples)),
  };
}

const US_PER_MS = 1000;

function postcopyFigures(samples: readonly MigrationSample[]): Record<string, Spread | number> {
  const late = samples.flatMap(({ summary }) => summary.postcopy ?? []);
  if (late.length === 0) return {};
  return {
    lateBytes: spreadOf(late.map(({ latePages }) => latePages * PAGE_SIZE)).median,
    faults: spreadOf(late.map(({ faults }) => faults)).median,
    longestFaultMs: spreadOf(late.map(({ longestUs }) => longestUs / US_PER_MS)),
  };
}

function ratiosOf(rows: readonly BenchRow[], { kind }: Load): Record<string, number> {
  const ratios: Record<string, number> = {};
  const none = rows.find(row => row.case === 'none');
  for (const row of rows) {
    const name = `${row.case}.${kind}`;
    if (none !== undefined && row !== none) {
      ratios[`${name}.speedup`] = none.elapsedMs.median / row.elapsedMs.median;
    }
    ratios[`${name}.toFloor`] = Number(row.toFloor);
    ratios[`${name}.bytesToUsed`] = Number(row.bytesToUsed);
    // Milliseconds: what is asked of it is no share of anything.
    if (row.lateBytes !== undefined) ratios[`${name}.postcopy.downtime`] = (row.downtimeMs as Spread).median;
  }
  return ratios;
}

/** What a report of this bench draws. */
export const MIGRATE_CHARTS: readonly ChartPlan[] = [
  {
    title: 'Until the guest runs at its destination',
    figures: [
      ['elapsedMs', 'elapsed'],
      ['floorMs', 'floor'],
    ],
    unit: 'ms',
  },
  { title: 'How long it stands still', figures: [['downtimeMs', 'downtime']], unit: 'ms' },
  { title: 'Bytes over the network', figures: [['bytes', 'bytes']], unit: 'bytes' },
];
