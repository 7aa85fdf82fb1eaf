/**
 * The side that the guest leaves: rounds of sync, hints and sending, the stop, the last pages, and the hand-over. The
 * order of steps is that of {@link ./rounds.ts}; threads, sockets and the guest are behind the interfaces that it is
 * given.
 *
 * Until the destination has everything and says so, any failure ends with the guest running here as if nothing had
 * been. After that the guest never runs here again, unless the destination is known not to run it either.
 */
import { assert } from '../sys/error.ts';
import { MigrationCancelled, MigrationError, MigrationUnknown } from './errors.ts';
import { pagesAtFirst } from './first-pages.ts';
import { awaitHints } from './hints-wait.ts';
import { StallWatch } from './patience.ts';
import { type PostcopyProgress, PostcopySource } from './postcopy-source.ts';
import { Rehearsal } from './rehearsal.ts';
import { LAST_ROUND, ROUND, type RoundStep } from './rounds.ts';
import { type Inquiry, SourceLinks } from './source-links.ts';
import type { MigrationSummary, SourceOptions, SourcePhase } from './source-shapes.ts';
import { Standstill } from './standstill.ts';
import { StopOverrun } from './stop-limit.ts';

/** A host that was busy at one rehearsal may not be at the next. */
const REHEARSAL_PAUSE_MS = 20;

export class MigrationSource {
  readonly #options: SourceOptions;
  readonly #links: SourceLinks;
  #phase: SourcePhase = 'connecting';
  #round = 0;
  #remainingPages = 0;
  #expectedDowntimeMs = Number.POSITIVE_INFINITY;
  #share = 1;
  #shareMin = 1;
  #unbackedPages = 0;
  #hintRaces = 0;
  /** From the stop on, where pages come later. */
  #postcopy: PostcopySource | undefined;
  /** The rest comes when the guest runs there. */
  #switching = false;
  #runningMs = 0;
  /** What the last sync took. */
  #syncMs = 0;
  /** The pages that are left could be sent in time, but not the states. */
  #statesAreLate = false;
  /** Whether the stop to come is to be gone through with, whatever it takes. */
  #forced = false;
  /** Before the first stop, and before the next one where the last was called off. */
  #rehearsalDue = true;
  readonly #standstill: Standstill;
  readonly #rehearsal: Rehearsal;
  /** It cannot be called off any more: the destination is about to be told. */
  #handingOver = false;
  #handedOver = false;
  readonly #cancelling = new AbortController();
  #abandoned: MigrationError | undefined;

  constructor(options: SourceOptions) {
    this.#options = options;
    const ahead = options.machine.saveAhead !== undefined;
    this.#links = new SourceLinks({ ...options, ahead, cancelled: this.#cancelling.signal });
    this.#rehearsal = new Rehearsal({ ...options, links: this.#links });
    this.#standstill = new Standstill({ ...options, links: this.#links, rehearsal: this.#rehearsal });
  }

  /** What went over the wire so far. */
  get sentBytes(): number {
    return this.#links.sent.bytes;
  }

