/** That the bench of migrations moves guests and counts what it says; its figures are not asserted. */
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import type { Load } from '../../src/bench/migrate/migrate.ts';
import { build, program } from '../cli/built.ts';

build();

const { BENCH_CHANNELS, benchMigrate }: typeof import('../../src/bench/migrate/migrate.ts') = await import(
  new URL('../dist/bench/migrate/migrate.js', pathToFileURL(program)).href
);

const MIB = 2 ** 20;

const bench = (channels: typeof BENCH_CHANNELS, load: Load) =>
  benchMigrate({
    memoryBytes: 128 * MIB,
    usedShare: 0.25,
    load,
    bytesPerSecond: 400e6,
    connections: 2,
    downtimeMsMax: 100,
    channels,
    runs: 1,
    signal: new AbortController().signal,
    progress: () => {},
  });

test('an idle guest moves with none of the free page channels and with one, and the rows say what was saved', async () => {
  const { rows, ratios } = await bench(['none', 'hint'], { kind: 'idle' });
  const [none, hint] = rows;
  // Beside them, what the host takes for as much memory by itself.
  expect(rows.map(row => [row.case, row.scenario])).toEqual([
    ['none', 'idle'],
    ['hint', 'idle'],
    ['bare write', 'fresh memory'],
    ['bare write', 'backed memory'],
  ]);
  expect([none.workShare, hint.workShare]).toEqual([null, null]);
  expect(Number(hint.freeBytes)).toBeGreaterThan(40 * MIB);
  expect(none.freeBytes).toBe(0);
  for (const name of [
    'none.idle.toFloor',
    'hint.idle.toFloor',
    'hint.idle.speedup',
    'hint.idle.bytesToUsed',
    'none.toWire',
    'none.toBareWrite',
  ]) {
    expect(ratios[name]).toBeGreaterThan(0);
  }
  expect(ratios['none.idle.bytesToUsed']).toBeGreaterThan(ratios['hint.idle.bytesToUsed']);
});

test('a guest that writes while it moves arrives, too, and one that has reported what is free', async () => {
  const dirty = await bench(['hint'], { kind: 'dirty', bytesPerSecond: 40e6 });
  expect(dirty.rows[0].scenario).toBe('dirty 40 MB/s');
  expect(Number(dirty.rows[0].resentBytes)).toBeGreaterThan(0);
  const reported = await bench(['hinting'], { kind: 'idle' });
  expect(Number(reported.rows[0].unbackedBytes)).toBeGreaterThan(40 * MIB);
});
