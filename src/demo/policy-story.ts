/**
 * The story of a memory policy over guests of any kind: they lie idle on all of their memory, the policy takes what the host
 * lacks, one of them bursts and gets it, then another one. What is told is read from the policy's own decisions. Knows neither
 * terminals nor how guests and policy are started.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Control } from '../control/operations.ts';
import type { GuestPolicyDecision, PolicyStatus } from '../control/policy.ts';
import { AerostatError } from '../sys/error.ts';
import { monotonicMs } from '../sys/poll.ts';
import type { DemoGuest } from './story.ts';

const MIB = 2 ** 20;

export interface PolicySample {
  readonly atMs: number;
  /** What each guest has: its memory without its balloon; null while that is not known. In the order of the guests. */
  readonly hasBytes: readonly (number | null)[];
}

export interface PolicyStep {
  readonly title: string;
  readonly elapsedMs: number;
  /** Decisions that the policy made for it. */
  readonly decisions: number;
  readonly hasBytes: readonly (number | null)[];
  /** Why the guest that the step is about has what it has; null for none. */
  readonly why: string | null;
}

interface PolicyStoryOptions {
  /** Of the daemon and the policy. */
  readonly control: Control;
  readonly guests: readonly DemoGuest[];
  /** Of each guest. */
  readonly memoryBytes: number;
  /** What they may have together. */
  readonly budgetBytes: number;
  readonly startPolicy: () => void;
  readonly signal: AbortSignal;
  readonly end: (step: PolicyStep) => void;
}

const SAMPLE_INTERVAL_MS = 200;
const LOOK_MS = 50;
/** Time that the chart shows of every state after it was reached. */
const REST_MS = 1500;
const STALL_MS = 120_000;
/** A guest that bursts has its memory when there is so much beyond what it uses. */
const ROOM_BYTES = 64 * MIB;
/** A burst comes in so many steps, each of this share of the guest's memory: what it has free must hold one. */
const BURST_STEPS = 3;
const BURST_SHARE = 1 / 6;
const TOUCHED_SHARE = 0.8;

export async function tellPolicyStory(
  options: PolicyStoryOptions,
): Promise<{ readonly steps: readonly PolicyStep[]; readonly samples: readonly PolicySample[] }> {
  const story = new PolicyStory(options);
  await story.play();
  return story;
}

const whole = (bytes: number): number => Math.floor(bytes / MIB) * MIB;
const has = (decision: GuestPolicyDecision | null): number | null =>
  decision?.memoryBytes == null ? null : decision.memoryBytes - (decision.actualBytes ?? 0);

class PolicyStory {
  readonly steps: PolicyStep[] = [];
  readonly samples: PolicySample[] = [];
  readonly #options: PolicyStoryOptions;
  readonly #startedMs = monotonicMs();

  constructor(options: PolicyStoryOptions) {
    this.#options = options;
  }

  async play(): Promise<void> {
    const { guests, memoryBytes, startPolicy, budgetBytes } = this.#options;
    const [first, second] = guests;
    const sampling = new AbortController();
    const sampler = this.#sampleUntil(sampling.signal);
    try {
      await this.#step('all have used their memory and lie idle', undefined, async () => {
        for (const guest of guests) {
          await guest.use(whole(memoryBytes * TOUCHED_SHARE));
          await guest.free();
        }
      });
      await this.#step('the policy takes what the host lacks', undefined, async () => {
        startPolicy();
        await this.#until(
          ({ guests: seen }) =>
            seen.length === guests.length &&
            seen.reduce((sum, { decision }) => sum + (has(decision) ?? memoryBytes), 0) <= budgetBytes + MIB,
        );
      });
      await this.#step(`${first.name} bursts, and gets what it needs`, first, () => this.#burst(first));
      await first.free();
      await this.#step(`${first.name} is done, and ${second.name} bursts`, second, () => this.#burst(second));
    } finally {
      sampling.abort();
      await sampler;
    }
  }

  async #burst(guest: DemoGuest): Promise<void> {
    const bytes = whole(this.#options.memoryBytes * BURST_SHARE);
    const decisionOf = (status: PolicyStatus) =>
      status.guests.find(({ name }) => name === guest.name)?.decision ?? null;
    for (let step = 0; step < BURST_STEPS; step++) {
      const used = decisionOf(await this.#options.control.policy())?.usedBytes ?? 0;
      await guest.use(bytes);
      await this.#until(status => {
        const decision = decisionOf(status);
        const uses = decision?.usedBytes ?? 0;
        return uses >= used + bytes / 2 && (has(decision) ?? 0) >= uses + ROOM_BYTES;
      });
    }
  }

  async #step(title: string, about: DemoGuest | undefined, act: () => Promise<void>): Promise<void> {
    const { signal, end, control } = this.#options;
    signal.throwIfAborted();
    const startedMs = monotonicMs();
    const { decisions: before } = await control.policy();
    await act();
    const elapsedMs = monotonicMs() - startedMs;
    const status = await control.policy();
    const found = status.guests.find(({ name }) => name === about?.name);
    const step: PolicyStep = {
      ...{ title, elapsedMs, decisions: status.decisions - before },
      ...{ hasBytes: await this.#look(), why: found?.decision?.sentence ?? null },
    };
    this.steps.push(step);
    end(step);
    await delay(REST_MS, undefined, { signal });
  }

  async #until(met: (status: PolicyStatus) => boolean): Promise<void> {
    const { control, signal } = this.#options;
    for (const deadline = monotonicMs() + STALL_MS; ; await delay(LOOK_MS)) {
      const status = await control.policy();
      if (met(status)) return;
      signal.throwIfAborted();
      if (monotonicMs() < deadline) continue;
      const words = [status.budget?.sentence, ...status.guests.map(({ decision }) => decision?.sentence)];
      throw new AerostatError(
        'AEROSTAT_DEMO',
        `the guests did not come to it within ${STALL_MS / 1000} s: ${words.join(' ')}`,
      );
    }
  }

  async #look(): Promise<readonly (number | null)[]> {
    const { control, guests } = this.#options;
    const byName = new Map((await control.guests()).map(status => [status.name, status]));
    return guests.map(({ name }) => {
      const { memoryBytes = null, actualBytes = null } = byName.get(name) ?? {};
      return memoryBytes === null ? null : memoryBytes - (actualBytes ?? 0);
    });
  }

  async #sampleUntil(end: AbortSignal): Promise<void> {
    while (!end.aborted) {
      this.samples.push({ atMs: monotonicMs() - this.#startedMs, hasBytes: await this.#look() });
      await delay(SAMPLE_INTERVAL_MS, undefined, { signal: end }).catch(() => undefined);
    }
  }
}
