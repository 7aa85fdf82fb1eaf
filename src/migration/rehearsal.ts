/**
 * The stop, rehearsed while the guest runs: its states are saved and sent ahead, and the destination makes ready for them; and
 * what standing still and going on take is measured on both sides, and the way between them. So it is known before the stop
 * how long that takes, it takes less then, for both sides have done it once with just this guest, and only what has changed
 * since has to travel.
 */
import type { Clock, SavedState, SourceMachine } from './machine.ts';
import { type PauseStep, REHEARSED, RUN_EXPECTED } from './pause.ts';
import type { SourceMessage } from './source-link.ts';
import type { SourceLinks } from './source-links.ts';
import { REHEARSALS_MAX } from './standby.ts';
import { diffState } from './state-patch.ts';
import { RUN_MS_UNTOLD, StopEstimate } from './stop-estimate.ts';

/** Questions that the destination is asked to learn how long the way there and back takes. */
const TRIPS = 3;

interface RehearsalOptions {
  readonly machine: SourceMachine;
  readonly links: SourceLinks;
  readonly clock: Clock;
  /** A test switch: patches are made of what the states are a while after they were sent, so that something is missing. */
  readonly patchLate?: boolean;
}

export class Rehearsal {
  readonly #options: RehearsalOptions;
  readonly #estimate = new StopEstimate();
  #number = 0;
  #sent: ReadonlyMap<string, Uint8Array> = new Map();
  #savedMs = 0;
  /** What standing still takes, and going on here. */
  #stopMs = 0;

  constructor(options: RehearsalOptions) {
    this.#options = options;
  }

  /** How long the guest would stand still if it had no pages to send; undefined before the first rehearsal. */
  get fixedMs(): number | undefined {
    return this.#estimate.fixedMs;
  }

  /**
   * How long before its limit a stop has to be through, or called off: going on takes as long, there or here. No more than half
   * of the limit: on a host that is that busy, what was measured says little.
   */
  reserveMs(limitMs: number): number {
    return Math.min(limitMs / 2, Math.max(this.#estimate.runMs, this.#stopMs));
  }

  /** Whether there may be one more. */
  get possible(): boolean {
    const { machine, links } = this.#options;
    return links.ahead && machine.saveAhead !== undefined && this.#number < REHEARSALS_MAX;
  }

  /** Saves the states and sends them; {@link answered} is to follow, with other things done meanwhile. */
  async send(): Promise<void> {
    const { machine, links, clock, patchLate = false } = this.#options;
    const startMs = clock.nowMs();
    let states = (await machine.saveAhead?.()) ?? [];
    for (const { name, bytes } of states) await links.tell({ kind: 'ahead', name, bytes });
    await links.tell({ kind: 'rehearse', number: ++this.#number });
    this.#savedMs = clock.nowMs() - startMs;
    if (patchLate) {
      await clock.sleep(30);
      states = (await machine.saveAhead?.()) ?? [];
    }
    this.#sent = new Map(states.map(({ name, bytes }) => [name, bytes]));
  }

  /** Resolves when the destination is ready for what was sent last, with what that took; {@link measure} is to follow. */
  async answered(): Promise<readonly PauseStep[]> {
    const { spent = [] } = await this.#options.links.expect('rehearsed');
    return spent;
  }

  /** How long the rest of a stop takes, with nothing under way. `spent` is what the destination has told. */
  async measure(spent: readonly PauseStep[]): Promise<void> {
    const { machine } = this.#options;
    const told = (name: string) => spent.find(({ step }) => step === name)?.ms;
    this.#stopMs = (await machine.expectedStopMs?.()) ?? 0;
    const trips = await this.#tripsMs();
    const goingOnMs = told(RUN_EXPECTED) ?? RUN_MS_UNTOLD;
    // One trip is that of the states, the other that of `go`.
    const fixedMs =
      this.#stopMs + this.#savedMs + (told(REHEARSED) ?? 0) + goingOnMs + 2 * Math.min(...trips);
    this.#estimate.note({ fixedMs, runMs: goingOnMs + Math.max(...trips) });
  }

  /** Before a stop that is not preceded by a round: it goes as it has gone just now, with just this guest. */
  async atOnce(): Promise<void> {
    if (!this.possible) return;
    await this.send();
    await this.measure(await this.answered());
  }

  /** A stop was called off that had taken so long, its pages not counted. */
  calledOff(fixedMs: number): void {
    const { runMs } = this.#estimate;
    this.#estimate.note({ fixedMs: fixedMs + runMs, runMs });
  }

  /** How a state is sent at the stop: what has changed of it, or all. */
  message({ name, bytes }: SavedState): SourceMessage {
    const from = this.#sent.get(name);
    const patch = from && diffState(this.#number, from, bytes);
    return patch === undefined ? { kind: 'state', name, bytes } : { kind: 'patch', name, bytes: patch };
  }

  async #tripsMs(): Promise<readonly number[]> {
    const { links } = this.#options;
    const trips: number[] = [];
    // All that there is to do is to answer.
    for (let trip = 0; trip < TRIPS; trip++) trips.push(await links.taken());
    return trips;
  }
}
