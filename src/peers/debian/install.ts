/**
 * Installs a peer for ourselves: its packages by apt (apt.ts), unpacked into a root (private/roots.ts), made to run
 * from there, tried, and only then put in its place in one step. One installation at a time; one that was interrupted
 * leaves what it downloaded for the next.
 */
import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type FileLock, lockHolder, tryLock } from '../../sys/lock.ts';
import { draftOf } from '../cache.ts';
import { type PeerName, type PeerRecipe, RECIPES } from '../private/catalogue.ts';
import {
  type InstalledPeer,
  LIBRARIES,
  LOADER,
  type PeerManifest,
  peerDirectory,
  peersDirectory,
  privateCommand,
  readPeer,
} from '../private/roots.ts';
import { kernelIn } from '../qemu/cloud-kernel.ts';
import { privateQemuCommand } from '../qemu/programs.ts';
import { type Archive, type Mirror, machineMirror, PrivateApt } from './apt.ts';
import { PeerInstallError } from './errors.ts';

const execute = promisify(execFile);

/** How it goes, for those who watch. */
export type InstallEvent =
  /** Another process installs or removes peers. */
  | { readonly type: 'waiting'; readonly holder: number | undefined }
  | { readonly type: 'index'; readonly percent: number }
  | { readonly type: 'remark'; readonly text: string }
  /** Bytes of all packages, and how many of them are here. */
  | {
      readonly type: 'download';
      readonly packages: number;
      readonly bytes: number;
      readonly doneBytes: number;
    }
  | { readonly type: 'unpack'; readonly packages: number; readonly done: number };

export interface InstallOptions {
  readonly signal: AbortSignal;
  readonly tell: (event: InstallEvent) => void;
  /** Default: the one that this machine's apt installs from. */
  readonly mirror?: Mirror;
}

const LOCK_POLL_MS = 200;
/** apt's files, indices and packages, beside the peers. */
const DOWNLOADS = '.downloads';

/** Runs `body` while no other process changes what is installed. */
async function alone<Result>(
  { signal, tell }: Pick<InstallOptions, 'signal' | 'tell'>,
  body: (lock: FileLock) => Promise<Result>,
): Promise<Result> {
  const path = `${peersDirectory()}.lock`;
  let told = false;
  for (;;) {
    signal.throwIfAborted();
    const lock = tryLock(path);
    if (lock === undefined) {
      if (!told) tell({ type: 'waiting', holder: lockHolder(path) });
      told = true;
      await delay(LOCK_POLL_MS, undefined, { signal });
      continue;
    }
    try {
      return await body(lock);
    } finally {
      lock.release();
    }
  }
}

/**
 * Installs these peers one after the other; those that are there already stay as they are.
 * @throws NotDebianError, ArchiveError, PeerInstallError
 */
export async function installPeers(
  names: readonly PeerName[],
  options: InstallOptions & { readonly begin?: (name: PeerName) => void },
): Promise<readonly InstalledPeer[]> {
  return alone(options, async () => {
    const installed: InstalledPeer[] = [];
    for (const name of names) {
      options.begin?.(name);
      installed.push(readPeer(name) ?? (await install(name, options)));
    }
    // The indices would be old the next time, and are large.
    rmSync(join(peersDirectory(), DOWNLOADS), { recursive: true, force: true });
    return installed;
  });
}

/** Removes these peers, and what interrupted installations left; of all peers nothing stays. */
export async function removePeers(
  names: readonly PeerName[],
  options: Pick<InstallOptions, 'signal' | 'tell'>,
): Promise<void> {
  await alone(options, async lock => {
    const peers = peersDirectory();
    for (const name of names) rmSync(peerDirectory(name), { recursive: true, force: true });
    for (const name of leftovers(peers)) rmSync(join(peers, name), { recursive: true, force: true });
    if (entriesOf(peers).length > 0) return;
    rmSync(peers, { recursive: true, force: true });
    lock.remove();
  });
}

const entriesOf = (directory: string): string[] => {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
};

