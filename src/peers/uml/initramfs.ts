/**
 * The guest's file system: busybox under all its names, the balloon driver's module and the init script,
 * packed once and kept in a cache under a name that is a digest of what went in.
 */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type CpioEntry, cpioArchive } from '../cpio.ts';
import { requireProgram } from '../programs.ts';
import {
  BALLOON_MODULE,
  COMMAND_SCRIPT,
  COMMAND_SCRIPT_PATH,
  INIT_SCRIPT,
  SERVER_SCRIPT,
  SERVER_SCRIPT_PATH,
  WORK_DIRECTORY,
} from './init.ts';
import type { UmlKernel } from './kernel.ts';

/** A quick level: what is packed is read once, from memory, a moment later. */
const GZIP_LEVEL = 1;

const directory = (path: string, mode = 0o755): CpioEntry => ({ kind: 'directory', path, mode });
const file = (path: string, mode: number, content: string | Buffer): CpioEntry => ({
  kind: 'file',
  path: path.slice(1),
  mode,
  data: Buffer.from(content as string),
});
const MOUNT_POINTS = ['proc', 'sys', 'dev', 'run', 'tmp', 'root', 'lib', 'lib/modules', 'bin', 'etc'];

function entries(busybox: string, balloonModule: string): CpioEntry[] {
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
    file(BALLOON_MODULE, 0o644, readFileSync(balloonModule)),
    file('/etc/passwd', 0o644, 'root::0:0:root:/root:/bin/sh\n'),
    file('/init', 0o755, INIT_SCRIPT),
    file(SERVER_SCRIPT_PATH, 0o644, SERVER_SCRIPT),
    file(COMMAND_SCRIPT_PATH, 0o644, COMMAND_SCRIPT),
  ];
}

/**
 * A directory that only we can write: what lies there is booted without another look. A shared /tmp is
 * where somebody else could have put it before us.
 */
function cacheDirectory(): string {
  const own = process.getuid?.() ?? 0;
  const cacheHome = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  for (const path of [join(cacheHome, 'aerostat'), join(tmpdir(), `aerostat-${own}`)]) {
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      const status = lstatSync(path);
      if (!status.isDirectory() || status.uid !== own) continue;
      chmodSync(path, 0o700);
      return path;
    } catch {
      // No home, or one that is read-only: the next.
    }
  }
  throw new Error(`no directory for a cache of our own; set XDG_CACHE_HOME to one that can be written`);
}

/** Another process that reads `path` sees the whole file or none. */
function writeAtomically(path: string, content: Uint8Array): void {
  const draft = join(dirname(path), `.${randomBytes(8).toString('hex')}`);
  try {
    writeFileSync(draft, content, { mode: 0o600 });
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  }
}

/** Path of the initramfs for a kernel; packs it unless the cache has it. @throws MissingPeerError */
export function initramfs(kernel: Pick<UmlKernel, 'balloonModule'>): string {
  const archive = cpioArchive(entries(requireProgram('busybox'), kernel.balloonModule));
  const digest = createHash('sha256').update(archive).digest('hex').slice(0, 32);
  const path = join(cacheDirectory(), `uml-${digest}.cpio.gz`);
  if (!existsSync(path)) writeAtomically(path, gzipSync(archive, { level: GZIP_LEVEL }));
  return path;
}
