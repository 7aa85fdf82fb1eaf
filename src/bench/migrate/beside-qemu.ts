/**
 * QEMU's migration and ours side by side, in alternation in one run: two processes each, memory in files of tmpfs on both
 * sides, TCP over loopback. A guest that names what it does not need, by the same driver on both; memory that is full,
 * over one connection; and the same over several, which QEMU calls multifd.
 */

import type { PauseStep } from '../../migration/pause.ts';
import { defaultQemu } from '../../peers/qemu/programs.ts';
import type { ChartPlan } from '../html.ts';
import { type BenchRow, type Measured, type Spread, spreadOf } from '../report.ts';
import { moveOverLoopback } from './loopback.ts';
import { moveGuest } from './migrate.ts';
import { pauseFigures } from './pause-figures.ts';
import * as qemu from './qemu.ts';

export interface PeerMigrateOptions {
  /** Memory of the guest with hints; full memory is half as much. */
  readonly memoryBytes: number;
  /** Share of memory that the guest with hints needs, (0, 1). */
  readonly usedShare: number;
  /** In the case that has a limit; the others go as fast as they can. */
  readonly bytesPerSecond: number;
  /** Of the case with several. */
  readonly connections: number;
  readonly downtimeMsMax: number;
  readonly runs: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number, what: string) => void;
}

interface Move {
  readonly elapsedMs: number;
  readonly downtimeMs: number;
  readonly bytes: number;
  /** Of both processes. */
  readonly cpuMs: number;
  /** Where the downtime went; QEMU does not tell. */
  readonly pause?: readonly PauseStep[];
}

interface Scenario {
  /** Also of its ratio. */
  readonly name: string;
  /** Bytes that have to move. */
  readonly usedBytes: number;
  readonly sides: Readonly<Record<Side, () => Promise<Move>>>;
}

const SIDES = ['QEMU', 'Aerostat'] as const;
type Side = (typeof SIDES)[number];

/** @throws MissingPeerError without QEMU; AerostatError when a migration fails, or memory arrived changed */
export async function benchMigrateBesideQemu(options: PeerMigrateOptions): Promise<Measured> {
  const { runs, signal, progress } = options;
  const { version } = defaultQemu();
  const scenarios = scenariosOf(options);
  const moves = scenarios.map(() => ({ QEMU: [], Aerostat: [] }) as Record<Side, Move[]>);
  const total = runs * scenarios.length * SIDES.length;
  let done = 0;
  for (let run = 0; run < runs; run++) {
    for (const [index, { name, sides }] of scenarios.entries()) {
      // Each side is the first in every other run.
      for (const side of run % 2 === 0 ? SIDES : SIDES.toReversed()) {
        signal.throwIfAborted();
        progress(done++, total, `${name} ${side}`);
        const move = await sides[side]().catch(error => {
          // Whatever an interrupted migration fails of, that it was interrupted is why.
          signal.throwIfAborted();
          throw error;
        });
        moves[index][side].push(move);
      }
    }
  }
  progress(total, total, 'done');
  const rows = scenarios.flatMap((scenario, index) =>
    SIDES.map(side => rowOf(scenario, side, moves[index][side])),
  );
  return {
    rows,
    ratios: ratiosOf(scenarios, rows),
    notes: [
      `QEMU ${version}. Ratios of time are QEMU / Aerostat, so that more than 1 means that ours is faster.`,
      `hintedAtBandwidth: ${(options.bytesPerSecond / 1e6).toFixed(0)} MB/s by each side's own limit. The others have none.`,
      'downtimeToQemu is ours / QEMU, of the medians; QEMU tells its own in whole milliseconds, ours is until the source hears that the guest runs.',
      'elapsed: from the order until the destination says that the guest runs there, or for full memory, would run.',
      'Ours moves the state of the guest with hints too, its kernel and driver; the guest of QEMU stays here, for it has only memory there.',
    ],
  };
}

