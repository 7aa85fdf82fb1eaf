/**
 * The guest's file system: busybox under all its names, the balloon driver's module and the init script,
 * packed once and kept in a cache under a name that is a digest of what went in.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { cacheDirectory, writeAtomically } from '../cache.ts';
import { requireProgram } from '../programs.ts';
import type { UmlKernel } from '../uml/kernel.ts';
import { type CpioEntry, cpioArchive } from './cpio.ts';
import {
  BALLOON_MODULE,
  COMMAND_SCRIPT,
  COMMAND_SCRIPT_PATH,
  COMMAND_TERMINAL,
  initScript,
  SERVER_SCRIPT,
  SERVER_SCRIPT_PATH,
  WORK_DIRECTORY,
} from './init.ts';

/** A quick level: what is packed is read once, from memory, a moment later. */
const GZIP_LEVEL = 1;

const directory = (path: string, mode = 0o755): CpioEntry => ({ kind: 'directory', path, mode });
const file = (path: string, mode: number, content: string | Uint8Array): CpioEntry => ({
  kind: 'file',
  path: path.slice(1),
  mode,
  data: Buffer.from(content as string),
});
const MOUNT_POINTS = ['proc', 'sys', 'dev', 'run', 'tmp', 'root', 'lib', 'lib/modules', 'bin', 'etc'];

function entries(busybox: string, init: string, modules: ReadonlyMap<string, Uint8Array>): CpioEntry[] {
  const applets = execFileSync(busybox, ['--list'], { encoding: 'utf8' }).trim().split('\n');
  const links = applets.filter(name => name !== 'busybox');
  return [
    ...MOUNT_POINTS.map(path => directory(path)),
    directory(WORK_DIRECTORY.slice(1)),
    { kind: 'symlink', path: 'sbin', target: 'bin' },
    // The kernel opens it for init's standard streams before anything is mounted.
    { kind: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    file('/bin/busybox', 0o755, readFileSync(busybox)),
    ...links.map((name): CpioEntry => ({ kind: 'symlink', path: `bin/${name}`, target: 'busybox' })),
    ...Array.from(modules, ([path, content]) => file(path, 0o644, content)),
    file('/etc/passwd', 0o644, 'root::0:0:root:/root:/bin/sh\n'),
    file('/init', 0o755, init),
    file(SERVER_SCRIPT_PATH, 0o644, SERVER_SCRIPT),
    file(COMMAND_SCRIPT_PATH, 0o644, COMMAND_SCRIPT),
  ];
}

/** What goes into a guest's file system beside busybox and what serves its commands. */
interface InitramfsContent {
  /** The first process; see initScript(). */
  readonly init: string;
  /** Kernel modules by their path in the guest. */
  readonly modules: ReadonlyMap<string, Uint8Array>;
}

/**
 * Path of an initramfs with this content, under a name that begins with `name`; packs it unless the cache has it.
 * @throws MissingPeerError
 */
export function packInitramfs(name: string, { init, modules }: InitramfsContent): string {
  const archive = cpioArchive(entries(requireProgram('busybox'), init, modules));
  const digest = createHash('sha256').update(archive).digest('hex').slice(0, 32);
  const path = join(cacheDirectory(), `${name}-${digest}.cpio.gz`);
  if (!existsSync(path)) writeAtomically(path, gzipSync(archive, { level: GZIP_LEVEL }));
  return path;
}

/** Path of the initramfs for a kernel. @throws MissingPeerError */
export const initramfs = ({ balloonModule }: Pick<UmlKernel, 'balloonModule'>): string =>
  packInitramfs('uml', {
    init: initScript(COMMAND_TERMINAL),
    modules: new Map([[BALLOON_MODULE, readFileSync(balloonModule)]]),
  });
