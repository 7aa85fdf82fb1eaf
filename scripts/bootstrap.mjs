// Brings a bare clone to the point where `bin/aerostat` runs: installs the locked dependencies when they
// are missing or older than the lock file, and compiles `src/` when it is newer than `dist/`.
// It uses nothing but Node itself, so it can be the first thing that ever runs in a clone.
import { spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isIn, wordsOf } from './node-versions.mjs';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

const INSTALL_STAMP = join(root, 'node_modules', '.aerostat-installed');
const BUILD_STAMP = join(root, 'dist', '.aerostat-built');
const PAGE_STAMP = join(root, 'dist', '.aerostat-page-built');

/** Runs a program of the project with inherited output; ends this process with its code if it fails. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (result.error) {
    console.error(`aerostat: cannot start ${command}: ${result.error.message}`);
    process.exit(1);
  }
  if (result.status !== 0) process.exit(result.status ?? endedBy(result.signal));
}

/** What a shell gives for a program that a signal ended. */
export const endedBy = signal => 128 + (constants.signals[signal] ?? 0);

const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM'];

/** As {@link run}, for a program that may take long: a signal that ends this process ends the program. */
export function follow(command, args) {
  const child = spawn(command, args, { cwd: root, stdio: 'inherit' });
  const handOn = signal => child.kill(signal);
  for (const signal of SIGNALS) process.on(signal, handOn);
  follows = true;
  return new Promise(resolve => {
    child.once('error', error => {
      console.error(`aerostat: cannot start ${command}: ${error.message}`);
      process.exit(1);
    });
    child.once('exit', (status, signal) => {
      for (const name of SIGNALS) process.off(name, handOn);
      follows = false;
      const code = status ?? endedBy(signal);
      if (code !== 0) process.exit(code);
      resolve();
    });
  });
}

let hears = false;
let follows = false;

/** From now on a signal ends this process as one that has things to remove; Node's own way leaves them. */
function hearSignals() {
  if (hears) return;
  hears = true;
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      // Who follows a program ends as that does.
      if (!follows) process.exit(endedBy(signal));
    });
  }
}

/** An empty directory that is gone when this process is, also when a signal ends it. */
export function scratch(name) {
  const directory = mkdtempSync(join(tmpdir(), `aerostat-${name}-`));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  hearSignals();
  return directory;
}

/** Path of a program that a dependency brought. */
export const bin = name => join(root, 'node_modules', '.bin', name);

const mtime = path => (existsSync(path) ? statSync(path).mtimeMs : 0);

function newest(directory) {
  let latest = 0;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    latest = Math.max(latest, entry.isDirectory() ? newest(path) : mtime(path));
  }
  return latest;
}

function stamp(path) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, '');
}

export function install() {
  if (mtime(INSTALL_STAMP) >= Math.max(mtime(join(root, 'package-lock.json')), 1)) return;
  console.error('aerostat: installing dependencies');
  // `npm install --no-save` rather than `npm ci`: it honours the lock file, and it survives a registry
  // mirror that lacks an optional package of a platform other than this one.
  run('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'], {
    stdio: ['ignore', 2, 2],
  });
  stamp(INSTALL_STAMP);
}

export function build({ force = false } = {}) {
  const built = mtime(BUILD_STAMP);
  const inputs = Math.max(
    newest(join(root, 'src')),
    mtime(join(root, 'tsconfig.json')),
    ...['bundle.mjs', 'code-cache.mjs'].map(name => mtime(join(root, 'scripts', name))),
    mtime(join(root, 'bin', 'program.cjs')),
    mtime(INSTALL_STAMP),
  );
  if (!force && built >= inputs) return;
  console.error('aerostat: compiling');
  // Into a folder beside it that then takes its place: a program that runs from `dist/` meanwhile never sees half of
  // a build, and what has no source any more is gone.
  // It has to lie as deep as `dist/`, for source maps name the sources by the way from there.
  const dist = join(root, 'dist');
  const fresh = `${dist}-${process.pid}`;
  const stale = `${fresh}-stale`;
  // A compilation that fails, or is interrupted, ends this process.
  hearSignals();
  process.once('exit', () => rmSync(fresh, { recursive: true, force: true }));
  const startedSeconds = Date.now() / 1000;
  run(bin('tsc'), ['-p', 'tsconfig.json', '--outDir', fresh], { stdio: ['ignore', 2, 2] });
  run(process.execPath, [join(root, 'scripts', 'bundle.mjs'), fresh], { stdio: ['ignore', 2, 2] });
  const cached = spawnSync(process.execPath, [join(root, 'scripts', 'code-cache.mjs'), fresh], {
    stdio: ['ignore', 2, 2],
  });
  if (cached.status !== 0) {
    if (cached.signal !== null) process.exit(endedBy(cached.signal));
    console.error('aerostat: what it compiles when it starts was not kept, so that it starts slower');
  }
  if (existsSync(join(dist, 'web'))) cpSync(join(dist, 'web'), join(fresh, 'web'), { recursive: true });
  if (existsSync(dist)) renameSync(dist, stale);
  renameSync(fresh, dist);
  rmSync(stale, { recursive: true, force: true });
  stamp(BUILD_STAMP);
  // A source that changed while it was compiled is newer than this.
  utimesSync(BUILD_STAMP, startedSeconds, startedSeconds);
}

/** The dashboard shares a few files with `src/`, which is why those count as its inputs as well. */
function buildPage({ force = false } = {}) {
  const inputs = Math.max(
    newest(join(root, 'web')),
    newest(join(root, 'src', 'control')),
    newest(join(root, 'src', 'server')),
    mtime(INSTALL_STAMP),
  );
  if (!force && mtime(PAGE_STAMP) >= inputs) return;
  run(bin('vite'), ['build', 'web', '--logLevel', 'warn'], { stdio: ['ignore', 2, 2] });
  stamp(PAGE_STAMP);
}

export function bootstrap() {
  const { engines } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  if (!isIn(process.versions.node, engines.node)) {
    console.error(
      `aerostat: Node ${process.versions.node} does not run it; install Node ${wordsOf(engines.node)}.`,
    );
    process.exit(1);
  }
  install();
  build();
  buildPage();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const force = process.argv.includes('--build');
  install();
  build({ force });
  buildPage({ force });
}
