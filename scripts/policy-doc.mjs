// Makes the tables of docs/policy.md anew from a report, between the document's markers, so that no figure is typed in:
//
//   npm run bench:policy -- --seed 1 --json policy.json
//   node scripts/policy-doc.mjs policy.json
import { readFileSync, writeFileSync } from 'node:fs';

const DOCUMENT = 'docs/policy.md';
const OURS = 'aerostat';

const { command, date, host, rows, ratios } = JSON.parse(readFileSync(process.argv[2], 'utf8'));

const number = (value, digits = 3) => {
  if (value === undefined || value === null) return '–';
  const figure = typeof value === 'object' ? value.median : value;
  if (Number.isInteger(figure)) return figure.toLocaleString('en');
  if (Math.abs(figure) >= 100) return Math.round(figure).toLocaleString('en');
  return String(Number(figure.toPrecision(digits)));
};
const line = cells => `| ${cells.join(' | ')} |`;
const table = (head, body) =>
  [line(head), line(head.map((_, at) => (at === 0 ? '---' : '---:'))), ...body.map(line)].join('\n');

const FIGURES = [
  ['killed', row => number(row.kills)],
  ['stalled s', row => number(row.stallS)],
  ['host short s', row => number(row.underReserveS)],
  ['recall median s', row => number(row.recallP50S)],
  ['recall max s', row => number(row.recallMaxS)],
  ['below fair part mean %', row => number(row.belowFairMeanPercent, 2)],
  ['below fair part most %', row => number(row.belowFairMostPercent, 2)],
  ['turns an hour', row => number(row.reversalsPerHour)],
  ['needed GiB·h', row => number(row.neededGiBh)],
  ['reclaimed GiB·h', row => number(row.reclaimedGiBh)],
  ['moved GiB', row => number(row.movedGiB)],
];

const sums = group =>
  table(
    ['policy', ...FIGURES.map(([title]) => title)],
    rows
      .filter(row => row.scenario === group && row.group === 'sum')
      .map(row => [row.case, ...FIGURES.map(([, of]) => of(row))]),
  );

const policies = [...new Set(rows.map(row => row.case))];
const traces = [...new Set(rows.filter(row => row.group === 'trace').map(row => row.scenario))];
const cell = (policy, trace) => {
  const row = rows.find(one => one.case === policy && one.scenario === trace && one.group === 'trace');
  if (row === undefined) return '–';
  return row.kills > 0 ? `${number(row.stallS)} (${number(row.kills)} killed)` : number(row.stallS);
};
const each = () =>
  table(
    ['trace', ...policies],
    traces.map(trace => [trace, ...policies.map(policy => cell(policy, trace))]),
  );

const ours = () =>
  table(
    ['trace', ...FIGURES.map(([title]) => title)],
    rows
      .filter(row => row.case === OURS && row.group === 'trace')
      .map(row => [row.scenario, ...FIGURES.map(([, of]) => of(row))]),
  );

const PARTS = {
  run: () => `\`${command}\`, ${date.slice(0, 10)}, Node ${host.node}.`,
  overcommitted: () => sums('overcommitted by a fifth or more'),
  room: () => sums('room for all'),
  each,
  ours,
  ratios: () =>
    table(
      ['ratio', 'value'],
      Object.entries(ratios).map(([name, value]) => [`\`${name}\``, number(value)]),
    ),
};

let text = readFileSync(DOCUMENT, 'utf8');
for (const [name, make] of Object.entries(PARTS)) {
  const marked = new RegExp(`(<!-- made: ${name} -->\n)[^]*?(<!-- end -->)`);
  if (!marked.test(text)) throw new Error(`${DOCUMENT} has no place for ${name}`);
  text = text.replace(marked, (_, before, after) => `${before}${make()}\n${after}`);
}
writeFileSync(DOCUMENT, text);
