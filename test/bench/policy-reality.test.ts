/**
 * The model of guests is held to guests: a short trace on real memory, under the policy as it runs on a real daemon, comes to
 * what the model says with what was measured of these guests before. Bounds are wide: a machine that runs other tests
 * meanwhile is not the same for two seconds.
 */
import { expect, test } from 'vitest';
import { benchReality } from '../../src/bench/policy/real/real.ts';
import type { BenchRow } from '../../src/bench/report.ts';
import { guestCommandLine } from '../../src/cli/processes.ts';
import { ownCommandLine } from '../../src/sys/own-program.ts';

const figure = (rows: readonly BenchRow[], name: string, of: string): number => {
  const value = rows.find(row => row.case === name)?.[of];
  return typeof value === 'number' ? value : Number.NaN;
};

test('a guest that grows on real memory gets it of others when the model says, and nothing is killed', async () => {
  const { rows } = await benchReality({
    seed: 1,
    kinds: ['embedded'],
    traces: ['growth'],
    daemon: words => ownCommandLine('device', ...words),
    embedded: guestCommandLine,
    signal: AbortSignal.timeout(240_000),
    progress: () => {},
  });
  expect(figure(rows, 'real', 'kills')).toBe(0);
  expect(figure(rows, 'real', 'recalls')).toBe(1);
  // The growth itself takes most of that, so that it does not hang on what else the machine does.
  const recall = figure(rows, 'real', 'recallP50S') / figure(rows, 'model', 'recallP50S');
  expect(recall).toBeGreaterThan(0.5);
  expect(recall).toBeLessThan(2);
  const reclaimed = figure(rows, 'real', 'reclaimedGiBh') / figure(rows, 'model', 'reclaimedGiBh');
  expect(reclaimed).toBeGreaterThan(0.75);
  expect(reclaimed).toBeLessThan(1.35);
}, 250_000);
