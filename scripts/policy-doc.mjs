// Makes the tables of docs/policy.md anew from reports, between the document's markers, so that no figure is typed in:
//
//   npm run bench:policy -- --seed 1 --json policy.json
//   npm run bench:policy -- --seed 1 --real embedded,linux --json reality.json
//   node scripts/policy-doc.mjs policy.json reality.json
//
// With --check it changes nothing, and ends with 1 where the document has other figures.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const DOCUMENT = fileURLToPath(new URL('../docs/policy.md', import.meta.url));
const OURS = 'aerostat';

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

const figuresOf = row => FIGURES.map(([, of]) => of(row));
const titles = FIGURES.map(([title]) => title);

const sums = (rows, group) =>
  table(
    ['policy', ...titles],
    rows
      .filter(row => row.scenario === group && row.group === 'sum')
      .map(row => [row.case, ...figuresOf(row)]),
  );

function each(rows) {
  const policies = [...new Set(rows.map(row => row.case))];
  const traces = [...new Set(rows.filter(row => row.group === 'trace').map(row => row.scenario))];
  const cell = (policy, trace) => {
    const row = rows.find(one => one.case === policy && one.scenario === trace && one.group === 'trace');
    if (row === undefined) return '–';
    return row.kills > 0 ? `${number(row.stallS)} (${number(row.kills)} killed)` : number(row.stallS);
  };
  const body = traces.map(trace => [trace, ...policies.map(policy => cell(policy, trace))]);
  return table(['trace', ...policies], body);
}

/** What our policy comes to on every trace of a report. */
export const ours = rows =>
  table(
    ['trace', ...titles],
    rows
      .filter(row => row.case === OURS && row.group === 'trace')
      .map(row => [row.scenario, ...figuresOf(row)]),
  );

const ratiosOf = ratios =>
  table(
    ['ratio', 'value'],
    Object.entries(ratios).map(([name, value]) => [`\`${name}\``, number(value)]),
  );

const runOf = ({ command, date, host }) => `\`${command}\`, ${date.slice(0, 10)}, Node ${host.node}.`;

const COMPARED = [
  ['killed', row => number(row.kills)],
  ['recalls', row => number(row.recalls)],
  ['recall median s', row => number(row.recallP50S)],
  ['recall p99 s', row => number(row.recallP99S)],
  ['needed GiB·h', row => number(row.neededGiBh)],
  ['reclaimed GiB·h', row => number(row.reclaimedGiBh)],
];

const besideReal = rows =>
  table(
    ['guests', 'trace', '', ...COMPARED.map(([title]) => title)],
    rows.map(row => [row.peer, row.scenario, row.case, ...COMPARED.map(([, of]) => of(row))]),
  );

/** The parts of the document by the names of their markers, from a report of either kind. */
export function partsOf(report) {
  const { rows, ratios, notes } = report;
  if (rows.some(row => row.case === 'real'))
    return {
      'real run': [runOf(report), ...notes].map(wrapped).join('\n\n'),
      real: besideReal(rows),
      'real ratios': ratiosOf(ratios),
    };
  return {
    run: runOf(report),
    overcommitted: sums(rows, 'overcommitted by a fifth or more'),
    room: sums(rows, 'room for all'),
    each: each(rows),
    ours: ours(rows),
    ratios: ratiosOf(ratios),
  };
}

/** Documents are wrapped at 120. */
const wrapped = text => text.replace(/(.{1,119}\S)(?: +|$)/g, '$1\n').trimEnd();

const markedBy = name => new RegExp(`(<!-- made: ${name} -->\n)([^]*?)(\n<!-- end -->)`);

/** What the document has between the markers of a part. @throws where it has none */
export function partIn(text, name) {
  const found = markedBy(name).exec(text);
  if (found === null) throw new Error(`${DOCUMENT} has no place for ${name}`);
  return found[2];
}

function main(words) {
  const check = words.includes('--check');
  const before = readFileSync(DOCUMENT, 'utf8');
  let text = before;
  for (const path of words.filter(word => word !== '--check')) {
    for (const [name, part] of Object.entries(partsOf(JSON.parse(readFileSync(path, 'utf8'))))) {
      const other = partIn(text, name) !== part;
      // When a report was made is not what it says.
      if (check && other && name !== 'run') {
        console.error(`${DOCUMENT}: other figures in "${name}"`);
        process.exitCode = 1;
      }
      text = text.replace(markedBy(name), (_, start, __, end) => `${start}${part}${end}`);
    }
  }
  if (!check && text !== before) writeFileSync(DOCUMENT, text);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv.slice(2));
