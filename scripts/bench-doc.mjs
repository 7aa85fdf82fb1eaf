// Prints a benchmark's JSON report as the Markdown that docs/benchmarks.md holds, so that no figure is typed in:
//
//   node scripts/bench-doc.mjs result.json [figure,figure,…]
import { readFileSync } from 'node:fs';

const [file, chosen] = process.argv.slice(2);
const { command, date, host, version, rows, ratios } = JSON.parse(readFileSync(file, 'utf8'));

const number = value => {
  if (value === undefined || value === null) return '–';
  if (typeof value !== 'number') return String(value);
  if (Number.isInteger(value)) return value.toLocaleString('en');
  return Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
};
const cell = value =>
  typeof value === 'object' && value !== null
    ? value.min === value.max
      ? number(value.median)
      : `${number(value.median)} (${number(value.min)}–${number(value.max)})`
    : number(value);

const skipped = new Set(['case', 'scenario', 'peer']);
const figures =
  chosen?.split(',') ??
  [...new Set(rows.flatMap(row => Object.keys(row)))].filter(name => !skipped.has(name));
const header = ['scenario', 'case', ...figures];
const line = cells => `| ${cells.join(' | ')} |`;

console.log(
  `\`${command}\`, Aerostat ${version}, ${date.slice(0, 10)}; Linux ${host.kernel}, Node ${host.node},`,
);
console.log(
  `${host.cores} × ${host.cpu}, ${(host.memoryBytes / 2 ** 30).toFixed(0)} GiB. Medians (minimum–maximum).\n`,
);
console.log(line(header));
console.log(line(header.map((_, at) => (at < 2 ? '---' : '---:'))));
for (const row of rows)
  console.log(line(header.map(name => (at => (typeof at === 'string' ? at : cell(at)))(row[name]))));
console.log('\n| ratio | value |\n|---|---:|');
for (const [name, value] of Object.entries(ratios)) console.log(line([`\`${name}\``, number(value)]));
