/**
 * Profile `shared` in `bench inflate`: the host takes the balloon's bytes in huge frames out of an allocator that the guest
 * has lent, and the guest does nothing. What the others spend on lists is here the changing of the frames' words
 * (`decodingMs`); what the discards cost is apart (`discardingMs`), and so is the time that the guest's thread had meanwhile
 * (`guestMs`).
 */
import { Worker } from 'node:worker_threads';
import { FRAME_BYTES } from '../../balloon/shared-frames.ts';
import { AerostatError } from '../../sys/error.ts';
import { workerUrl } from '../../threads/worker-url.ts';
import { BENCH_GUEST, BenchDaemon } from '../bench-daemon.ts';
import { progressOf, reachTarget } from '../reach.ts';
import type { InflateSample } from './inflate.ts';
import type { FrameState, FromSharedGuest, SharedGuestData, ToSharedGuest } from './shared-protocol.ts';

interface SharedMeasureOptions {
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly touched: boolean;
  readonly signal: AbortSignal;
}

/** Boots a guest and a daemon, holds the balloon's bytes, gives them back, and takes the floor. */
export async function measureShared(options: SharedMeasureOptions): Promise<InflateSample> {
  const { memoryBytes, balloonBytes, touched, signal } = options;
  const bytes = Math.floor(balloonBytes / FRAME_BYTES) * FRAME_BYTES;
  const daemon = await BenchDaemon.start({ profile: 'shared', discard: 'auto', without: ['page-reporting'] });
  const guest = new GuestThread({ socketPath: daemon.socketPath, memoryBytes, touched });
  try {
    const { control } = daemon;
    const started = await guest.state();
    const before = await control.guest(BENCH_GUEST);
    const decodedMs = await daemon.decodeMs();
    const idle = await guest.ask('state');
    const full = await reachTarget(control, bytes, signal);
    const taken = await guest.ask('state');
    const decodingMs = (await daemon.decodeMs()) - decodedMs;
    const emptied = await reachTarget(control, 0, signal);
    const floor = await guest.floor();
    if (taken.held * FRAME_BYTES !== bytes || started.held > 0)
      throw new AerostatError(
        'AEROSTAT_BENCH',
        `the host holds ${taken.held} frames of ${bytes / FRAME_BYTES}`,
      );
    return {
      elapsedMs: progressOf(full).drainedMs,
      // The question itself is among it.
      guestMs: Math.max(0, taken.ranMs - idle.ranMs),
      deflateMs: progressOf(emptied).reachedMs,
      allocatingMs: 0,
      encodingMs: 0,
      waitingMs: 0,
      decodingMs,
      discardingMs: full.counters.discardMs - before.counters.discardMs,
      floorMs: floor.ms,
      kicks: taken.woken - idle.woken,
      buffers: 0,
      listBytes: 0,
      runs: floor.runs,
      punches: full.counters.punches - before.counters.punches,
      fragmentation: 0,
    };
  } finally {
    await guest.end();
    await daemon.close();
  }
}

class GuestThread {
  readonly #worker: Worker;
  readonly #said: FromSharedGuest[] = [];
  readonly #exited: Promise<void>;
  #failure: Error | undefined;
  #wake: () => void = () => {};

  constructor(data: SharedGuestData) {
    this.#worker = new Worker(workerUrl('./shared-guest', import.meta.url), { workerData: data });
    this.#worker.on('message', (message: FromSharedGuest) => {
      this.#said.push(message);
      this.#wake();
    });
    this.#worker.on('error', error => {
      this.#failure = error;
      this.#wake();
    });
    this.#exited = new Promise(resolve => {
      this.#worker.once('exit', () => {
        this.#failure ??= new AerostatError('AEROSTAT_BENCH', 'the guest ended');
        this.#wake();
        resolve();
      });
    });
  }

  async #next(): Promise<FromSharedGuest> {
    for (;;) {
      const message = this.#said.shift();
      if (message !== undefined) return message;
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
  }

  /** What it says next of its frames. */
  async state(): Promise<FrameState> {
    const message = await this.#next();
    if (message.kind === 'state') return message.state;
    throw new AerostatError('AEROSTAT_BENCH', `the guest said ${message.kind} instead of its state`);
  }

  ask(question: ToSharedGuest & 'state'): Promise<FrameState> {
    this.#worker.postMessage(question);
    return this.state();
  }

  async floor(): Promise<{ readonly ms: number; readonly runs: number }> {
    this.#worker.postMessage('floor' satisfies ToSharedGuest);
    const message = await this.#next();
    if (message.kind === 'floor') return message;
    throw new AerostatError('AEROSTAT_BENCH', `the guest said ${message.kind} instead of its floor`);
  }

  async end(): Promise<void> {
    if (this.#failure === undefined) this.#worker.postMessage('end' satisfies ToSharedGuest);
    await this.#exited;
  }
}
