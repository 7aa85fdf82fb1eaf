/** Reports of benchmarks: the axes, what the charts show of the rows, and that words from anywhere stay words. */
import { describe, expect, test } from 'vitest';
import { drawBars, linearAxis, logarithmicAxis } from '../../src/bench/bar-chart.ts';
import { drawCharts, htmlReport } from '../../src/bench/html.ts';
import { type BenchRow, benchReport } from '../../src/bench/report.ts';

const spread = (median: number) => ({ min: median / 2, median, max: median * 2 });
const row = (name: string, figures: Partial<BenchRow>): BenchRow => ({
  case: name,
  scenario: 'touched',
  peer: 'none',
  elapsedMs: spread(100),
  ...figures,
});
const report = (...rows: BenchRow[]) => benchReport('bench', '0.1.0', { rows, ratios: { 'a.b': 2 } });

/** Widths of the bars that a chart draws, by what is said when the pointer rests on them. */
const widths = (svg: string): Record<string, number> =>
  Object.fromEntries(
    [...svg.matchAll(/<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)"[^>]*><title>([^<]*)<\/title>/g)].map(
      ([, width, said]) => [said, Number(width)],
    ),
  );

describe('axes', () => {
  test.each([
    [0, [0, 1]],
    [7, [0, 8]],
    [983, [0, 1000]],
    [0.0042, [0, 0.005]],
  ])('a linear one up to %d has round steps and reaches it', (max, [low, high]) => {
    const { ticks, at } = linearAxis(max);
    expect(ticks[0]).toBe(low);
    expect(ticks.length).toBeLessThanOrEqual(8);
    expect(at(max)).toBeLessThanOrEqual(1);
    expect(ticks.at(-1)).toBeCloseTo(Math.max(high, max), 9);
    expect(at(0)).toBe(0);
  });

  test('a logarithmic one has powers of ten, takes zeros, and keeps ratios', () => {
    const { ticks, at } = logarithmicAxis([0, 20, 30_000]);
    expect(ticks).toEqual([10, 100, 1000, 10_000, 100_000]);
    expect(at(0)).toBe(0);
    expect(at(1000) - at(100)).toBeCloseTo(at(100) - at(10));
    expect(logarithmicAxis([0, 0]).at(0)).toBe(0);
  });
});

describe('a chart', () => {
  const bars = {
    title: 'Time',
    unit: 'ms',
    series: ['one', 'two'],
    rows: [
      { label: 'a', bars: [{ value: 100 }, { value: 50 }] },
      { label: 'b', bars: [{ value: 25 }, undefined] },
    ],
  };

  test('has bars as long as their values, side by side', () => {
    const found = widths(drawBars(bars));
    expect(Object.keys(found)).toEqual(['a, one: 100 ms', 'a, two: 50 ms', 'b, one: 25 ms']);
    expect(found['a, one: 100 ms'] / found['a, two: 50 ms']).toBeCloseTo(2, 1);
    expect(found['a, one: 100 ms'] / found['b, one: 25 ms']).toBeCloseTo(4, 1);
  });

  test('stacks what is parts of a whole, and says the sum', () => {
    const svg = drawBars({ ...bars, stacked: true });
    const [first, second] = [...svg.matchAll(/<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"/g)]
      .map(match => match.slice(1).map(Number))
      .slice(-3);
    expect(second[0]).toBeCloseTo(first[0] + first[2], 0);
    expect(second[1]).toBe(first[1]);
    expect(svg).toContain('>150</text>');
  });

  test('is whole for no rows, for zeros, and for labels that are markup', () => {
    for (const rows of [[], [{ label: '<b>"&', bars: [{ value: 0 }, { value: 0 }] }]]) {
      for (const logarithmic of [false, true]) {
        const svg = drawBars({ ...bars, rows, logarithmic, title: '<i>&' });
        expect(svg).not.toMatch(/NaN|Infinity|undefined|<b>|<i>/);
        expect(svg).toMatch(/^<svg [\s\S]*<\/svg>$/);
      }
    }
  });
});

describe('a report', () => {
  const plans = [
    {
      title: 'Time',
      figures: [
        ['elapsedMs', 'elapsed'],
        ['floorMs', 'floor'],
      ],
      unit: 'ms',
    },
    { title: 'Bytes', figures: [['bytes', 'bytes']], unit: 'bytes', logarithmic: true },
  ] as const;

  test('has a chart for every plan and scenario of which there are figures', () => {
    const charts = drawCharts(
      report(row('ours', { floorMs: 10 }), row('other', { scenario: 'idle', bytes: 7 })),
      plans,
    );
    expect(charts.map(({ name }) => name)).toEqual(['time-touched', 'time-idle', 'bytes-idle']);
    // The floor is no part of the elapsed time: it stood on top of it before, as if it were.
    const found = widths(charts[0].svg);
    expect(Object.keys(found)).toEqual(['ours, elapsed: 100 ms (50 to 200)', 'ours, floor: 10 ms']);
  });

  test('is one page with the charts in it, and needs nothing from elsewhere', () => {
    const told = report(row('<script>', { floorMs: 10 }));
    const page = htmlReport(told, drawCharts(told, plans));
    expect(page.match(/<svg /g)).toHaveLength(1);
    expect(page).not.toMatch(/<script|src=|href=/);
  });
});
