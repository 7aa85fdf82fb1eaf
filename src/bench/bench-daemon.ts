/** The threads of a daemon in the bench's own process, with one guest, whose socket is in a directory of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DeviceGuestStatus } from '../control/contract.ts';
import type { Control } from '../control/operations.ts';
import { openGuestSocket } from '../hosting/guest-socket.ts';
import { GuestThreads } from '../hosting/guest-threads.ts';
import type { GuestOptions } from '../hosting/options.ts';
import { UnixSocket } from '../sys/socket.ts';

/** The guest's name; of the first, where there are several. */
export const BENCH_GUEST = 'bench';
export const benchGuestName = (index: number): string =>
  index === 0 ? BENCH_GUEST : `${BENCH_GUEST}-${index + 1}`;

interface BenchDaemonOptions
  extends Pick<GuestOptions, 'profile' | 'discard' | 'without' | 'timed' | 'evictionMs'> {
  /** The guest is kept for another daemon, by a keeper that does not listen: what counts is what keeping costs the daemon. */
  readonly kept?: boolean;
  /** How many guests it has, all alike. */
  readonly guests?: number;
}

export class BenchDaemon {
  /** Of each guest. */
  readonly socketPaths: readonly string[];
  readonly #directory: string;
  readonly #threads: GuestThreads;
  readonly #keeper: readonly UnixSocket[];

  private constructor(
    directory: string,
    socketPaths: readonly string[],
    threads: GuestThreads,
    keeper: readonly UnixSocket[],
  ) {
    this.#directory = directory;
    this.socketPaths = socketPaths;
    this.#threads = threads;
    this.#keeper = keeper;
  }

  static async start({ kept = false, guests = 1, ...options }: BenchDaemonOptions): Promise<BenchDaemon> {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-bench-'));
    const socketPaths = Array.from({ length: guests }, (_, index) =>
      join(directory, `${benchGuestName(index)}.sock`),
    );
    const keeper = kept ? UnixSocket.pair() : [];
    const threads = new GuestThreads({
      threads: 1,
      log: () => {},
      keeper: keeper[0] && { kind: 'process', fd: keeper[0].fd.number },
    });
    try {
      for (const [index, socketPath] of socketPaths.entries()) {
        const name = benchGuestName(index);
        const guest = { name, socketPath, targetBytes: 0, pollIntervalMs: 0, ...options };
        await threads.open(guest, openGuestSocket(guest));
      }
      await threads.ready;
      return new BenchDaemon(directory, socketPaths, threads, keeper);
    } catch (error) {
      await threads.close();
      for (const end of keeper) end.close();
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  get socketPath(): string {
    return this.socketPaths[0];
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
    for (const end of this.#keeper) end.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
