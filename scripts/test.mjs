// The test command: builds what is missing, runs every suite with coverage, says what was skipped and why,
// checks the coverage of the rooms that promise one, clears away what tests left, and ends with the plain line that
// tools read. Of a whole run, a few failed files of real programs are run once more, alone; what passes only then is
// named with the reason of its first failure.
//
//   npm test                      everything
//   npm test -- test/virtio       only what is named; coverage is not judged then
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { bin, bootstrap, root } from './bootstrap.mjs';
import { onlyAtSecondAttempt, worthASecondAttempt } from './second-attempt.mjs';

/** Lines of each of these rooms that tests must reach, in percent. */
const COVERAGE_PROMISED = {
  'src/virtio': 90,
  'src/balloon': 90,
  'src/device': 90,
  'src/vhost-user': 90,
  'src/memory': 90,
  'src/driver': 90,
  'src/migration': 90,
  'src/control': 90,
  'src/threads': 90,
  'src/hosting': 90,
};

/**
 * Tests that are run without coverage, after the others: counting makes what computes nearly twice as slow, and these
 * compute, or run what was compiled to `dist/`, which is not counted. No room's promise is kept by them.
 */
const UNCOUNTED = [
  'test/vm',
  'test/embedded',
  'test/sim',
  'test/peers',
  'test/web',
  'test/bench',
  'test/packaging',
  'test/demo',
];

/** Shorter files are not in the list of durations: their order matters little. */
const LISTED_SECONDS_MIN = 5;
const LONGEST_SHOWN = 12;

const named = process.argv.slice(2);
const whole = named.length === 0;

bootstrap();

/** How many huge pages the host keeps. Tests raise it and put it back, unless they are killed. */
const HUGE_PAGES = '/proc/sys/vm/nr_hugepages';
const hugePagesBefore = hugePages();

// All that tests start and write has this directory in its environment or its path. The name is short, for sockets lie
// deep below it, and their paths are bounded.
const scratch = mkdtempSync(join(tmpdir(), 'aerostat-'));
// Programs that a test runs as another user find their files below it.
chmodSync(scratch, 0o711);
const reporters = ['default', 'json', join(root, 'scripts/skipped-reporter.mjs')];
/** The run of vitest that goes on, if one does. */
let vitest;
// Ctrl-C reaches both processes; a signal to this one alone is passed on, and no further run begins.
let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    interrupted = true;
    vitest?.kill(signal);
  });
}

const first = whole ? await runWhole() : await run(named);
let { passed, failed } = first;
const again = whole && !interrupted ? worthASecondAttempt(first.suites) : [];
if (again.length > 0) {
  console.log(`\nFailed beside other tests, and run once more, alone: ${again.join(', ')}`);
  const second = await run(again);
  const only = onlyAtSecondAttempt(first.suites, second.suites);
  for (const line of only.lines) console.log(line);
  passed += only.passed;
  failed = second.failed;
}
if (whole) tellDurations(first.suites);
clearAway();
if (whole) failed += judgeCoverage();

console.log(`${passed} passed, ${failed} failed, ${first.skipped} skipped`);
process.exit(failed === 0 ? 0 : 1);

/** All that there is, in two runs of vitest: the rooms whose lines are counted, and the others. */
async function runWhole() {
  const counted = await run(['--coverage', ...UNCOUNTED.flatMap(path => ['--exclude', `${path}{,/**}`])]);
  if (interrupted) return counted;
  const others = await run(UNCOUNTED);
  return {
    suites: [...counted.suites, ...others.suites],
    passed: counted.passed + others.passed,
    failed: counted.failed + others.failed,
    skipped: counted.skipped + others.skipped,
  };
}

/** Runs vitest with `words`: what it said of each file, and how many tests passed, failed and were skipped. */
async function run(words) {
  const resultsFile = join(scratch, 'results.json');
  rmSync(resultsFile, { force: true });
  const args = [
    'run',
    ...reporters.map(name => `--reporter=${name}`),
    `--outputFile.json=${resultsFile}`,
    ...words,
  ];
  vitest = spawn(bin('vitest'), args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, TMPDIR: scratch },
  });
  const [status] = await once(vitest, 'exit');
  const least = status === 0 ? 0 : 1;
  if (!existsSync(resultsFile)) return { suites: [], passed: 0, failed: least, skipped: 0 };
  const results = JSON.parse(readFileSync(resultsFile, 'utf8'));
  // A suite that broke before its tests ran counts as well, or it would pass for one without tests.
  const broken = results.testResults.filter(
    suite => suite.status === 'failed' && suite.assertionResults.every(test => test.status !== 'failed'),
  ).length;
  return {
    suites: results.testResults.map(suite => ({ ...suite, name: relative(root, suite.name) })),
    passed: results.numPassedTests,
    failed: Math.max(least, results.numFailedTests + broken),
    skipped: results.numPendingTests + (results.numTodoTests ?? 0),
  };
}

function hugePages() {
  try {
    return readFileSync(HUGE_PAGES, 'latin1').trim();
  } catch {
    return undefined; // A kernel without them.
  }
}

/** Ends what tests started and did not end, and removes what they wrote and did not remove; says what it was. */
function clearAway() {
  const programs = readdirSync('/proc').flatMap(pid => {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(scratch)) return [];
      const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
      process.kill(Number(pid), 'SIGKILL');
      return [`${words.join(' ').slice(0, 120).trim()} (process ${pid})`];
    } catch {
      return []; // No process, one that is gone, or another user's.
    }
  });
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map(line => line.split(' ')[1] ?? '');
  for (const mount of mounts.filter(path => path.startsWith(scratch))) {
    console.log(`left behind by the tests, unmounted: ${mount}`);
    spawnSync('umount', ['--lazy', mount]);
  }
  if (hugePages() !== hugePagesBefore) {
    console.log(`left behind by the tests, put back: ${hugePages()} huge pages, ${hugePagesBefore} before`);
    writeFileSync(HUGE_PAGES, hugePagesBefore);
  }
  const files = readdirSync(scratch).filter(name => name !== 'results.json');
  for (const left of [...programs, ...files]) console.log(`left behind by the tests, cleared away: ${left}`);
  rmSync(scratch, { recursive: true, force: true, maxRetries: 10 });
}

/** Says what took longest, and writes the list by which test/support/longest-first.ts orders files. */
function tellDurations(suites) {
  const seconds = suites
    .map(({ name, startTime, endTime }) => [name, Math.round((endTime - startTime) / 1000)])
    .filter(([, taken]) => taken >= LISTED_SECONDS_MIN)
    .sort(([a, taken], [b, other]) => other - taken || a.localeCompare(b));
  const list = join(root, 'coverage', 'durations.json');
  if (existsSync(join(root, 'coverage'))) {
    writeFileSync(list, `${JSON.stringify(Object.fromEntries(seconds), null, 2)}\n`);
  }
  console.log(
    `\nLongest test files, in seconds (all in ${relative(root, list)}; copy it to test/durations.json):`,
  );
  for (const [file, taken] of seconds.slice(0, LONGEST_SHOWN))
    console.log(`  ${String(taken).padStart(4)}  ${file}`);
}

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
