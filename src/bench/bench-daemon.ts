/** The threads of a daemon in the bench's own process, with one guest, whose socket is in a directory of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DeviceGuestStatus } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import { openGuestSocket } from '../hosting/guest-socket.ts';
import { GuestThreads } from '../hosting/guest-threads.ts';
import type { GuestOptions } from '../hosting/options.ts';

/** The guest's name. */
export const BENCH_GUEST = 'bench';

type BenchDaemonOptions = Pick<GuestOptions, 'profile' | 'discard' | 'without' | 'timed'>;

export class BenchDaemon {
  readonly socketPath: string;
  readonly #directory: string;
  readonly #threads: GuestThreads;

  private constructor(directory: string, socketPath: string, threads: GuestThreads) {
    this.#directory = directory;
    this.socketPath = socketPath;
    this.#threads = threads;
  }

  static async start(options: BenchDaemonOptions): Promise<BenchDaemon> {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-bench-'));
    const socketPath = join(directory, 'balloon.sock');
    const threads = new GuestThreads({ threads: 1, log: () => {} });
    try {
      const guest = { name: BENCH_GUEST, socketPath, targetBytes: 0, pollIntervalMs: 0, ...options };
      const socket = openGuestSocket(guest);
      await threads.open(guest, socket);
      await threads.ready;
      return new BenchDaemon(directory, socketPath, threads);
    } catch (error) {
      await threads.close();
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  get control(): Control<DeviceGuestStatus> {
    return this.#threads.control;
  }

  /** Milliseconds that the device has spent on decoding lists. */
  decodeMs(): Promise<number> {
    return this.#threads.decodeMs(BENCH_GUEST);
  }

  async close(): Promise<void> {
    await this.#threads.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
