/**
 * A kernel for QEMU's guests: Debian's for cloud machines, with the virtio modules that a balloon needs.
 * Taken from this machine where it is installed, else from Debian's archive by apt, unpacked into our cache
 * and not installed.
 */
import { execFile, execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { cacheDirectory, draftOf } from '../cache.ts';
import { type PeerName, RECIPES } from '../private/catalogue.ts';
import { installedPeer } from '../private/roots.ts';
import { compareVersions } from '../processor.ts';
import { MissingPeerError } from '../programs.ts';

const execute = promisify(execFile);

const PACKAGE = 'linux-image-cloud-amd64';
const IMAGE_NAME = /^vmlinuz-(.+-cloud-amd64)$/;
const CACHE_NAME = 'cloud-kernel-';
/** A minute for an archive of 30 MB, and some for a slow line. */
const APT_TIMEOUT_MS = 300_000;

/** Peers that are kernels for QEMU's guests. */
export type KernelName = Extract<PeerName, `linux-${string}`>;

const BUS_MODULE = 'virtio_pci';
const BALLOON_MODULE = 'virtio_balloon';

export interface CloudKernel {
  /** As `uname -r` says in the guest. */
  readonly version: string;
  /** Path of the image that QEMU boots. */
  readonly image: string;
  /** Paths of the modules that the balloon's driver needs, in the order in which they can be loaded. */
  readonly transportModules: readonly string[];
  readonly balloonModule: string;
}

/** Where a package keeps modules, before and after Debian merged /usr. */
const MODULE_ROOTS = ['lib/modules', 'usr/lib/modules'];

/** Versions in `root`, the newest first, with the kernel's image: in /boot, or since Debian's 7.x beside its modules. */
function imagesIn(root: string): (readonly [version: string, image: string])[] {
  const boot = join(root, 'boot');
  const booted = namesIn(boot).flatMap(name => {
    const version = IMAGE_NAME.exec(name)?.[1];
    return version === undefined ? [] : [[version, join(boot, name)] as const];
  });
  const beside = MODULE_ROOTS.flatMap(modules =>
    namesIn(join(root, modules))
      .filter(version => version.endsWith('-cloud-amd64'))
      .map(version => [version, join(root, modules, version, 'vmlinuz')] as const)
      .filter(([, image]) => existsSync(image)),
  );
  return [...booted, ...beside].sort(([a], [b]) => compareVersions(b, a));
}

const namesIn = (directory: string): string[] => (existsSync(directory) ? readdirSync(directory) : []);

/** The newest kernel whose files lie in this root. */
export function kernelIn(root: string): CloudKernel | undefined {
  for (const [version, image] of imagesIn(root)) {
    const directory = MODULE_ROOTS.map(modules => join(root, modules, version, 'kernel/drivers/virtio')).find(
      path => existsSync(path),
    );
    if (directory === undefined) continue;
    const files = new Map(readdirSync(directory).map(file => [moduleName(file), join(directory, file)]));
    const balloonModule = files.get(BALLOON_MODULE);
    if (balloonModule === undefined) continue;
    const needed = [...withDependencies(files, BUS_MODULE), ...withDependencies(files, BALLOON_MODULE)];
    const transportModules = [...new Set(needed)].filter(file => file !== balloonModule);
    return { version, image, transportModules, balloonModule };
  }
  return undefined;
}

/** The name by which the kernel knows a module. */
export const moduleName = (path: string): string => basename(path).split('.', 1)[0].replaceAll('-', '_');

/** A module as the kernel of a small guest takes it: not compressed. */
export function readModule(path: string): Uint8Array {
  return path.endsWith('.xz')
    ? execFileSync('xz', ['-dc', path], { maxBuffer: 2 ** 26 })
    : readFileSync(path);
}

/**
 * A module's file after those of the modules that it needs; which those are differs from kernel to kernel.
 * What a kernel has built in is no file.
 */
function withDependencies(files: ReadonlyMap<string, string>, module: string): string[] {
  const file = files.get(module);
  if (file === undefined) return [];
  const info = /\0depends=([^\0]*)\0/.exec(Buffer.from(readModule(file)).toString('latin1'));
  const dependencies = (info?.[1] ?? '').split(',').filter(name => name !== '');
  return [...dependencies.flatMap(name => withDependencies(files, name)), file];
}

/** The kernel that is here already: installed, or in our cache. */
function presentKernel(cache: string): CloudKernel | undefined {
  const cached = readdirSync(cache).filter(name => name.startsWith(CACHE_NAME));
  const roots = [
    '/',
    ...cached
      .sort()
      .reverse()
      .map(name => join(cache, name)),
  ];
  for (const root of roots) {
    const kernel = kernelIn(root);
    if (kernel !== undefined) return kernel;
  }
  return undefined;
}

async function download(into: string): Promise<void> {
  const { stdout } = await execute('apt-cache', ['show', '--no-all-versions', PACKAGE]);
  // The package is an empty one that depends on the newest kernel.
  const dependency = /^Depends:.*?\b(linux-image-\S+-cloud-amd64)\b/m.exec(stdout)?.[1];
  if (dependency === undefined) throw new Error(`${PACKAGE} depends on no kernel`);
  const options = { cwd: into, timeout: APT_TIMEOUT_MS };
  await execute('apt-get', ['-o', 'APT::Sandbox::User=', 'download', dependency], options);
  const archive = readdirSync(into).find(name => name.endsWith('.deb'));
  if (archive === undefined) throw new Error(`apt-get brought no archive of ${dependency}`);
  await execute('dpkg-deb', ['-x', join(into, archive), join(into, 'all')], options);
}

/** Of everything that a kernel's package brings, a guest of ours needs a few files. */
function keep(kernel: CloudKernel, from: string, to: string): void {
  for (const file of [kernel.image, kernel.balloonModule, ...kernel.transportModules]) {
    const place = join(to, file.slice(from.length));
    mkdirSync(dirname(place), { recursive: true });
    cpSync(file, place);
  }
}

async function fetchKernel(cache: string): Promise<CloudKernel> {
  const draft = draftOf(join(cache, CACHE_NAME));
  try {
    const unpacked = join(draft, 'all');
    mkdirSync(draft, { mode: 0o700 });
    await download(draft);
    const kernel = kernelIn(unpacked);
    if (kernel === undefined) throw new Error('its package holds no kernel, or no balloon driver');
    const kept = join(draft, 'kept');
    keep(kernel, unpacked, kept);
    const place = join(cache, `${CACHE_NAME}${kernel.version}`);
    // Another process may have been quicker.
    if (!existsSync(place)) renameSync(kept, place);
    return kernelIn(place)!;
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

/** A kernel that `aerostat peers install NAME` brought; undefined where it did not. */
export function privateKernel(name: KernelName): CloudKernel | undefined {
  const peer = installedPeer(name);
  return peer === undefined ? undefined : kernelIn(peer.root);
}

/** @throws MissingPeerError */
export function requirePrivateKernel(name: KernelName): CloudKernel {
  const kernel = privateKernel(name);
  if (kernel !== undefined) return kernel;
  throw new MissingPeerError([{ what: RECIPES[name].title, peer: name }]);
}

/** @throws MissingPeerError when the kernel is not here and apt cannot bring it */
export async function findCloudKernel(): Promise<CloudKernel> {
  const cache = cacheDirectory();
  const present = presentKernel(cache);
  if (present !== undefined) return present;
  try {
    return await fetchKernel(cache);
  } catch (error) {
    const why = (error as Error).message.trim().split('\n').at(-1);
    const what = `a kernel for QEMU's guests, which apt could not download (${why}; apt-get update may help)`;
    throw new MissingPeerError([{ what, debianPackage: PACKAGE }]);
  }
}
