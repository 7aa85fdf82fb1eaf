/** That the loopback measurement measures what it says; its figures are not asserted. */
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { build, program } from '../cli/built.ts';

build();

const { measureLoopback }: typeof import('../../src/bench/migrate/loopback.ts') = await import(
  new URL('../dist/bench/migrate/loopback.js', pathToFileURL(program)).href
);

const MIB = 2 ** 20;

test('memory arrives whole by a migration and by a plain copy, and a guest of nothing brings nothing', async () => {
  const steps: string[] = [];
  const { rows, ratios } = await measureLoopback({
    bytes: 24 * MIB,
    connections: [1, 3],
    runs: 2,
    sparseBytes: 1024 * MIB,
    progress: (done, total, what) => steps.push(`${done}/${total} ${what}`),
  });
  expect(rows.map(row => [row.case, row.scenario, row.residentBytes])).toEqual([
    ['loopback plain', '1 connections', 24 * MIB],
    ['loopback migration', '1 connections', 24 * MIB],
    ['loopback plain', '3 connections', 24 * MIB],
    ['loopback migration', '3 connections', 24 * MIB],
    ['loopback sparse', '1 GiB, nothing in it', 0],
  ]);
  for (const row of rows) expect(row.elapsedMs.min).toBeGreaterThan(0);
  expect(Object.keys(ratios)).toEqual([
    'loopback.toPlainCopy.1',
    'loopback.toPlainCopy.3',
    'loopback.toPlainCopy',
    'loopback.sparseCpuSeconds',
  ]);
  expect([steps.length, steps[0]]).toEqual([13, '0/13 plain over 1']);
});
