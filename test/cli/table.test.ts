import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { renderBench } from '../../src/cli/bench-table.ts';
import { renderChart } from '../../src/cli/chart.ts';
import { isUnicode } from '../../src/cli/style.ts';
import { renderBar, renderTable, wrap } from '../../src/cli/table.ts';

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

describe('a chart of several', () => {
  const series = [
    {
      label: 'resident',
      colour: 'blue' as const,
      values: [1, 1, 1, 4, 4, null, 4].map(n => n && n * 2 ** 20),
    },
    { label: 'balloon', colour: 'green' as const, values: [3, 3, 3, 2, 2, 2, 2].map(n => n * 2 ** 20) },
  ];
  const options = { width: 20, height: 5, colours: false } as const;

  test('tells them apart without colours, by lines that the legend shows', () => {
    const lines = renderChart(series, options);
    expect(lines.at(-1)).toMatch(/── resident {2}╌╌ balloon/);
    expect(lines[1]).toMatch(/╌╌╌/);
    expect(lines[3]).toMatch(/───/);
  });

  test('draws nothing where nothing is known', () => {
    const [first] = renderChart(series, options);
    expect(first.trimEnd()).toMatch(/4M ┤ {3}╭─ ─$/);
  });

  test('is ASCII where no more can be shown, and tells them apart there too', () => {
    const lines = renderChart(series, { ...options, unicode: false });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the bounds of ASCII are what is tested
    expect(lines.join('\n')).toMatch(/^[\x00-\x7f]*$/);
    expect(lines.at(-1)).toMatch(/\*\* resident {2}oo balloon/);
    expect(lines.join('\n')).toMatch(/ooo[\s\S]*\*\*\*/);
  });
});

describe('what a terminal can show', () => {
  test.each([
    [{ LANG: 'C' }, false],
    [{ LANG: 'C.UTF-8' }, true],
    [{ LANG: 'en_US.utf8' }, true],
    [{ LANG: 'en_US.UTF-8', LC_ALL: 'POSIX' }, false],
    [{ LANG: 'C', LC_CTYPE: 'C.UTF-8' }, true],
    [{ LANG: 'en_US.ISO-8859-1' }, false],
    [{}, true],
  ])('with %j is more than ASCII: %s', (env, unicode) => {
    expect(isUnicode(env)).toBe(unicode);
  });

  test('words are broken where they must be, and nothing is lost', () => {
    fc.assert(
      fc.property(
        fc.stringMatching(/^[a-z]{1,30}( [a-z]{1,30}){0,8}$/),
        fc.integer({ min: 5, max: 60 }),
        (text, columns) => {
          const lines = wrap(text, columns);
          expect(Math.max(...lines.map(line => line.length))).toBeLessThanOrEqual(columns);
          expect(lines.join('').replaceAll(' ', '')).toBe(text.replaceAll(' ', ''));
        },
      ),
    );
  });
});

describe('a benchmark', () => {
  test('is a table with every figure that some row has, and its ratios', () => {
    const spread = (median: number) => ({ min: median - 1, median, max: median + 1 });
    const rows = [
      {
        case: 'after-ack',
        scenario: 'idle',
        peer: 'linux-uml',
        elapsedMs: spread(1235),
        cpuUserMs: spread(7.25),
      },
      { case: 'bare punch', scenario: 'touched', peer: 'host', elapsedMs: spread(99), punches: 1 },
    ];
    expect(renderBench({ rows, ratios: { afterAckToAckOnlyIdle: 1.0487 } })).toEqual([
      'CASE        SCENARIO  MIN MS  MEDIAN MS  MAX MS  CPU USER MS  PUNCHES',
      'after-ack   idle       1,234      1,235   1,236          7.3        -',
      'bare punch  touched       98         99     100            -        1',
      '',
      'Ratios of medians:',
      '  afterAckToAckOnlyIdle  1.05',
    ]);
  });
});
