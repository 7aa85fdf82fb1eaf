/** Builds under automatic reclaim, on small guests: who gives memory back keeps less of it, and no page is lost. */
import { expect, test } from 'vitest';
import type { Spread } from '../../src/bench/report.ts';
import { build } from '../cli/built.ts';

test('a guest that builds keeps less of the host’s memory under either kind of reclaim than under none', async () => {
  build();
  // Its threads run what was compiled.
  const compiled: typeof import('../../src/bench/build/build.ts') = await import(
    new URL('../../dist/bench/build/build.js', import.meta.url).href
  );
  const steps: string[] = [];
  const { rows, ratios } = await compiled.benchBuild({
    memoryBytes: 128 * 2 ** 20,
    seed: 1,
    runs: 1,
    builds: 1,
    compilers: 4,
    // The host looks every five seconds.
    pauseMs: 12_000,
    paceBytes: 256 * 2 ** 20,
    signal: AbortSignal.timeout(200_000),
    progress: (_done, _total, what) => steps.push(what),
  });
  expect(steps).toEqual(['none', 'reporting', 'shared, none', 'shared', 'shared, 2 s', 'done']);
  expect(rows.map(row => row.case)).toEqual(steps.slice(0, -1));
  const mean = Object.fromEntries(rows.map(row => [row.case, (row.meanMib as Spread | null)?.median]));
  expect(mean['shared, none']).toBeUndefined();
  // Of the pause, half at least is without what the build used.
  expect(ratios['reporting.build.footprintToNone']).toBeLessThan(0.9);
  expect(ratios['shared.build.footprintToNone']).toBeLessThan(0.9);
  expect(ratios['shared.build.footprintToReporting']).toBeCloseTo(
    Number(mean.shared) / Number(mean.reporting),
    3,
  );
  for (const row of rows) expect(row.killed).toBe(0);
}, 220_000);
