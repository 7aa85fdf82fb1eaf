/**
 * The memory of a machine of which pages come while it runs: what a migration's destination asks of it ({@link LatePages}),
 * with a thread of its own that hears of the guest's faults.
 */
import { ArrivingPlacer, type ArrivingShared } from '../memory/arriving-memory.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { LatePages } from '../migration/machine.ts';
import type { Ram } from '../migration/ram.ts';
import { WorkerClient } from '../threads/worker-client.ts';
import { workerUrl } from '../threads/worker-url.ts';
import type { FaultThreadEvent, FaultThreadRequests } from './fault-protocol.ts';

export class LateMemory implements LatePages {
  onFaults: (slots: readonly number[]) => void = () => {};
  readonly #placer: ArrivingPlacer;
  readonly #thread: WorkerClient<FaultThreadRequests, FaultThreadEvent>;
  #closing: Promise<void> | undefined;
  /** A thread that waits for a page cannot be ended, and the process not without it. */
  readonly #exit = (): void => this.#placer.close();

  private constructor(placer: ArrivingPlacer) {
    this.#placer = placer;
    process.once('exit', this.#exit);
    this.#thread = new WorkerClient({
      program: workerUrl('../vm/fault-worker', import.meta.url),
      data: {},
      news: ({ pages }) => this.onFaults(pages),
      // The guest stands still at its next fault until all pages have come, which is better than zeros.
      died: () => {},
      ended: 'no page is awaited any more',
    });
  }

  /**
   * Of the only region of `memory`; undefined where the kernel cannot, or memory of huge pages would have to come in such.
   */
  static async over({ regions }: GuestMemory): Promise<LateMemory | undefined> {
    const [{ backing }] = regions;
    if (regions.length !== 1 || backing.kind !== 'shmem') return undefined;
    let placer: ArrivingPlacer;
    try {
      placer = ArrivingPlacer.over(backing);
    } catch {
      return undefined;
    }
    backing.arriving = placer;
    const late = new LateMemory(placer);
    await late.#thread.ask('listen', placer.shared);
    return late;
  }

  /** For the threads that touch the memory. */
  get shared(): ArrivingShared {
    return this.#placer.shared;
  }

  get missing(): Int32Array {
    return this.#placer.shared.missing;
  }

  /** No thread has touched these yet. */
  forget(ram: Ram, start: number, count: number): void {
    ram.clear(start, count);
  }

  place(start: number, count: number, from: Uint8Array | undefined, at: number): void {
    this.#placer.place(start, count, from, at);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#thread.close();
    this.#placer.close();
    process.removeListener('exit', this.#exit);
  }
}
