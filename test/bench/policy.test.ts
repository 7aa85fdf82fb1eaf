/** The bench of policies: what surpasses what, and that a seed repeats it. */
import { describe, expect, test } from 'vitest';
import { drawCharts } from '../../src/bench/html.ts';
import { dominates, quantile } from '../../src/bench/policy/figures.ts';
import { benchPolicy, POLICY_CHARTS, shownOf } from '../../src/bench/policy/policy.ts';
import { benchReport } from '../../src/bench/report.ts';
import { drawScatter, frontOf } from '../../src/bench/scatter-chart.ts';

const signal = new AbortController().signal;
const options = {
  seed: 1,
  policies: ['aerostat', 'reporting only', 'oracle'],
  traces: ['idle', 'well-used'],
  signal,
};

describe('the bench of policies', () => {
  test('gives the same figures for the same seed, and others for another', async () => {
    const without = async (seed: number) => {
      const { rows, ratios } = await benchPolicy({ ...options, seed, progress: () => {} });
      return { rows: rows.map(row => ({ ...row, elapsedMs: null, decideUsPerGuest: null })), ratios };
    };
    const first = await without(1);
    expect(await without(1)).toEqual(first);
    expect(await without(2)).not.toEqual(first);
    expect(first.ratios).toMatchObject({ kills: 0, floorViolations: 0, 'reclaimedGiBh.whereThereIsRoom': 0 });
    expect(first.ratios.reclaimedToOracle).toBeGreaterThanOrEqual(0.8);
    expect(first.ratios.stallToReportingOnly).toBeLessThanOrEqual(1.1);
  });

  test('draws every policy as a point, and prints sums where there are many traces', async () => {
    const measured = await benchPolicy({ ...options, traces: ['idle'], progress: () => {} });
    const charts = drawCharts(benchReport('aerostat bench policy', '0', measured), POLICY_CHARTS);
    const [pareto] = charts;
    expect(pareto.name).toBe('reclaimed-against-stalled-overcommitted-by-a-fifth-or-more');
    expect(pareto.svg.match(/<circle/g)).toHaveLength(3);
    expect(shownOf(measured, 1).rows).toHaveLength(measured.rows.length);
    expect(shownOf(measured, 20).rows.map(({ scenario }) => scenario)).not.toContain('idle');
  });

  test('one policy surpasses another where it is better in one thing and not worse in the other', () => {
    const lived = 1000;
    expect(dominates({ reclaimed: 10, stall: 5, lived }, { reclaimed: 9, stall: 5, lived })).toBe(true);
    expect(dominates({ reclaimed: 10, stall: 5, lived }, { reclaimed: 10, stall: 7, lived })).toBe(true);
    expect(dominates({ reclaimed: 10, stall: 5, lived }, { reclaimed: 9, stall: 3, lived })).toBe(false);
    // What differs by less than can be told apart is the same.
    expect(dominates({ reclaimed: 10, stall: 5, lived }, { reclaimed: 9.99, stall: 5.5, lived })).toBe(false);
  });

  test('the front is of those that none surpasses', () => {
    const points = [
      { name: 'a', x: 1, y: 1 },
      { name: 'b', x: 2, y: 2 },
      { name: 'c', x: 1.5, y: 3 },
      { name: '<d>', x: 3, y: 9 },
    ];
    expect(frontOf(points).map(({ name }) => name)).toEqual(['a', 'b', '<d>']);
    const svg = drawScatter({ title: 'x < y', xLabel: 'x', yLabel: 'y', points, logarithmic: true });
    expect(svg).toContain('&lt;d&gt;');
    expect(svg).not.toContain('NaN');
  });

  test('a quantile of few is one of them', () => {
    expect([0.5, 0.99, 1].map(share => quantile([3, 1, 2], share))).toEqual([2, 3, 3]);
  });
});
