/** A benchmark's rows for people: elapsed times in full, of every other figure the median, and the ratios. */
import type { BenchRow, Measured, Spread } from '../bench/report.ts';
import { type Column, renderFields, renderTable } from './table.ts';

/** Shown by columns of their own. */
const NAMED = new Set(['case', 'scenario', 'peer', 'elapsedMs']);

type Figure = BenchRow[string] | undefined;

const isSpread = (figure: Figure): figure is Spread => typeof figure === 'object' && figure !== null;

const number = (value: number): string =>
  value.toLocaleString('en', { maximumFractionDigits: Math.abs(value) < 100 ? 1 : 0 });

function text(figure: Figure): string {
  if (figure === undefined || figure === null) return '-';
  if (isSpread(figure)) return number(figure.median);
  return typeof figure === 'number' ? number(figure) : figure;
}

/** `cpuUserMs` as `CPU USER MS`. */
const titleOf = (name: string): string => name.replaceAll(/(?=[A-Z])/g, ' ').toUpperCase();

export function renderBench({ rows, ratios, notes = [] }: Measured): string[] {
  const figures = [...new Set(rows.flatMap(row => Object.keys(row)))].filter(name => !NAMED.has(name));
  const elapsed = (title: string, of: keyof Spread): Column<BenchRow> => ({
    title,
    align: 'right',
    text: row => number(row.elapsedMs[of]),
  });
  const columns: Column<BenchRow>[] = [
    { title: 'CASE', text: row => row.case },
    { title: 'SCENARIO', text: row => row.scenario },
    elapsed('MIN MS', 'min'),
    elapsed('MEDIAN MS', 'median'),
    elapsed('MAX MS', 'max'),
    ...figures.map(
      (name): Column<BenchRow> => ({ title: titleOf(name), align: 'right', text: row => text(row[name]) }),
    ),
  ];
  const table = renderTable(columns, rows);
  const named = Object.entries(ratios).map(([name, ratio]): [string, string] => [name, ratio.toPrecision(3)]);
  const below = named.length === 0 ? [] : ['', 'Ratios of medians:', ...renderFields(named)];
  return [...table, ...below, ...(notes.length === 0 ? [] : ['', ...notes])];
}
