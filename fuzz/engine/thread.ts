/**
 * A thread that feeds targets, seen from outside: campaigns are ordered one after the other, and one whose target
 * does not come back from an input ends with that input as its finding.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { workerUrl } from '../../src/threads/worker-url.ts';
import { LONG_INPUT_BYTES_MAX } from './mutator.ts';

/** No input that is merely slow keeps its thread at work for so long. This process does nothing else. */
const STUCK_CPU_MS = 10_000;
/** Nor does it wait for so long, on a machine that is busy with other programs. */
const STUCK_MS = 60_000;
const LOOK_MS = 500;

export interface FuzzThreadData {
  readonly shown: SharedArrayBuffer;
}

export interface CampaignOrder {
  readonly name: string;
  readonly seed: number;
  readonly timeMs: number;
}

export interface CampaignReport {
  readonly executions: number;
  readonly slowestMs: number;
  readonly finding: { readonly input: Uint8Array; readonly reason: string } | undefined;
}

const COUNT = 0;
const LENGTH = 1;
const HEADER_BYTES = 8;

/** The input that a target has at the moment, and how many it had. */
export class ShownInput {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory, 0, 2);
    this.#bytes = new Uint8Array(memory, HEADER_BYTES);
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer(HEADER_BYTES + LONG_INPUT_BYTES_MAX);
  }

  show(input: Uint8Array): void {
    this.#bytes.set(input);
    this.#words[LENGTH] = input.length;
    Atomics.add(this.#words, COUNT, 1);
  }

  get count(): number {
    return Atomics.load(this.#words, COUNT);
  }

  get input(): Uint8Array {
    return this.#bytes.slice(0, this.#words[LENGTH]);
  }
}

export class FuzzThread {
  #worker: Worker | undefined;
  readonly #memory = ShownInput.allocate();
  readonly #shown = new ShownInput(this.#memory);

  /** Runs a campaign. Rejects when the thread itself breaks, never for what a target does. */
  async run(order: CampaignOrder): Promise<CampaignReport> {
    const worker = this.#open();
    const before = this.#shown.count;
    const over = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const stuck = new Promise<CampaignReport>(resolve => {
      let seen = before;
      let sinceMs = performance.now();
      let sinceCpu = process.cpuUsage();
      timer = setInterval(() => {
        const { count } = this.#shown;
        const { user, system } = process.cpuUsage(sinceCpu);
        if (count !== seen) {
          seen = count;
          sinceMs = performance.now();
          sinceCpu = process.cpuUsage();
        } else if (
          seen !== before &&
          ((user + system) / 1e3 > STUCK_CPU_MS || performance.now() - sinceMs > STUCK_MS)
        ) {
          resolve(this.#stuck(before));
        }
      }, LOOK_MS);
    });
    try {
      // An 'error' of the thread rejects here, too.
      const report = once(worker, 'message', { signal: over.signal }).then(
        ([said]) => said as CampaignReport,
      );
      report.catch(() => {});
      worker.postMessage(order);
      return await Promise.race([report, stuck]);
    } finally {
      clearInterval(timer);
      over.abort();
    }
  }

  async close(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }

  #open(): Worker {
    if (this.#worker === undefined) {
      const workerData: FuzzThreadData = { shown: this.#memory };
      this.#worker = new Worker(workerUrl('./worker', import.meta.url), {
        workerData,
        // Targets open descriptors through Node and close them themselves.
        trackUnmanagedFds: false,
      });
    }
    return this.#worker;
  }

  #stuck(before: number): CampaignReport {
    const { count, input } = this.#shown;
    // The thread is lost; the next campaign gets another.
    void this.close();
    return {
      executions: count - before,
      slowestMs: STUCK_CPU_MS,
      finding: {
        input,
        reason: `did not come back after ${STUCK_CPU_MS / 1000} s of work or ${STUCK_MS / 1000} s of waiting`,
      },
    };
  }
}
