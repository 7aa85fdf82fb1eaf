/** A daemon with a keeper, as processes: it is killed as often as a test likes, and each next one goes on with its guests. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { program } from '../cli/built.ts';
import { DaemonProcess } from './daemon.ts';

export class KeptDaemon {
  /** The one that runs now. */
  daemon: DaemonProcess;
  readonly guests: readonly string[];
  /** The longest time from the end of a daemon to the next one's first answer. */
  downMsMax = 0;
  readonly #words: readonly string[];
  readonly #keeper: ChildProcess;
  readonly #directory: string;

  private constructor(
    daemon: DaemonProcess,
    guests: readonly string[],
    words: readonly string[],
    keeper: ChildProcess,
    directory: string,
  ) {
    this.daemon = daemon;
    this.guests = guests;
    this.#words = words;
    this.#keeper = keeper;
    this.#directory = directory;
  }

  static async start(guests: readonly string[], words: readonly string[] = []): Promise<KeptDaemon> {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    const socket = join(directory, 'keeper.sock');
    const keeper = spawn(process.execPath, [program, 'keep', socket], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    process.once('exit', () => keeper.kill());
    // It says so when it listens.
    await once(keeper.stderr!, 'data');
    if (!existsSync(socket)) throw new Error('the keeper does not listen');
    const all = ['--keep', socket, ...words];
    const daemon = await DaemonProcess.start(guests, all, { directory });
    return new KeptDaemon(daemon, guests, all, keeper, directory);
  }

  /** Ends the daemon and starts the next one, which has all guests and nothing against what their front-ends say. */
  async restart(signal: NodeJS.Signals): Promise<void> {
    await this.daemon.end(signal);
    const endedMs = performance.now();
    this.daemon = await DaemonProcess.start(this.guests, this.#words, { directory: this.#directory });
    this.downMsMax = Math.max(this.downMsMax, performance.now() - endedMs);
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

  async end(): Promise<void> {
    await this.daemon.end();
    this.#keeper.kill();
    if (this.#keeper.exitCode === null) await once(this.#keeper, 'exit');
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
