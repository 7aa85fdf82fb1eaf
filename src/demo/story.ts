/**
 * The demonstration's story, for any kind of guest: it uses memory and frees it, the balloon takes that memory
 * and the host has it back, the balloon lets go and the guest uses it again. Knows neither terminals nor how a
 * guest is started.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { isSettled } from '../control/judgement.ts';
import type { Control } from '../control/operations.ts';
import { AerostatError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';

/** A guest that does as it is told. */
export interface DemoGuest {
  /** By which the daemon knows it. */
  readonly name: string;
  /** Writes to `bytes` of its memory and keeps it. */
  use(bytes: number): Promise<void>;
  /** Frees what {@link use} took. */
  free(): Promise<void>;
  /** Free memory as the guest itself sees it. */
  freeBytes(): Promise<number>;
}

export interface DemoSample {
  readonly atMs: number;
  readonly guestFreeBytes: number;
  readonly balloonBytes: number;
  readonly residentBytes: number;
}

export interface DemoStep extends DemoSample {
  readonly title: string;
  /** How long the step took. */
  readonly elapsedMs: number;
}

export interface DemoOptions {
  readonly control: Control;
  readonly guest: DemoGuest;
  /** What the guest uses, and the balloon takes. */
  readonly bytes: number;
  readonly signal: AbortSignal;
  readonly begin: (title: string) => void;
  readonly end: (step: DemoStep) => void;
}

/** Between two looks at guest and host. */
export const SAMPLE_INTERVAL_MS = 100;
/** Time that the chart shows of every state after it was reached. */
const REST_MS = 700;
const STALL_MS = 60_000;

export async function tellStory(options: DemoOptions): Promise<{ steps: DemoStep[]; samples: DemoSample[] }> {
  const story = new Story(options);
  await story.play();
  return story;
}

class Story {
  readonly steps: DemoStep[] = [];
  readonly samples: DemoSample[] = [];
  readonly #options: DemoOptions;
  readonly #startedMs = monotonicMs();

  constructor(options: DemoOptions) {
    this.#options = options;
  }

  async play(): Promise<void> {
    const { guest, bytes } = this.#options;
    const sampling = new AbortController();
    const sampler = this.#sampleUntil(sampling.signal);
    try {
      await this.#step('the guest is up and idle', async () => {});
      await this.#step('it uses memory', () => guest.use(bytes));
      await this.#step('it frees that memory; the host does not know', () => guest.free());
      await this.#step('the balloon takes it; the host has it back', () => this.#reach(bytes));
      await this.#step('the balloon lets go; the guest may use it', () => this.#reach(0));
      await this.#step('the guest uses it again', () => guest.use(bytes));
    } finally {
      sampling.abort();
      await sampler;
    }
  }

  async #step(title: string, act: () => Promise<void>): Promise<void> {
    const { signal, begin, end } = this.#options;
    signal.throwIfAborted();
    begin(title);
    const started = monotonicMs();
    await act();
    const elapsedMs = monotonicMs() - started;
    // Statistics are a moment old; the table is to show the state that was reached.
    await delay(REST_MS, undefined, { signal });
    const step: DemoStep = { title, elapsedMs, ...(await this.#look()) };
    this.steps.push(step);
    end(step);
  }

  async #reach(targetBytes: number): Promise<void> {
    const { control, guest, signal } = this.#options;
    await control.change(guest.name, { targetBytes, force: true });
    for (const deadline = monotonicMs() + STALL_MS; !isSettled(await control.guest(guest.name)); ) {
      signal.throwIfAborted();
      if (monotonicMs() > deadline) {
        throw new AerostatError(
          'AEROSTAT_DEMO',
          `the guest did not follow its target within ${STALL_MS / 1000} s`,
        );
      }
      await delay(10);
    }
  }

  async #look(): Promise<DemoSample> {
    const { control, guest } = this.#options;
    const [status, { statistics }] = await Promise.all([
      control.guest(guest.name),
      control.statistics(guest.name),
    ]);
    return {
      atMs: monotonicMs() - this.#startedMs,
      guestFreeBytes: statistics.freeBytes ?? (await guest.freeBytes()),
      balloonBytes: status.actualBytes ?? 0,
      residentBytes: status.residentBytes ?? 0,
    };
  }

  async #sampleUntil(end: AbortSignal): Promise<void> {
    while (!end.aborted) {
      this.samples.push(await this.#look());
      await delay(SAMPLE_INTERVAL_MS, undefined, { signal: end }).catch(() => undefined);
    }
  }
}
