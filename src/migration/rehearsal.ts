/**
 * The stop, rehearsed while the guest runs: its states are saved and sent ahead, and the destination makes ready for them. So
 * it is known before the stop how long that takes, it takes less then, for both sides have done it once with just this guest,
 * and only what has changed since has to travel.
 */
import type { Clock, SavedState, SourceMachine } from './machine.ts';
import { REHEARSED } from './pause.ts';
import type { SourceMessage } from './source-link.ts';
import type { SourceLinks } from './source-links.ts';
import { REHEARSALS_MAX } from './standby.ts';
import { diffState } from './state-patch.ts';

interface RehearsalOptions {
  readonly machine: SourceMachine;
  readonly links: SourceLinks;
  readonly clock: Clock;
  /** A test switch: patches are made of what the states are a while after they were sent, so that something is missing. */
  readonly patchLate?: boolean;
}

export class Rehearsal {
  readonly #options: RehearsalOptions;
  #number = 0;
  #sent: ReadonlyMap<string, Uint8Array> = new Map();
  #savedMs = 0;
  #fixedMs: number | undefined;

  constructor(options: RehearsalOptions) {
    this.#options = options;
  }

  /** How long the guest would stand still for its states alone, as the last one went; undefined before the first. */
  get fixedMs(): number | undefined {
    return this.#fixedMs;
  }

  /** Whether there may be one more. */
  get possible(): boolean {
    const { machine, links } = this.#options;
    return links.ahead && machine.saveAhead !== undefined && this.#number < REHEARSALS_MAX;
  }

  /** Saves the states and sends them; {@link heard} is to follow, with other things done meanwhile. */
  async send(): Promise<void> {
    const { machine, links, clock, patchLate = false } = this.#options;
    const startMs = clock.nowMs();
    let states = (await machine.saveAhead?.()) ?? [];
    for (const { name, bytes } of states) await links.tell({ kind: 'ahead', name, bytes });
    await links.tell({ kind: 'rehearse', number: ++this.#number });
    this.#savedMs = clock.nowMs() - startMs;
    if (patchLate) {
      await clock.sleep(3);
      states = (await machine.saveAhead?.()) ?? [];
    }
    this.#sent = new Map(states.map(({ name, bytes }) => [name, bytes]));
  }

  /** Resolves when the destination is ready for what was sent last. */
  async heard(): Promise<void> {
    const { spent = [] } = await this.#options.links.expect('rehearsed');
    const told = spent.find(({ step }) => step === REHEARSED)?.ms ?? 0;
    this.#fixedMs = this.#savedMs + told;
  }

  /** How a state is sent at the stop: what has changed of it, or all. */
  message({ name, bytes }: SavedState): SourceMessage {
    const from = this.#sent.get(name);
    const patch = from && diffState(this.#number, from, bytes);
    return patch === undefined ? { kind: 'state', name, bytes } : { kind: 'patch', name, bytes: patch };
  }
}
