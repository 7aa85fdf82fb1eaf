// The test command: builds what is missing, runs every suite with coverage, says what was skipped and why,
// checks the coverage of the rooms that promise one, and ends with the plain line that tools read.
//
//   npm test                      everything
//   npm test -- test/virtio       only what is named; coverage is not judged then
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { bin, bootstrap, root } from './bootstrap.mjs';

/** Lines of each of these rooms that tests must reach, in percent. */
const COVERAGE_PROMISED = { 'src/virtio': 90, 'src/balloon': 90, 'src/device': 90, 'src/vhost-user': 90 };

const named = process.argv.slice(2);
const whole = named.length === 0;

bootstrap();

const scratch = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
const resultsFile = join(scratch, 'results.json');
const reporters = ['default', 'json', join(root, 'scripts/skipped-reporter.mjs')];
const args = [
  'run',
  ...reporters.map(name => `--reporter=${name}`),
  `--outputFile.json=${resultsFile}`,
  ...named,
];
if (whole) args.push('--coverage');
const run = spawnSync(bin('vitest'), args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });

let failed = run.status === 0 ? 0 : 1;
let passed = 0;
let skipped = 0;
if (existsSync(resultsFile)) {
  const results = JSON.parse(readFileSync(resultsFile, 'utf8'));
  passed = results.numPassedTests;
  skipped = results.numPendingTests + (results.numTodoTests ?? 0);
  // A suite that broke before its tests ran counts as well, or it would pass for one without tests.
  const broken = results.testResults.filter(
    suite => suite.status === 'failed' && suite.assertionResults.every(test => test.status !== 'failed'),
  ).length;
  failed = Math.max(failed, results.numFailedTests + broken);
}
rmSync(scratch, { recursive: true, force: true });
if (whole) failed += judgeCoverage();

console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exit(failed === 0 && run.status === 0 ? 0 : 1);

/** Prints line coverage by room; returns how many rooms keep less than they promised. */
function judgeCoverage() {
  const file = join(root, 'coverage', 'coverage-summary.json');
  if (!existsSync(file)) return 1;
  const rooms = new Map();
  for (const [path, { lines }] of Object.entries(JSON.parse(readFileSync(file, 'utf8')))) {
    if (path === 'total') continue;
    const room = relative(root, path).split('/').slice(0, 2).join('/');
    const sum = rooms.get(room) ?? { covered: 0, total: 0 };
    rooms.set(room, { covered: sum.covered + lines.covered, total: sum.total + lines.total });
  }
  let broken = 0;
  console.log('\nLine coverage by room (what runs in child processes is not counted):');
  for (const [room, { covered, total }] of [...rooms].sort()) {
    const percent = total === 0 ? 100 : (100 * covered) / total;
    const promised = COVERAGE_PROMISED[room];
    const short = promised !== undefined && percent < promised;
    if (short) broken++;
    const promise = promised === undefined ? '' : `  (promised ${promised} %${short ? ', BROKEN' : ''})`;
    console.log(`  ${room.padEnd(18)} ${percent.toFixed(1).padStart(5)} %${promise}`);
  }
  return broken;
}
