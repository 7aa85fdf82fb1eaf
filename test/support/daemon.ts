/**
 * The daemon as a person starts it: `bin/aerostat device` in a process of its own, steered through its API.
 * Gone, with everything it made, when {@link DaemonProcess.stop} returns.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { DeviceGuestStatus } from '../../src/control/contract.ts';
import type { Control } from '../../src/control/operations.ts';
import { parseAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import type { Descriptor } from '../../src/sys/fd.ts';

const PROGRAM = fileURLToPath(new URL('../../bin/aerostat', import.meta.url));
/** Far above what anything here takes; only what hangs reaches it. */
const PATIENCE_MS = 60_000;

export interface DaemonSurroundings {
  /** Where its sockets are; a directory of its own unless given. */
  readonly directory?: string;
  /** Descriptors that it finds as 3, 4 and so on. */
  readonly inherits?: readonly Descriptor[];
  /** The program that is started, and started anew where another process takes its place. */
  readonly program?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** A service manager passes what it inherits: LISTEN_PID is its process. */
  readonly listens?: boolean;
  /** It stands by: another daemon answers. */
  readonly standsBy?: boolean;
}

export class DaemonProcess {
  readonly control: Control<DeviceGuestStatus>;
  readonly directory: string;
  readonly child: ChildProcess;
  log = '';

  private constructor(directory: string, child: ChildProcess) {
    this.directory = directory;
    this.child = child;
    this.control = remoteControl(parseAddress(join(directory, 'api.sock')));
    child.stderr?.setEncoding('utf8').on('data', text => {
      this.log += text;
    });
  }

  /** Starts a daemon with a socket for each of `guests`; `words` are further options. */
  static async start(
    guests: readonly string[],
    words: readonly string[] = [],
    {
      directory: given,
      inherits = [],
      program = PROGRAM,
      env = {},
      listens = false,
      standsBy = false,
    }: DaemonSurroundings = {},
  ): Promise<DaemonProcess> {
    const directory = given ?? mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    const sockets = guests.flatMap(name => [
      '--socket-path',
      join(directory, `${name}.sock`),
      '--name',
      name,
    ]);
    const [file, ...first] = listens
      ? ['/bin/sh', '-c', 'LISTEN_PID=$$ exec "$0" "$@"', process.execPath]
      : [process.execPath];
    const child = spawn(
      file,
      [
        ...first,
        program,
        'device',
        ...['--api', join(directory, 'api.sock')],
        ...sockets,
        ...words,
        ...(standsBy ? ['--standby'] : []),
      ],
      {
        stdio: ['ignore', 'ignore', 'pipe', ...inherits.map(fd => fd.number)],
        env: { ...process.env, ...env },
      },
    );
    const daemon = new DaemonProcess(directory, child);
    process.once('exit', daemon.#killAtExit);
    try {
      if (standsBy) {
        await daemon.until(
          () => daemon.log.includes('standing by'),
          () => `the daemon does not stand by: ${daemon.log}`,
        );
      } else await daemon.answers();
      return daemon;
    } catch (error) {
      await (given === undefined ? daemon.stop('SIGKILL') : daemon.end('SIGKILL'));
      throw error;
    }
  }

  /** A socket that is there may be left of a daemon that was killed; one at which this process answers is not. */
  async answers(): Promise<void> {
    const isThere = () =>
      this.control.daemon().then(
        () => true,
        () => false,
      );
    await this.until(isThere, () => `the daemon does not come up: ${this.log}`);
  }

  /** The process is gone, whatever ended it. */
  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  socketOf(guest: string): string {
    return join(this.directory, `${guest}.sock`);
  }

  /** Another process has taken its place, and is asked through its API. */
  replaced = false;

  /** Waits until `met` is true. */
  async until(
    met: () => boolean | Promise<boolean>,
    complaint: () => string | Promise<string>,
  ): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await met())) {
      if (Date.now() > deadline || (this.ended && !this.replaced)) throw new Error(await complaint());
      await delay(10);
    }
  }

  async untilGuest(name: string, met: (guest: DeviceGuestStatus) => boolean): Promise<DeviceGuestStatus> {
    let guest = await this.control.guest(name);
    await this.until(
      async () => {
        guest = await this.control.guest(name);
        return met(guest);
      },
      () => `never came to it: ${JSON.stringify(guest)}\n${this.log}`,
    );
    return guest;
  }

  /** Sets a target and waits until the guest and the host have come to it. */
  async reach(name: string, targetBytes: number): Promise<DeviceGuestStatus> {
    await this.control.change(name, { targetBytes, force: true });
    return this.untilGuest(name, guest => guest.actualBytes === targetBytes && guest.pendingBytes === 0);
  }

  /** User and system time of the process so far, in milliseconds. */
  cpuMs(): number {
    const fields = readFileSync(`/proc/${this.child.pid}/stat`, 'utf8').split(') ')[1].split(' ');
    const ticks = Number(fields[11]) + Number(fields[12]);
    return ticks * 10;
  }

  residentBytes(): number {
    const status = readFileSync(`/proc/${this.child.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024;
  }

  /** Asks it to end, and takes away what is left of it; resolves with its exit code. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    await this.end(signal);
    rmSync(this.directory, { recursive: true, force: true });
    return this.child.exitCode;
  }

  /** Asks it to end, and leaves its directory as it leaves it; resolves with its exit code. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    process.removeListener('exit', this.#killAtExit);
    if (!this.ended) {
      const exited = once(this.child, 'exit');
      this.child.kill(signal);
      const timer = setTimeout(() => this.child.kill('SIGKILL'), PATIENCE_MS);
      await exited;
      clearTimeout(timer);
    }
    return this.child.exitCode;
  }

  readonly #killAtExit = (): void => {
    this.child.kill('SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  };
}
