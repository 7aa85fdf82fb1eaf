// `npm run build:linux -- --debug-kernel`: a kernel of User Mode Linux that looks for faults in what runs in it, and the
// balloon driver in linux/ for it. KASAN sees every access to memory that is freed or never was the driver's, lockdep every
// order of locks, and more (linux/debug.config). It takes Debian's whole sources (160 MB to download, 1.7 GB while it builds)
// and ten minutes to an hour; CI does not build it. Both are kept in the cache; sources are fetched anew when it changes.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { root } from './bootstrap.mjs';

const CONFIGURATION = join(root, 'linux/debug.config');
const SOURCES = 'linux-source-7.2';
const MODULE = 'aerostat_balloon.ko';

const load = path => import(new URL(`../dist/${path}`, import.meta.url).href);

/** Runs a program with its words on standard error, and throws when it fails. */
function run(program, ...words) {
  const { status, error } = spawnSync(program, words, { stdio: ['ignore', 2, 2] });
  if (status !== 0) throw error ?? new Error(`${program} failed; its own words are above`);
}

/** Debian's sources, whole. */
async function fetchSources(directory) {
  const { PrivateApt, machineMirror } = await load('peers/debian/apt.js');
  const downloads = join(directory, 'downloads');
  const apt = new PrivateApt({
    directory: downloads,
    lists: join(downloads, 'lists'),
    mirror: machineMirror(),
    suites: ['sid'],
    assumed: ['binutils', 'xz-utils'],
    signal: new AbortController().signal,
  });
  await apt.update(() => {});
  await apt.download([SOURCES], () => {});
  const archive = readdirSync(apt.archives).find(name => name.startsWith(`${SOURCES}_`));
  if (archive === undefined) throw new Error(`Debian's unstable suite has no ${SOURCES} any more`);
  run('dpkg-deb', '--extract', join(apt.archives, archive), downloads);
  const sources = join(directory, 'sources');
  mkdirSync(sources, { recursive: true });
  const tar = join(downloads, `usr/src/${SOURCES}.tar.xz`);
  run('tar', '-C', sources, '--strip-components=1', '-xJf', tar);
  rmSync(downloads, { recursive: true, force: true });
}

/** Directory with vmlinux, version and the module, built unless it is there. */
export async function debugKernel() {
  const { cacheDirectory } = await load('peers/cache.js');
  const wanted = readFileSync(CONFIGURATION);
  const digest = createHash('sha256').update(wanted).digest('hex').slice(0, 16);
  const kept = join(cacheDirectory(), 'linux-module', `debug-${digest}`);
  const output = join(kept, 'build');
  const make = (...words) =>
    run('make', '-s', '-j2', `-C${join(kept, 'sources')}`, 'ARCH=um', `O=${output}`, ...words);
  if (!existsSync(join(kept, 'vmlinux'))) {
    rmSync(kept, { recursive: true, force: true });
    mkdirSync(output, { recursive: true, mode: 0o700 });
    await fetchSources(kept);
    make(`KCONFIG_ALLCONFIG=${CONFIGURATION}`, 'allnoconfig');
    checkConfiguration(wanted, join(output, '.config'));
    make('vmlinux', 'modules');
    const version = execFileSync(join(output, 'vmlinux'), ['--version'], { encoding: 'utf8' });
    writeFileSync(join(kept, 'version'), version);
    renameSync(join(output, 'vmlinux'), join(kept, 'vmlinux'));
  }
  // Two seconds; its sources may have changed.
  const module = join(kept, 'module');
  rmSync(module, { recursive: true, force: true });
  cpSync(join(root, 'linux'), module, { recursive: true });
  make(`M=${module}`, 'modules');
  cpSync(join(module, MODULE), join(kept, MODULE));
  return kept;
}

/** A word that this kernel does not know would be left out without one of its own. */
function checkConfiguration(wanted, made) {
  const lines = new Set(readFileSync(made, 'utf8').split('\n'));
  const missing = String(wanted)
    .split('\n')
    .filter(line => line.startsWith('CONFIG_') && !lines.has(line));
  if (missing.length > 0) throw new Error(`the kernel does not take ${missing.join(', ')}`);
}