  /** Ends the migration, unless the guest was handed over already. Returns whether it will end. */
  cancel(reason: string): boolean {
    if (this.#handingOver) return false;
    if (!this.#cancelling.signal.aborted) this.#cancelling.abort(new MigrationCancelled(reason));
    this.#links.interrupt();
    return true;
  }

  /**
   * Moves the guest.
   * @throws MigrationCancelled, MigrationError when the guest runs on here
   * @throws MigrationUnknown when it does not run here and it is not known whether it does there; see {@link askAgain} and {@link recall}
   */
  async run(): Promise<MigrationSummary> {
    const { clock } = this.#options;
    const startMs = clock.nowMs();
    const watch = new StallWatch({ clock, links: this.#links.all, atEase: () => this.#atEase });
    try {
      this.#enter('connecting');
      await this.#links.open();
      this.#unbackedPages = pagesAtFirst(this.#options);
      do await this.#copy();
      while (!(await this.#stop()));
    } catch (error) {
      await this.#giveUp(watch.failure ?? (error as Error));
    } finally {
      watch.end();
    }
    await this.bringRest();
    this.#links.close();
    this.#enter('done');
    return this.#summary(startMs);
  }

  /**
   * After {@link MigrationUnknown}: asks the destination once more. Only `running` is an answer now: a place that was out of
   * reach for long and does not have the guest may have had it, and have sent it on.
   */
  askAgain(): Promise<Inquiry> {
    assert(this.#handedOver, 'a guest that was not handed over');
    const { connector, id } = this.#options;
    return connector.inquire(id, 0);
  }

  /** Brings what the guest has not got which runs there, for as long as that takes. */
  async bringRest(): Promise<void> {
    if (this.#postcopy === undefined) return;
    if (this.#abandoned !== undefined) throw this.#abandoned;
    this.#enter('post-copy');
    await this.#postcopy.serve();
  }

  /**
   * Ends {@link run} where the guest runs elsewhere and waits for pages that are brought no more: it is lost, unless it has
   * them. For a program that ends, with its memory.
   */
  abandon(reason: string): void {
    this.#abandoned = new MigrationError(reason);
    this.#postcopy?.abandon(this.#abandoned);
  }

  /** Tries to reach the destination of a guest that waits for pages now. Returns whether one was lost. */
  recover(): boolean {
    return this.#postcopy?.recover() ?? false;
  }

  /** Of a guest that runs at the destination and has yet to get pages. */
  get postcopy(): PostcopyProgress | null {
    return this.#handedOver ? (this.#postcopy?.progress ?? null) : null;
  }

  /** After {@link MigrationUnknown}, on the word of a person that the guest runs nowhere else: it runs on here. */
  async recall(): Promise<void> {
    assert(this.#handedOver, 'a guest that was not handed over');
    this.#handedOver = false;
    await this.#rollBack('it was called back');
  }

  get #atEase(): boolean {
    return this.#standstill.stoppedMs === undefined && !this.#cancelling.signal.aborted;
  }

  async #copy(): Promise<void> {
    const { convergence, machine } = this.#options;
    this.#enter('copying');
    for (;;) {
      this.#round++;
      for (const step of ROUND) {
        if (
          step === 'send' &&
          this.#round > (this.#options.postcopy?.afterRound ?? Number.POSITIVE_INFINITY)
        ) {
          this.#switching = true;
          await this.#rehearsal.atOnce();
          return;
        }
        await this.#take(step);
        if (step !== 'sync') continue;
        const {
          last,
          share,
          downtimeMs,
          refusal,
          statesAreLate = false,
          forced = false,
        } = convergence.decide(this.#remainingPages, this.#fixedMs);
        this.#statesAreLate = statesAreLate;
        this.#forced = forced;
        this.#expectedDowntimeMs = downtimeMs;
        this.#notify();
        if (refusal !== undefined) throw new MigrationError(refusal);
        if (last) return;
        if (share === this.#share) continue;
        this.#share = share;
        this.#shareMin = Math.min(this.#shareMin, share);
        await machine.throttle(share);
      }
    }
  }

  /** Returns whether the guest was let go. If not, it goes on here, where everything is, until it is stopped again. */
  async #stop(): Promise<boolean> {
    try {
      for (const step of LAST_ROUND) await this.#take(step);
      return true;
    } catch (error) {
      if (!(error instanceof StopOverrun)) throw error;
      await this.#standstill.callOff();
      this.#rehearsalDue = true;
      return false;
    }
  }

  async #take(step: RoundStep): Promise<void> {
    const { hints, clock } = this.#options;
    this.#checkCancelled();
    switch (step) {
      case 'stop-hints':
        await hints?.channel.stop();
        return;
      case 'stop-guest':
        this.#enter('stopping');
        await this.#standstill.begin(this.#forced || this.#switching);
        return;
      case 'sync':
        this.#sync();
        return;
      case 'start-hints':
        await hints?.channel.start();
        if (this.#round === 1 && hints !== undefined) {
          await awaitHints(hints.channel, clock, () => this.#checkCancelled());
        }
        return;
      case 'send':
        await this.#sendRound();
        return;
      case 'send-rest':
        await this.#sendRest();
        return;
      case 'hand-over':
        await this.#handOver();
        return;
    }
  }

  #sync(): void {
    const { ram, dirty, log, hints, clock } = this.#options;
    const startMs = clock.nowMs();
    log.collect(0, ram.slots, dirty);
    this.#hintRaces += hints?.pages.countRaces() ?? 0;
    this.#remainingPages = dirty.countIn();
    this.#syncMs = clock.nowMs() - startMs;
    if (this.#standstill.stoppedMs !== undefined) this.#standstill.pause.done('sync');
  }

  async #sendRound(): Promise<void> {
    const { clock, convergence } = this.#options;
    await this.#links.tell({ kind: 'round', round: this.#round });
    // The first goes on beside the longest round; another one is for a stop that took too long, or would by the last.
    const rehearses = this.#rehearsal.possible && (this.#rehearsalDue || this.#statesAreLate);
    if (this.#statesAreLate) await clock.sleep(REHEARSAL_PAUSE_MS);
    if (rehearses) await this.#rehearsal.send();
    const before = this.#links.sent;
    const startMs = clock.nowMs();
    await this.#links.onAll(link => link.sendPages());
    this.#checkCancelled();
    const after = this.#links.sent;
    const handedMs = clock.nowMs() - startMs;
    // What is taken meanwhile of what is under way takes no time of its own.
    const spent = rehearses ? await this.#rehearsal.answered() : undefined;
    const takenMs = await this.#links.taken();
    convergence.sent(after.pages - before.pages, after.bytes - before.bytes, handedMs + takenMs);
    if (spent === undefined) return;
    await this.#rehearsal.measure(spent);
    this.#rehearsalDue = false;
  }

  /** How long the guest would stand still if there were no page to send, as far as that is known. */
  get #fixedMs(): number {
    const rehearsedMs = this.#rehearsal.fixedMs;
    return rehearsedMs === undefined ? 0 : rehearsedMs + this.#syncMs;
  }

  async #sendRest(): Promise<void> {
    const changed = () => this.#enter(this.#postcopy?.phase ?? 'post-copy');
    const options = { ...this.#options, links: this.#links, changed };
    this.#postcopy = this.#switching ? PostcopySource.open(options) : undefined;
    this.#round++;
    const { overrun, pause } = this.#standstill;
    await this.#standstill.sent(this.#sendStopped(overrun));
    const { spent } = await this.#links.expect('ready', overrun);
    pause.told(spent);
    pause.done('load');
  }

  /** All that is left; nothing more than what is under way when it is called off. */
  async #sendStopped(overrun?: AbortSignal): Promise<void> {
    await this.#links.tell({ kind: 'round', round: this.#round });
    await this.#links.onAll(async (link, index) => {
      await link.sendPages();
      if (overrun?.aborted === true) return;
      await this.#postcopy?.announce(link, index, this.#options.connections);
      if (index === 0) await this.#standstill.sendStates(link);
      this.#checkCancelled();
    });
    if (overrun?.aborted !== true) await this.#links.onAll(link => link.send({ kind: 'end' }));
  }

  async #handOver(): Promise<void> {
    const { machine, goesOnLate = false } = this.#options;
    const { pause, overrun } = this.#standstill;
    this.#standstill.check();
    if (!goesOnLate) this.#standstill.end();
    this.#handingOver = true;
    this.#enter('handing-over');
    await machine.handOver();
    this.#handedOver = true;
    pause.done('hand-over');
    await this.#links.tell({ kind: 'go' });
    const { spent } = await this.#links.expect('running', overrun);
    pause.told(spent);
    this.#runningMs = pause.done('run');
  }

  /** Returns only when the guest runs at the destination after all. */
  async #giveUp(error: Error): Promise<void> {
    if (this.#handedOver) {
      const inquiry = await this.#options.connector.inquire(this.#options.id);
      if (inquiry === 'running') {
        this.#runningMs = this.#options.clock.nowMs();
        return;
      }
      if (inquiry === 'unreachable') {
        this.#enter('failed');
        this.#links.close();
        throw new MigrationUnknown({ cause: error });
      }
      // The destination does not run it: it is ours again.
      this.#handedOver = false;
    }
    const { signal } = this.#cancelling;
    const failure: Error = signal.aborted ? signal.reason : error;
    await this.#rollBack(failure instanceof MigrationCancelled ? failure.reason : failure.message);
    this.#enter('failed');
    if (failure instanceof MigrationCancelled || failure instanceof MigrationError) throw failure;
    throw new MigrationError(`the migration failed, and the guest runs on here: ${failure.message}`, {
      cause: failure,
    });
  }

  /** The guest goes on, with all its time and its pages. */
  async #rollBack(reason: string): Promise<void> {
    const { machine, hints } = this.#options;
    this.#links.interrupt();
    try {
      await this.#standstill.giveUp();
      if (this.#share !== 1) await machine.throttle(1);
      await hints?.channel.stop();
      await hints?.channel.done();
    } finally {
      // The destination should learn why; it gives up all the same when it cannot be told.
      await this.#links.tell({ kind: 'cancel', reason }).catch(() => {});
      this.#links.close();
    }
  }

  #checkCancelled(): void {
    this.#cancelling.signal.throwIfAborted();
  }

  #enter(phase: SourcePhase): void {
    this.#phase = phase;
    this.#notify();
  }

  #notify(): void {
    this.#options.observer?.({
      phase: this.#phase,
      round: this.#round,
      remainingPages: this.#remainingPages,
      bytesPerMs: this.#options.convergence.bytesPerMs,
      expectedDowntimeMs: this.#expectedDowntimeMs,
      guestShare: this.#share,
      postcopy: this.postcopy,
    });
  }

  #summary(startMs: number): MigrationSummary {
    const { pages, zeroPages, resentPages, bytes } = this.#links.sent;
    const late = this.#postcopy?.counts;
    const { clock, hints, sent } = this.#options;
    const { stoppedMs, calledOffMs, stateBytes, pause } = this.#standstill;
    return {
      totalMs: clock.nowMs() - startMs,
      downtimeMs: this.#runningMs - (stoppedMs ?? this.#runningMs),
      rounds: this.#round,
      bytes,
      stateBytes,
      pages: pages + (late?.pages ?? 0),
      zeroPages: zeroPages + (late?.zeroPages ?? 0),
      resentPages,
      freePages: hints?.pages.countUnsent(sent) ?? 0,
      unbackedPages: this.#unbackedPages,
      hintRaces: this.#hintRaces,
      guestShareMin: this.#shareMin,
      calledOffMs,
      postcopy: this.postcopy,
      pause: pause.steps,
    };
  }
}
