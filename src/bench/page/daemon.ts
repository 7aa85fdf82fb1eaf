/**
 * The daemon of `bench page`: `aerostat device` in a process of its own, as people start it, with the page and the API
 * on a loopback port, and what it costs by the kernel's own account.
 */

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { DeviceGuestStatus } from '../../control/contract.ts';
import type { Control } from '../../control/operations.ts';
import { bound } from '../../peers/lifeline.ts';
import { parseAddress } from '../../server/address.ts';
import { remoteControl } from '../../server/client.ts';
import { AerostatError } from '../../sys/error.ts';
import { ownCommandLine } from '../../sys/own-program.ts';

/** Far above what starting and ending take. */
const PATIENCE_MS = 30_000;
const LOOK_MS = 10;
/** Clock ticks of /proc/PID/stat (USER_HZ). */
const TICK_MS = 10;

interface PageDaemonOptions {
  readonly guests: readonly string[];
  /** Further options of `aerostat device`. */
  readonly words?: readonly string[];
}

export class PageDaemon {
  readonly token = randomBytes(24).toString('base64url');
  readonly #directory = mkdtempSync(join(tmpdir(), 'aerostat-page-'));
  readonly #child: ChildProcessByStdio<null, null, Readable>;
  #log = '';

  private constructor({ guests, words = [] }: PageDaemonOptions) {
    const sockets = guests.flatMap(name => ['--socket-path', this.socketOf(name)]);
    const [program, ...device] = ownCommandLine('device', '--api', '127.0.0.1:0', ...sockets, ...words);
    this.#child = spawn(...bound(program, device), {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, AEROSTAT_TOKEN: this.token },
    });
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      // The address is said at the start; of the rest, the end is what might say why it failed.
      this.#log = (this.#log + text).slice(this.#origin === undefined ? 0 : -4096);
      this.#origin ??= /API on (http:\S+)/.exec(this.#log)?.[1];
    });
    process.once('exit', this.#kill);
  }

  #origin: string | undefined;

  /** @throws AerostatError AEROSTAT_BENCH when it does not come up */
  static async start(options: PageDaemonOptions): Promise<PageDaemon> {
    const daemon = new PageDaemon(options);
    try {
      for (const deadline = Date.now() + PATIENCE_MS; daemon.#origin === undefined; ) {
        if (Date.now() > deadline || daemon.ended)
          throw new AerostatError('AEROSTAT_BENCH', `the daemon does not come up: ${daemon.#log.trim()}`);
        await delay(LOOK_MS);
      }
      return daemon;
    } catch (error) {
      await daemon.close();
      throw error;
    }
  }

  /** Where page and API are. */
  get origin(): string {
    return this.#origin ?? '';
  }

  get control(): Control<DeviceGuestStatus> {
    return remoteControl(parseAddress(this.origin), { token: this.token });
  }

  socketOf(guest: string): string {
    return join(this.#directory, guest);
  }

  /** The body of an answer. @throws AerostatError AEROSTAT_BENCH when it is refused */
  async get(path: string, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
    const response = await fetch(`${this.origin}/${path}`, {
      headers: { Authorization: `Bearer ${this.token}`, ...headers },
    });
    if (response.ok || response.status === 304) return response;
    throw new AerostatError('AEROSTAT_BENCH', `the daemon refuses ${path} with status ${response.status}`);
  }

  /** What it has of the host's memory. */
  residentBytes(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024;
  }

  /** User and system time of all its threads so far (proc_pid_stat(5), fields 14 and 15). */
  cpuMs(): number {
    const fields = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  }

  /** The most memory that it had at once. */
  peakMiB(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8');
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
  }

  async close(): Promise<void> {
    process.removeListener('exit', this.#kill);
    if (!this.ended) {
      const exited = once(this.#child, 'exit');
      this.#child.kill('SIGTERM');
      const timer = setTimeout(this.#kill, PATIENCE_MS);
      await exited;
      clearTimeout(timer);
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** The process is gone, whatever ended it. */
  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  readonly #kill = (): void => {
    this.#child.kill('SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true });
  };
}
