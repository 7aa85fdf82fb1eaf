/** The guest of `bench inflate` as the bench sees it: its thread, what it says in turn, and inflations that lead up to one. */
import { Worker } from 'node:worker_threads';
import { workerUrl } from '../../threads/worker-url.ts';
import { BENCH_GUEST, type BenchDaemon } from '../bench-daemon.ts';
import { Mailbox } from '../mailbox.ts';
import { drained, progressOf } from '../reach.ts';
import type { FromInflateGuest, InflateGuestData, ToInflateGuest } from './guest.ts';

/** One that is done ends in this time, or is ended. */
const END_MS_MAX = 2000;

export class GuestThread {
  readonly #worker: Worker;
  readonly #mailbox: Mailbox<FromInflateGuest>;
  readonly #exited: Promise<void>;

  constructor(data: InflateGuestData, signal: AbortSignal) {
    this.#worker = new Worker(workerUrl('./guest', import.meta.url), { workerData: data });
    this.#mailbox = new Mailbox('the guest', signal);
    this.#worker.on('message', (message: FromInflateGuest) => this.#mailbox.put(message));
    this.#worker.on('error', ({ message }) => this.#mailbox.end(message));
    this.#exited = new Promise(resolve => {
      this.#worker.once('exit', () => {
        this.#mailbox.end();
        resolve();
      });
    });
  }

  tell(message: ToInflateGuest): void {
    this.#worker.postMessage(message);
  }

  /** @throws as {@link Mailbox.next} does */
  next<Kind extends FromInflateGuest['kind']>(kind: Kind) {
    return this.#mailbox.next(kind);
  }

  /** Waits for a guest that is done, and ends one that is not. */
  async end(): Promise<void> {
    const timer = setTimeout(() => void this.#worker.terminate(), this.#mailbox.over ? 0 : END_MS_MAX);
    await this.#exited;
    clearTimeout(timer);
  }
}

/** Inflations and their deflations; milliseconds of each from the wish until the host had all of the memory. */
export async function cycles(
  count: number,
  guest: GuestThread,
  control: BenchDaemon['control'],
  balloonBytes: number,
  signal: AbortSignal,
): Promise<number[]> {
  const times: number[] = [];
  while (times.length < count) times.push(await cycle(guest, control, balloonBytes, signal));
  return times;
}

async function cycle(
  guest: GuestThread,
  control: BenchDaemon['control'],
  balloonBytes: number,
  signal: AbortSignal,
): Promise<number> {
  await guest.next('ready');
  await control.change(BENCH_GUEST, { targetBytes: balloonBytes, force: true });
  await guest.next('settled');
  const full = await drained(() => control.guest(BENCH_GUEST), signal);
  guest.tell('drained');
  await guest.next('written');
  await control.change(BENCH_GUEST, { targetBytes: 0 });
  await guest.next('settled');
  return progressOf(full).drainedMs;
}
