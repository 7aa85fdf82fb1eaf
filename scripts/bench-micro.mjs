// `npm run bench:micro`: compiles the micro benchmarks and runs them one after the other, each in a process of its
// own, because what one leaves in the compiler and on the heap would count for the next.
//
//   npm run bench:micro                                  all
//   npm run bench:micro -- virtqueue --json FILE         one, with its rows and ratios in a file
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { follow, root, scratch } from './bootstrap.mjs';
import { compile } from './compile.mjs';

const SUFFIX = '.bench.ts';

const { values, positionals } = argumentsGiven();
const known = readdirSync(join(root, 'bench'))
  .filter(file => file.endsWith(SUFFIX))
  .map(file => file.slice(0, -SUFFIX.length));
const names = positionals.length > 0 ? positionals : known;
if (values.help) {
  console.log(
    `usage: npm run bench:micro -- [NAME …] [--json FILE]\nnames: ${known.join(', ')} (default: all)`,
  );
  process.exit();
}
for (const name of names) {
  if (known.includes(name)) continue;
  console.error(`bench: nothing is called ${name}; there are ${known.join(', ')}`);
  process.exit(2);
}

const output = compile('bench');
const directory = scratch('bench');
const reports = [];
for (const name of names) {
  console.log(`\n${name}`);
  const file = join(directory, `${name}.json`);
  await follow(process.execPath, [join(output, 'bench', `${name}.bench.js`), '--json', file]);
  reports.push(JSON.parse(readFileSync(file, 'utf8')));
}
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify(merged(reports), undefined, 2)}\n`);

/** One report of several: of one machine and one day, with the benchmark's name before its cases and ratios. */
function merged(reports) {
  if (reports.length === 1) return reports[0];
  return {
    ...reports[0],
    command: `npm run bench:micro -- ${names.join(' ')}`,
    rows: reports.flatMap(({ rows }, at) => rows.map(row => ({ ...row, case: `${names[at]}: ${row.case}` }))),
    ratios: Object.assign(
      {},
      ...reports.map(({ ratios }, at) =>
        Object.fromEntries(Object.entries(ratios).map(([name, ratio]) => [`${names[at]}.${name}`, ratio])),
      ),
    ),
  };
}

function argumentsGiven() {
  try {
    return parseArgs({
      options: { json: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
      allowPositionals: true,
    });
  } catch (error) {
    console.error(`bench: ${error.message}`);
    process.exit(2);
  }
}
