/**
 * The guest stands still: since when, where the time goes, and for how long it may. As long as it was not let go, a stop that
 * takes too long is called off, and the guest goes on where it is.
 */
import type { Convergence } from './convergence.ts';
import type { Clock, SavedState, SourceMachine } from './machine.ts';
import { PauseWatch } from './pause.ts';
import type { Rehearsal } from './rehearsal.ts';
import type { Link } from './source-link.ts';
import type { SourceLinks } from './source-links.ts';
import { StopLimit } from './stop-limit.ts';

interface StandstillOptions {
  readonly machine: SourceMachine;
  readonly links: SourceLinks;
  readonly clock: Clock;
  readonly convergence: Convergence;
  readonly rehearsal: Rehearsal;
  /** Who has the guest run there before it has all of its pages does not take it back for the sake of a limit. */
  readonly postcopy?: object | undefined;
}

export class Standstill {
  readonly pause: PauseWatch;
  /** How long the guest stood still each time that its stop was called off. */
  readonly calledOffMs: number[] = [];
  stateBytes = 0;
  readonly #options: StandstillOptions;
  #stoppedMs: number | undefined;
  /** Where the limit counts, and the destination can take back what a stop brought. */
  #limit: StopLimit | undefined;
  #saving: Promise<readonly SavedState[]> = Promise.resolve([]);
  #sending: Promise<void> = Promise.resolve();

  constructor(options: StandstillOptions) {
    this.#options = options;
    this.pause = new PauseWatch(options.clock);
  }

  /** Since when the guest has stood still; undefined while it runs. */
  get stoppedMs(): number | undefined {
    return this.#stoppedMs;
  }

  /** Aborted when the stop is called off. */
  get overrun(): AbortSignal | undefined {
    return this.#limit?.signal;
  }

  /** Stops the guest. `forced`: whatever it takes. @throws StopOverrun */
  async begin(forced: boolean): Promise<void> {
    const { machine, clock, convergence, links, rehearsal, postcopy } = this.#options;
    this.#stoppedMs = this.pause.begin();
    const limitMs = convergence.downtimeMsMax;
    const endMs = this.#stoppedMs + limitMs - rehearsal.reserveMs(limitMs);
    const counts = links.recallable && convergence.keepsLimit && !forced && postcopy === undefined;
    this.#limit = counts ? new StopLimit(clock, endMs) : undefined;
    await machine.stop(this.pause.note);
    this.pause.done('stop');
    // In other threads than the last pages are looked for and sent in.
    this.#saving = machine.save(this.pause.note);
    this.#saving.catch(() => {});
    this.#limit?.check();
  }

  /** Behind the pages of this connection: the states, which have been saved since the guest stands still. */
  async sendStates(link: Link): Promise<void> {
    this.pause.done('pages');
    const calledOff = () => this.overrun?.aborted === true;
    // A guest that goes on meanwhile cannot be saved any more, and need not.
    const states = await this.#saving.catch(error => {
      if (calledOff()) return [];
      throw error;
    });
    this.pause.done('save');
    this.stateBytes = states.reduce((sum, { bytes }) => sum + bytes.length, 0);
    for (const state of states) {
      if (calledOff()) return;
      await link.send(this.#options.rehearsal.message(state));
    }
  }

  /** Waits for what is sent at the stop, which goes on where the stop is called off meanwhile. @throws StopOverrun */
  async sent(sending: Promise<void>): Promise<void> {
    this.#sending = sending;
    await (this.#limit?.within(sending) ?? sending);
    this.pause.done('states');
  }

  /** The last moment at which it can be called off: there is time enough for the guest to go on. @throws StopOverrun */
  check(): void {
    this.#limit?.check();
  }

  /** It is not called off any more. */
  end(): void {
    this.#limit?.end();
  }

  /** The guest goes on here, where everything is. Resolves when the destination has taken back what the stop brought. */
  async callOff(): Promise<void> {
    const { machine, clock, convergence, rehearsal, links } = this.#options;
    this.end();
    const stoppedMs = this.#stoppedMs ?? clock.nowMs();
    const spentMs = clock.nowMs() - stoppedMs - this.pause.pagesMs;
    await machine.resume();
    this.#stoppedMs = undefined;
    const stoodMs = clock.nowMs() - stoppedMs;
    this.calledOffMs.push(stoodMs);
    convergence.calledOff(stoodMs);
    rehearsal.calledOff(spentMs);
    // What was on its way goes on, as in any round: what the guest writes from now on is in the log.
    await this.#sending;
    await links.recall();
  }

  /** The migration failed: the guest goes on, if it stood still. */
  async giveUp(): Promise<void> {
    this.end();
    if (this.#stoppedMs !== undefined) await this.#options.machine.resume();
  }
}
