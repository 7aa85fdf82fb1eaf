/** A daemon with a keeper, as processes: it is killed as often as a test likes, and each next one goes on with its guests. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { defined } from '../../src/sys/defined.ts';
import { program } from '../cli/built.ts';
import { DaemonProcess } from './daemon.ts';

/** A guest whose device is another than the others'. */
interface GuestTable {
  readonly name: string;
  readonly profile: string;
  readonly without: readonly string[];
}

/** The words by which a daemon serves them: those that are called by name, or those of a file. */
function wordsFor(guests: readonly (string | GuestTable)[], directory: string) {
  const names = guests.flatMap(guest => (typeof guest === 'string' ? [guest] : []));
  const tables = guests.flatMap(guest => (typeof guest === 'string' ? [] : [guest]));
  if (tables.length === 0) return { names, words: [] };
  const path = join(directory, 'aerostat.toml');
  const text = tables.map(
    ({ name, profile, without }) =>
      `[guests.${name}]\nsocket = "${name}.sock"\nprofile = "${profile}"\nwithout = ${JSON.stringify(without)}\n`,
  );
  writeFileSync(path, text.join(''));
  return { names, words: ['--config', path] };
}

async function startKeeper(socket: string): Promise<ChildProcess> {
  const keeper = spawn(process.execPath, [program, 'keep', socket], { stdio: ['ignore', 'ignore', 'pipe'] });
  // It says so when it listens.
  await once(keeper.stderr!, 'data');
  if (!existsSync(socket)) throw new Error('the keeper does not listen');
  return keeper;
}

/** Far above what an upgrade takes. */
const PATIENCE_MS = 30_000;

function endProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

/** A child whose parent has gone may wait a moment for another one to look at it. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

export class KeptDaemon {
  /** The one that runs now. */
  daemon: DaemonProcess;
  readonly guests: readonly string[];
  /** The longest time from the end of a daemon to the next one's first answer. */
  downMsMax = 0;
  /** The longest time that handing over took: no ring stood still for longer. */
  handOverMsMax = 0;
  /** The process that serves, where another one has taken the daemon's place. */
  #pid: number | undefined;
  /** Of those, the ones that are named on the command line. */
  readonly #named: readonly string[];
  readonly #words: readonly string[];
  #keeper: ChildProcess;
  readonly #directory: string;

  private constructor(
    daemon: DaemonProcess,
    guests: readonly string[],
    named: readonly string[],
    words: readonly string[],
    keeper: ChildProcess,
    directory: string,
  ) {
    this.daemon = daemon;
    this.guests = guests;
    this.#named = named;
    this.#words = words;
    this.#keeper = keeper;
    this.#directory = directory;
    process.once('exit', this.#endAll);
  }

  static async start(
    guests: readonly (string | GuestTable)[],
    words: readonly string[] = [],
  ): Promise<KeptDaemon> {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    const socket = join(directory, 'keeper.sock');
    const keeper = await startKeeper(socket);
    const served = wordsFor(guests, directory);
    const all = ['--keep', socket, ...words, ...served.words];
    const daemon = await DaemonProcess.start(served.names, all, { directory });
    const names = guests.map(guest => (typeof guest === 'string' ? guest : guest.name));
    return new KeptDaemon(daemon, names, served.names, all, keeper, directory);
  }

  /** The keeper's process. */
  get keeperPid(): number {
    return this.#keeper.pid!;
  }

  /** Another one, which goes on when the daemon ends; of `program`, where one is given. */
  standBy(program?: string): Promise<DaemonProcess> {
    return DaemonProcess.start(this.#named, this.#words, {
      directory: this.#directory,
      standsBy: true,
      ...defined({ program }),
    });
  }

  /**
   * Ends the daemon and starts the next one, if none stands by, which has all guests and nothing against what their front-ends
   * say.
   */
  async restart(signal: NodeJS.Signals, standby?: DaemonProcess): Promise<void> {
    await this.#endDaemon(signal);
    const endedMs = performance.now();
    if (standby !== undefined) await standby.answers();
    this.daemon =
      standby ?? (await DaemonProcess.start(this.#named, this.#words, { directory: this.#directory }));
    this.downMsMax = Math.max(this.downMsMax, performance.now() - endedMs);
    await this.#servesAll();
  }

  /** Another process takes the daemon's place, which has all guests and nothing against what their front-ends say. */
  async upgrade(): Promise<void> {
    const former = this.#pid ?? this.daemon.child.pid!;
    const { pid, handOverMs, guests } = await this.daemon.control.upgrade({ timeoutMs: PATIENCE_MS });
    this.#pid = pid;
    this.daemon.replaced = true;
    this.handOverMsMax = Math.max(this.handOverMsMax, handOverMs);
    expect(guests).toBe(this.guests.length);
    await this.daemon.until(
      () => !isAlive(former),
      () => `process ${former} does not end: ${this.daemon.log}`,
    );
    await this.#servesAll();
  }

  async #endDaemon(signal: NodeJS.Signals): Promise<void> {
    const pid = this.#pid;
    this.#pid = undefined;
    await this.daemon.end(signal);
    if (pid === undefined) return;
    endProcess(pid, signal);
    const { daemon } = this;
    await daemon.until(
      () => !isAlive(pid),
      () => `process ${pid} does not end: ${daemon.log}`,
    );
  }

  async #servesAll(): Promise<void> {
    for (const name of this.guests) {
      const { connected, counters } = await this.daemon.control.guest(name);
      const { badRequests, badBuffers, brokenRings } = counters;
      expect({ connected, badRequests, badBuffers, brokenRings }, this.daemon.log).toEqual({
        connected: true,
        badRequests: 0,
        badBuffers: 0,
        brokenRings: 0,
      });
    }
  }

  /** Daemon and keeper are killed at once, and others started that know nothing of their guests. */
  async loseAll(): Promise<void> {
    const gone = once(this.#keeper, 'exit');
    this.#keeper.kill('SIGKILL');
    await Promise.all([gone, this.#endDaemon('SIGKILL')]);
    this.#keeper = await startKeeper(join(this.#directory, 'keeper.sock'));
    this.daemon = await DaemonProcess.start(this.#named, this.#words, { directory: this.#directory });
  }

  readonly #endAll = (): void => {
    this.#keeper.kill();
    if (this.#pid !== undefined) endProcess(this.#pid, 'SIGKILL');
  };

  async end(): Promise<void> {
    process.removeListener('exit', this.#endAll);
    await this.#endDaemon('SIGTERM');
    this.#keeper.kill();
    if (this.#keeper.exitCode === null) await once(this.#keeper, 'exit');
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
