import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { renderChart } from '../../src/cli/chart.ts';
import { renderBar, renderTable } from '../../src/cli/table.ts';

describe('a table', () => {
  test('aligns by what is seen, not by the colours', () => {
    const lines = renderTable(
      [
        { title: 'A', text: (row: string) => row, paint: text => `<${text}>` },
        { title: 'LENGTH', align: 'right', text: row => String(row.length) },
      ],
      ['x', 'long name'],
    );
    expect(lines).toEqual(['A          LENGTH', '<x        >       1', '<long name>       9']);
  });

  test('of no rows is its head', () => {
    expect(renderTable([{ title: 'GUEST', text: String }], [])).toEqual(['GUEST']);
  });
});

describe('a bar', () => {
  test('shows parts by their share', () => {
    const parts = [
      { character: '#', share: 0.5 },
      { character: '.', share: 0.25 },
    ];
    expect(renderBar(parts, 8)).toBe('####..  ');
  });

  test('never hides a part above nothing, and never shows one that is nothing', () => {
    const parts = [
      { character: '#', share: 0.001 },
      { character: '.', share: 0 },
    ];
    expect(renderBar(parts, 8)).toBe('#       ');
  });

  test('is as wide as it is asked to be, whatever the parts', () => {
    const share = fc.double({ min: 0, max: 3, noNaN: true });
    fc.assert(
      fc.property(fc.array(share), fc.integer({ min: 1, max: 60 }), (shares, width) => {
        expect(
          renderBar(
            shares.map(part => ({ character: '#', share: part })),
            width,
          ),
        ).toHaveLength(width);
      }),
    );
  });
});

describe('a chart', () => {
  test('keeps to its width and height, and shows sizes', () => {
    const series = [
      {
        label: 'balloon',
        colour: 'green' as const,
        values: Array.from({ length: 200 }, (_, n) => n * 2 ** 20),
      },
    ];
    const lines = renderChart(series, { width: 40, height: 6, colours: false });
    expect(lines).toHaveLength(7);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(40);
    expect(lines[0]).toContain('199M');
    expect(lines.at(-1)).toContain('balloon');
  });

  test('of a value that never changes is still drawn', () => {
    const series = [{ label: 'x', colour: 'blue' as const, values: [0, 0, 0] }];
    expect(renderChart(series, { width: 30, height: 4, colours: false }).length).toBeGreaterThan(1);
  });
});
