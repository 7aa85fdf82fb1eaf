/**
 * The kernels that QEMU's guests boot in tests: one of `aerostat peers install`, or Debian's for cloud machines, taken from
 * this machine where it is installed, else from Debian's archive by apt, unpacked into our cache and not installed.
 */
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { cacheDirectory, draftOf } from '../../../src/peers/cache.ts';
import { type PeerName, RECIPES } from '../../../src/peers/private/catalogue.ts';
import { installedPeer } from '../../../src/peers/private/roots.ts';
import { MissingPeerError } from '../../../src/peers/programs.ts';
import { kernelIn } from '../../../src/peers/qemu/cloud-kernel.ts';

const execute = promisify(execFile);

const PACKAGE = 'linux-image-cloud-amd64';
const CACHE_NAME = 'cloud-kernel-';
/** A minute for an archive of 30 MB, and some for a slow line. */
const APT_TIMEOUT_MS = 300_000;

/** Peers that are kernels for QEMU's guests. */
export type KernelName = Extract<PeerName, `linux-${string}`>;

export type CloudKernel = NonNullable<ReturnType<typeof kernelIn>>;

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

/** What a test that boots such a kernel lacks here: the programs that it wants, which were looked for, or the kernel. */
export async function missingCloudKernel(
  programs: MissingPeerError | undefined,
): Promise<MissingPeerError | undefined> {
  if (programs !== undefined) return programs;
  try {
    await findCloudKernel();
    return undefined;
  } catch (error) {
    if (error instanceof MissingPeerError) return error;
    throw error;
  }
}
