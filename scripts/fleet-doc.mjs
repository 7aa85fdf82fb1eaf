// Makes the table of docs/fleet.md anew from a report, between the document's markers, so that no figure is typed in:
//
//   npm run --silent sim -- fleet --hosts 1000 --guests 50000 --seed 1 --json > fleet.json
//   node scripts/fleet-doc.mjs fleet.json
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { fleetTable } from '../dist/sim/fleet/report.js';

const DOCUMENT = fileURLToPath(new URL('../docs/fleet.md', import.meta.url));
const BEGIN = '<!-- simulated fleet: begin -->';
const END = '<!-- simulated fleet: end -->';

const [file] = process.argv.slice(2);
if (file === undefined) {
  console.error('usage: node scripts/fleet-doc.mjs REPORT (of npm run sim -- fleet --json)');
  process.exit(2);
}
const report = JSON.parse(readFileSync(file, 'utf8'));
const { hosts, guests, seconds, seed } = report;
const text = readFileSync(DOCUMENT, 'utf8');
const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
if (begin < 0 || end < begin) {
  console.error(`fleet-doc: ${DOCUMENT} has no ${BEGIN} with ${END} after it`);
  process.exit(1);
}
const count = value => value.toLocaleString('en');
const table = `${count(hosts)} hosts, ${count(guests)} guests, ${count(seconds)} s, seed ${seed}:\n\n${fleetTable(report)}`;
writeFileSync(DOCUMENT, `${text.slice(0, begin)}${BEGIN}\n\n${table}\n\n${text.slice(end)}`);
