/** A daemon in the bench's own process, with one guest, whose socket is in a directory of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DeviceGuestStatus } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import { startDaemon } from '../daemon/daemon.ts';
import type { Daemon } from '../daemon/options.ts';
import type { GuestOptions } from '../hosting/options.ts';

/** The guest's name. */
export const BENCH_GUEST = 'bench';

type BenchDaemonOptions = Pick<GuestOptions, 'profile' | 'discard' | 'without' | 'timed'>;

export class BenchDaemon {
  readonly socketPath: string;
  readonly #directory: string;
  readonly #daemon: Daemon;

  private constructor(directory: string, socketPath: string, daemon: Daemon) {
    this.#directory = directory;
    this.socketPath = socketPath;
    this.#daemon = daemon;
  }

  static async start(options: BenchDaemonOptions): Promise<BenchDaemon> {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-bench-'));
    const socketPath = join(directory, 'balloon.sock');
    try {
      const guest = { name: BENCH_GUEST, socketPath, targetBytes: 0, pollIntervalMs: 0, ...options };
      return new BenchDaemon(directory, socketPath, await startDaemon({ guests: [guest], log: () => {} }));
    } catch (error) {
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  get control(): Control<DeviceGuestStatus> {
    return this.#daemon.control;
  }

  async close(): Promise<void> {
    await this.#daemon.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