/** Downloads and drafts: what a name with a dot is. */
const leftovers = (peers: string): string[] => entriesOf(peers).filter(name => name.startsWith('.'));

/** Bytes that interrupted installations left. */
export const leftoverBytes = (): number =>
  leftovers(peersDirectory()).reduce((sum, name) => sum + bytesBelow(join(peersDirectory(), name)), 0);

function bytesBelow(path: string): number {
  let bytes = 0;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const below = join(path, entry.name);
    if (entry.isDirectory()) bytes += bytesBelow(below);
    else if (entry.isFile()) bytes += statSync(below).blocks * 512;
  }
  return bytes;
}

async function install(name: PeerName, options: InstallOptions): Promise<InstalledPeer> {
  const { signal, tell, mirror = machineMirror() } = options;
  const recipe = RECIPES[name];
  const downloads = join(peersDirectory(), DOWNLOADS);
  const apt = new PrivateApt({
    directory: join(downloads, name),
    lists: join(downloads, 'lists'),
    mirror,
    suites: recipe.suites,
    assumed: recipe.assumed,
    signal,
  });
  const archives = await download(apt, recipe, tell);
  const place = peerDirectory(name);
  const draft = draftOf(place);
  try {
    const root = join(draft, 'root');
    mkdirSync(root, { recursive: true, mode: 0o700 });
    await unpack(apt, archives, root, options);
    const version = await FINISH[name](root, join(place, 'root'), signal);
    checkVersion(name, recipe, version);
    for (const path of recipe.discarded) rmSync(join(root, path), { recursive: true, force: true });
    const manifest: PeerManifest = {
      version,
      packages: Object.fromEntries(archives.map(packageOf)),
      suites: recipe.suites,
      mirror: mirror.uri,
      bytes: bytesBelow(root),
      installedAt: new Date().toISOString(),
    };
    writeFileSync(join(draft, 'peer.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
    signal.throwIfAborted();
    // What lay there was not whole.
    rmSync(place, { recursive: true, force: true });
    renameSync(draft, place);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
  rmSync(join(downloads, name), { recursive: true, force: true });
  return readPeer(name)!;
}

async function download(
  apt: PrivateApt,
  { packages }: PeerRecipe,
  tell: InstallOptions['tell'],
): Promise<readonly Archive[]> {
  tell({ type: 'index', percent: 0 });
  const remark = await apt.update(percent => tell({ type: 'index', percent }));
  if (remark !== undefined) tell({ type: 'remark', text: remark });
  const archives = await apt.archivesOf(packages);
  const bytes = archives.reduce((sum, archive) => sum + archive.bytes, 0);
  const present = archives.reduce((sum, archive) => sum + apt.presentBytes(archive), 0);
  const told = (doneBytes: number) =>
    tell({ type: 'download', packages: archives.length, bytes, doneBytes: Math.min(bytes, doneBytes) });
  told(present);
  await apt.download(packages, percent => told(present + ((bytes - present) * percent) / 100));
  told(bytes);
  return archives;
}

async function unpack(
  apt: PrivateApt,
  archives: readonly Archive[],
  root: string,
  { signal, tell }: InstallOptions,
): Promise<void> {
  for (const [done, { file }] of archives.entries()) {
    tell({ type: 'unpack', packages: archives.length, done });
    try {
      await execute('dpkg-deb', ['--extract', join(apt.archives, file), root], { signal });
    } catch (cause) {
      signal.throwIfAborted();
      throw new PeerInstallError(`cannot unpack ${file}: ${lastLine(cause)}`, { cause });
    }
  }
  tell({ type: 'unpack', packages: archives.length, done: archives.length });
}

/** Of an archive's file name, `NAME_VERSION_ARCHITECTURE.deb`, in which a colon is written %3a. */
function packageOf({ file }: Archive): [name: string, version: string] {
  const [name, version = ''] = file.split('_');
  return [name, version.replaceAll('%3a', ':')];
}

function checkVersion(name: PeerName, { version: wanted, suites }: PeerRecipe, version: string): void {
  if (wanted === undefined || version.startsWith(`${wanted}.`)) return;
  throw new PeerInstallError(
    `${name} cannot be had any more: ${suites.at(-1)} of Debian now has ${version}, and ${wanted} is what it was`,
  );
}

const lastLine = (error: unknown): string => (error as Error).message.trim().split('\n').at(-1)!;

/** Runs a program of a root, which must succeed. */
async function runIn(
  {
    program,
    args,
    env,
  }: { program: string; args: readonly string[]; env?: Readonly<Record<string, string>> },
  words: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  try {
    const options = { signal, env: { ...process.env, ...env } };
    return (await execute(program, [...args, ...words], options)).stdout;
  } catch (cause) {
    signal.throwIfAborted();
    throw new PeerInstallError(`what was installed does not start: ${lastLine(cause)}`, { cause });
  }
}

type Finish = (root: string, place: string, signal: AbortSignal) => Promise<string>;

/**
 * User Mode Linux starts itself again, so its loader and libraries are written into it: those of the draft, by which
 * it is tried, then those of its place.
 */
async function finishUml(root: string, place: string, signal: AbortSignal): Promise<string> {
  const program = join(root, 'usr/bin/linux.uml');
  const patchelf = privateCommand(root, 'usr/bin/patchelf');
  const bind = async (to: string) => {
    const loader = ['--set-interpreter', join(to, LOADER), '--set-rpath', join(to, LIBRARIES)];
    await runIn(patchelf, [...loader, program], signal);
  };
  await bind(root);
  const version = await runIn({ program, args: [] }, ['--version'], signal);
  await bind(place);
  return version.trim();
}

async function finishQemu(root: string, _place: string, signal: AbortSignal): Promise<string> {
  const said = await runIn(privateQemuCommand(root), ['--version'], signal);
  const version = /version (\d[\w.]*)/.exec(said)?.[1];
  if (version === undefined) throw new PeerInstallError(`QEMU does not tell its version: ${said}`);
  return version;
}

async function finishKernel(root: string): Promise<string> {
  const kernel = kernelIn(root);
  if (kernel === undefined) throw new PeerInstallError('its package holds no kernel, or no balloon driver');
  return kernel.version;
}

/** Of Linux's sources, what a module of its own is built from: everything else would be a gigabyte more. */
const KERNEL_SOURCES = [
  'Makefile',
  'Kbuild',
  'COPYING',
  'arch/um',
  'arch/x86',
  'include',
  'init',
  'kernel',
  'scripts',
  'security/selinux/include',
  'tools/include',
  'usr',
];

/** Unpacks what is needed of the archive of sources, to usr/src/linux. */
async function finishSources(root: string, _place: string, signal: AbortSignal): Promise<string> {
  const directory = join(root, 'usr/src');
  const archive = entriesOf(directory).find(name => /^linux-source-.*\.tar\.xz$/.test(name));
  if (archive === undefined) throw new PeerInstallError('its package holds no sources');
  const top = archive.replace(/\.tar\.xz$/, '');
  const wanted = [`${top}/*Kconfig*`, ...KERNEL_SOURCES.map(path => `${top}/${path}`)];
  try {
    const words = ['-C', directory, '-xJf', join(directory, archive), '--wildcards', ...wanted];
    await execute('tar', words, { signal });
  } catch (cause) {
    signal.throwIfAborted();
    throw new PeerInstallError(`cannot unpack ${archive}: ${lastLine(cause)}`, { cause });
  }
  renameSync(join(directory, top), join(directory, 'linux'));
  const makefile = readFileSync(join(directory, 'linux/Makefile'), 'utf8');
  const part = (name: string) => new RegExp(`^${name} = (\\d+)$`, 'm').exec(makefile)?.[1] ?? '0';
  return ['VERSION', 'PATCHLEVEL', 'SUBLEVEL'].map(part).join('.');
}

/** What remains to be done in a root that becomes `place`; resolves with the peer's version. */
const FINISH: Readonly<Record<PeerName, Finish>> = {
  uml: finishUml,
  qemu: finishQemu,
  'linux-6.12': finishKernel,
  'linux-7.3': finishKernel,
  'uml-source': finishSources,
};
