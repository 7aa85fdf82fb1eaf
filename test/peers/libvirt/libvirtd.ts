/**
 * A libvirtd of a test's own: with its own configuration, sockets and domains below one directory, and without the rights of
 * the host. It is no system service, and nothing of it is left when it was ended.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomInt, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { bound } from '../../../src/peers/lifeline.ts';

const PATIENCE_MS = 60_000;

/** libvirtd serves the whole host when root starts it; in a user namespace in which it is another user, its user alone. */
const UNPRIVILEGED = ['unshare', '--user', '--map-user=65534', '--map-group=65534'];
/** A user without rights, outside of it. */
const ANOTHER_ID = 65534;
const IDS = ['--reuid', String(ANOTHER_ID), '--regid', String(ANOTHER_ID)];
const AS_ANOTHER = ['setpriv', '--pdeathsig', 'KILL', '--clear-groups', ...IDS];
/** What userfaultfd takes; QEMU inherits it. */
const FAULT_RIGHTS = ['--inh-caps', '+sys_ptrace', '--ambient-caps', '+sys_ptrace'];
const CAP_SYS_PTRACE = 19n;

/** Whether a libvirtd can be started here whose QEMUs may watch their page faults. */
export function mayWatchFaults(): boolean {
  const rights = /^CapEff:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0';
  return process.getuid?.() === 0 && ((BigInt(`0x${rights}`) >> CAP_SYS_PTRACE) & 1n) === 1n;
}

interface LibvirtdOptions {
  /** Runs as another user of this machine, its QEMUs with userfaultfd or without ({@link mayWatchFaults}). */
  readonly faults?: 'allowed' | 'denied';
  /** Is also reached at this port of loopback, by any user of this machine. */
  readonly tcpPort?: number;
}

/** Above the ports that the kernel gives to connections; libvirtds of tests that run at the same time have others. */
const PORTS_FROM = 61_000;
const PORTS_TO = 65_400;
const PORTS_EACH = 8;

function migrationPorts(): readonly string[] {
  const first = PORTS_FROM + PORTS_EACH * randomInt((PORTS_TO - PORTS_FROM) / PORTS_EACH);
  return [`migration_port_min = ${first}`, `migration_port_max = ${first + PORTS_EACH - 1}`];
}

export class Libvirtd {
  readonly directory = mkdtempSync(join(tmpdir(), 'lv-'));
  readonly #env: NodeJS.ProcessEnv;
  readonly #faults: LibvirtdOptions['faults'];
  readonly #tcpPort: number | undefined;
  #child: ChildProcess | undefined;

  constructor({ faults, tcpPort }: LibvirtdOptions = {}) {
    this.#tcpPort = tcpPort;
    this.#faults = faults;
    const folder = (name: string): string => {
      const path = join(this.directory, name);
      mkdirSync(path, { recursive: true });
      return path;
    };
    this.#env = {
      PATH: process.env.PATH,
      HOME: folder('home'),
      XDG_RUNTIME_DIR: folder('run'),
      XDG_CONFIG_HOME: folder('config'),
      XDG_CACHE_HOME: folder('cache'),
      XDG_DATA_HOME: folder('data'),
    };
    const settings = [
      'stdio_handler = "file"',
      'security_driver = "none"',
      'cgroup_controllers = []',
      'remember_owner = 0',
      ...migrationPorts(),
      ...(faults === 'allowed' ? ['clear_emulator_capabilities = 0'] : []),
    ];
    writeFileSync(join(folder('config/libvirt'), 'qemu.conf'), `${settings.join('\n')}\n`);
    // Two of them are two hosts.
    const own = ['auth_unix_ro = "none"', 'auth_unix_rw = "none"', `host_uuid = "${randomUUID()}"`];
    if (tcpPort !== undefined) {
      own.push('listen_tls = 0', 'listen_tcp = 1', 'auth_tcp = "none"');
      own.push('listen_addr = "127.0.0.1"', `tcp_port = "${tcpPort}"`);
    }
    writeFileSync(join(this.directory, 'libvirtd.conf'), `${own.join('\n')}\n`);
  }

  get uri(): string {
    return `qemu:///session?socket=${this.#socket}`;
  }

  /** As another libvirtd of this machine reaches it: one without a word of the way is its own host to it. */
  get uriForOthers(): string {
    return this.uri.replace('qemu:', 'qemu+unix:');
  }

  /** Over TCP, as other hosts reach it. */
  get tcpUri(): string {
    return `qemu+tcp://127.0.0.1:${this.#tcpPort}/session`;
  }

  get pid(): number {
    return this.#child?.pid as number;
  }

  async start(): Promise<void> {
    rmSync(this.#socket, { force: true });
    const words = [
      'libvirtd',
      '-f',
      join(this.directory, 'libvirtd.conf'),
      '-p',
      join(this.directory, 'pid'),
      ...(this.#tcpPort === undefined ? [] : ['--listen']),
    ];
    const command = process.getuid?.() === 0 ? [...this.#unprivileged, ...words] : words;
    if (this.#faults !== undefined) this.#give();
    const [program, args] = bound(command[0], command.slice(1));
    this.#child = spawn(program, args, { env: this.#env, stdio: 'ignore' });
    const deadline = Date.now() + PATIENCE_MS;
    while (!existsSync(this.#socket)) {
      if (Date.now() > deadline || this.#child.exitCode !== null)
        throw new Error('libvirtd does not come up');
      await delay(20);
    }
  }

  get #unprivileged(): readonly string[] {
    if (this.#faults === undefined) return UNPRIVILEGED;
    return this.#faults === 'allowed' ? [...AS_ANOTHER, ...FAULT_RIGHTS] : AS_ANOTHER;
  }

  /** Its files are those of the user that it runs as. */
  #give(): void {
    const below = readdirSync(this.directory, { recursive: true, encoding: 'utf8' });
    for (const path of ['', ...below]) lchownSync(join(this.directory, path), ANOTHER_ID, ANOTHER_ID);
  }

  /** Its domains run on. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  /** Starts a domain that is gone when it ends. */
  create(xml: string, ...words: readonly string[]): void {
    this.#read('create', xml, words);
  }

  /** Keeps the definition of a domain. */
  define(xml: string): void {
    this.#read('define', xml, []);
  }

  #read(how: string, xml: string, words: readonly string[]): void {
    const file = join(this.directory, 'domain.xml');
    writeFileSync(file, xml);
    this.virsh(how, file, ...words);
  }

  virsh(...words: string[]): string {
    return execFileSync('virsh', ['-c', this.uri, ...words], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  }

  /** Ends it and its domains, whatever state they are in. */
  async end(): Promise<void> {
    await this.kill();
    const running = join(this.directory, 'run/libvirt/qemu/run');
    const files = existsSync(running) ? readdirSync(running).filter(name => name.endsWith('.pid')) : [];
    for (const file of files) {
      const pid = Number(readFileSync(join(running, file), 'latin1'));
      try {
        if (readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(this.directory))
          process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended.
      }
    }
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 10 });
  }

  get #socket(): string {
    return join(this.directory, 'run/libvirt/libvirt-sock');
  }
}