function scenariosOf(options: PeerMigrateOptions): readonly Scenario[] {
  const { memoryBytes, usedShare, bytesPerSecond, connections, downtimeMsMax, signal } = options;
  const usedBytes = memoryBytes * usedShare;
  const hinted = (name: string, limit: number): Scenario => {
    const how = { memoryBytes, bytesPerSecond: limit, connections: 1, downtimeMsMax, signal };
    return {
      name,
      usedBytes,
      sides: {
        QEMU: () => qemu.moveHintingGuest({ ...how, usedBytes }),
        Aerostat: async () => {
          const { summary, cpuMs } = await moveGuest('hint', { ...how, usedShare, load: { kind: 'idle' } });
          const { totalMs, downtimeMs, bytes, pause } = summary;
          return { elapsedMs: totalMs, downtimeMs, bytes, cpuMs, pause };
        },
      },
    };
  };
  const fullBytes = memoryBytes / 2;
  const full = (name: string, count: number): Scenario => ({
    name,
    usedBytes: fullBytes,
    sides: {
      QEMU: () => qemu.moveQemuMemory({ memoryBytes: fullBytes, connections: count, downtimeMsMax, signal }),
      Aerostat: async () => {
        const { summary, elapsedMs, cpuMs } = await moveOverLoopback(fullBytes, count, signal);
        const { downtimeMs, bytes, pause } = summary;
        return { elapsedMs, cpuMs, downtimeMs, bytes, pause };
      },
    },
  });
  return [
    hinted('hinted', Number.POSITIVE_INFINITY),
    hinted('hintedAtBandwidth', bytesPerSecond),
    full('plain', 1),
    full(`multifd${connections}`, connections),
  ];
}

function rowOf({ name, usedBytes }: Scenario, side: Side, moves: readonly Move[]): BenchRow {
  const figure = (key: Exclude<keyof Move, 'pause'>): Spread => spreadOf(moves.map(move => move[key]));
  const elapsedMs = figure('elapsedMs');
  return {
    case: side,
    scenario: name,
    peer: side === 'QEMU' ? 'qemu' : 'aerostat',
    elapsedMs,
    downtimeMs: figure('downtimeMs'),
    gigabytesPerSecond: usedBytes / 1e6 / elapsedMs.median,
    bytes: figure('bytes').median,
    bytesToUsed: figure('bytes').median / usedBytes,
    cpuMs: figure('cpuMs'),
    ...pauseFigures(moves.map(({ pause = [] }) => ({ pause }))),
  };
}

function ratiosOf(scenarios: readonly Scenario[], rows: readonly BenchRow[]): Record<string, number> {
  const ratios: Record<string, number> = {};
  for (const { name } of scenarios) {
    const [theirs, ours] = SIDES.map(side => rows.find(row => row.scenario === name && row.case === side));
    if (theirs === undefined || ours === undefined) continue;
    ratios[`migrate.${name}`] = theirs.elapsedMs.median / ours.elapsedMs.median;
    ratios[`migrate.${name}.bytesToQemu`] = Number(ours.bytes) / Number(theirs.bytes);
    ratios[`migrate.${name}.downtimeToQemu`] = medianOf(ours.downtimeMs) / medianOf(theirs.downtimeMs);
  }
  const downtime = ratios['migrate.hinted.downtimeToQemu'];
  if (downtime !== undefined) ratios['migrate.downtimeToQemu'] = downtime;
  return ratios;
}

const medianOf = (figure: BenchRow[string]): number => (figure as Spread).median;

export const PEER_MIGRATE_CHARTS: readonly ChartPlan[] = [
  { title: 'Until the guest runs at its destination', figures: [['elapsedMs', 'elapsed']], unit: 'ms' },
  { title: 'Processor time of both sides', figures: [['cpuMs', 'processor']], unit: 'ms' },
  { title: 'Bytes over the network', figures: [['bytes', 'bytes']], unit: 'bytes' },
];
