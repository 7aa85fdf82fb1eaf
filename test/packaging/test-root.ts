/**
 * A root directory with as much of a Debian system as our package needs: dpkg's database, which knows of the packages that
 * it depends on, and the few programs that run there, with their libraries. Gone when {@link TestRoot.remove} returns.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'vitest';

const DIRECTORIES = ['dev', 'etc', 'proc', 'run', 'tmp', 'var/lib/dpkg/info', 'var/lib/dpkg/updates'];

/** What maintainer scripts and the program itself are run by; those that are not installed here are done without. */
const PROGRAMS = ['sh', 'env', 'systemd-sysusers'];

/** Why no such root can be used here; undefined when one can. */
export function whyNoTestRoot(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root may install packages and change roots';
  const { status } = spawnSync('unshare', ['--mount', 'mount', '--rbind', '/proc', '/proc']);
  return status === 0 ? undefined : 'mounts of its own are not allowed here';
}

/** Of a system service; dpkg wants ldconfig and its like in reach. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The owner of files whose user or group was not made; Debian's convention. */
const UNKNOWN_ID = 65_534;

export interface Answered {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class TestRoot {
  readonly path = mkdtempSync(join(tmpdir(), 'aerostat-root-'));

  constructor() {
    chmodSync(this.path, 0o755);
    for (const directory of ['bin', 'sbin', 'lib', 'lib64']) {
      mkdirSync(this.at(`usr/${directory}`), { recursive: true });
      symlinkSync(`usr/${directory}`, this.at(directory));
    }
    for (const directory of DIRECTORIES) mkdirSync(this.at(directory), { recursive: true });
    chmodSync(this.at('tmp'), 0o1777);
    writeFileSync(this.at('etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
    writeFileSync(this.at('etc/group'), 'root:x:0:\n');
    // Scripts only write to it, so a plain file does; making a device needs rights that a test may lack.
    writeFileSync(this.at('dev/null'), '');
    for (const file of ['status', 'available']) writeFileSync(this.at(`var/lib/dpkg/${file}`), '');
    // What services start after, and what they belong to.
    const units = '/usr/lib/systemd/system';
    for (const unit of existsSync(units) ? readdirSync(units) : []) {
      if (/\.(target|slice)$/.test(unit)) this.#copy(join(units, unit), join(units, unit), 0o644);
    }
    this.#install('node', process.execPath);
    for (const name of PROGRAMS) {
      const program = ['/usr/bin', '/bin']
        .map(directory => join(directory, name))
        .find(path => existsSync(path));
      if (program !== undefined) this.#install(name, program);
    }
  }

  at(path: string): string {
    return join(this.path, path);
  }

  read(path: string): string {
    return readFileSync(this.at(path), 'utf8');
  }

  has(path: string): boolean {
    return existsSync(this.at(path));
  }

  /** Lets dpkg believe that a package is installed, in this version. */
  pretend(name: string, version: string): void {
    const described = [
      `Package: ${name}`,
      'Status: install ok installed',
      'Architecture: all',
      'Maintainer: none',
      `Version: ${version}`,
      'Description: not really here',
    ];
    const others = this.read('var/lib/dpkg/status')
      .split('\n\n')
      .filter(entry => entry.trim() !== '' && !entry.includes(`Package: ${name}\n`));
    writeFileSync(this.at('var/lib/dpkg/status'), `${[...others, described.join('\n')].join('\n\n')}\n`);
    writeFileSync(this.at(`var/lib/dpkg/info/${name}.list`), '');
  }

  dpkg(...words: string[]): Answered {
    return spawnSync('dpkg', [`--root=${this.path}`, ...words], {
      encoding: 'utf8',
      env: { ...process.env, PATH, LC_ALL: 'C' },
    });
  }

  /** Runs a command with this as its root, and waits for its end. */
  run(command: string, ...words: string[]): Answered {
    return spawnSync('chroot', [this.path, command, ...words], {
      encoding: 'utf8',
      env: { PATH },
    });
  }

  /**
   * Starts a service as its unit says, with this as its root: its command as its user, its runtime directory made, and
   * nothing in reach but what is here, /proc and /dev.
   */
  start(unit: string, instance: string): ChildProcess {
    const text = this.read(`usr/lib/systemd/system/${unit}`)
      .replaceAll('%i', instance)
      .replaceAll('\\\n', ' ');
    const said = (key: string) =>
      new RegExp(`^${key}=(.*)$`, 'm').exec(text)?.[1] ?? expect.fail(`${unit} says no ${key}`);
    const uid = this.#idOf('passwd', said('User'));
    const gid = this.#idOf('group', said('Group'));
    const directory = this.at(`run/${said('RuntimeDirectory')}`);
    mkdirSync(directory, { recursive: true });
    chmodSync(directory, Number.parseInt(said('RuntimeDirectoryMode'), 8));
    chownSync(directory, uid, gid);
    const command = said('ExecStart')
      .split(/\s+/)
      .filter(word => word !== '' && word !== '$OPTIONS');
    const script = `umask ${said('UMask')}; mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot --userspec=${uid}:${gid} "$0" "$@"`;
    return spawn('unshare', ['--mount', 'sh', '-c', script, this.path, ...command], {
      env: { PATH },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  }

  remove(): void {
    rmSync(this.path, { recursive: true });
  }

  /** The number of a user or a group, by the root's own files; UNKNOWN_ID where it was not made. */
  #idOf(file: 'passwd' | 'group', name: string): number {
    const line = this.read(`etc/${file}`)
      .split('\n')
      .find(entry => entry.startsWith(`${name}:`));
    return Number(line?.split(':')[2] ?? UNKNOWN_ID);
  }

  /** A program of this machine's, with the libraries that it is linked with, where they are here. */
  #install(name: string, program: string): void {
    this.#copy(program, `usr/bin/${name}`);
    const { stdout } = spawnSync('ldd', [realpathSync(program)], { encoding: 'utf8' });
    for (const [, library] of stdout.matchAll(/(?:=> |^\s*)(\/\S+) \(/gm)) this.#copy(library, library);
  }

  #copy(from: string, to: string, mode = 0o755): void {
    const target = this.at(to);
    if (existsSync(target)) return;
    mkdirSync(dirname(target), { recursive: true });
    copyFileSync(realpathSync(from), target);
    chmodSync(target, mode);
  }
}
