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
import { awaitHints } from './hints-wait.ts';
import { StallWatch } from './patience.ts';
import { PauseWatch } from './pause.ts';
import { type PostcopyProgress, PostcopySource } from './postcopy-source.ts';
import { Rehearsal } from './rehearsal.ts';
import { LAST_ROUND, ROUND, type RoundStep } from './rounds.ts';
import { type Inquiry, SourceLinks } from './source-links.ts';
import type { MigrationSummary, SourceOptions, SourcePhase } from './source-shapes.ts';

/** A host that was busy at one rehearsal may not be at the next. */
const REHEARSAL_PAUSE_MS = 20;
/**
 * What no rehearsal tells of: until rings have stopped, the device's state and the driver's, and the hand-over with its two
 * answers. Some five milliseconds on hosts and networks that are near; on a host of two slow cores it was 12 to 17, so that a
 * tight limit can be overrun there.
 */
const UNREHEARSED_MS = 5;

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
  #stateBytes = 0;
  /** From the stop on, where pages come later. */
  #postcopy: PostcopySource | undefined;
  /** The rest comes when the guest runs there. */
  #switching = false;
  #stoppedMs: number | undefined;
  #runningMs = 0;
  /** What the last sync took. */
  #syncMs = 0;
  /** The pages that are left could be sent in time, but not the states. */
  #statesAreLate = false;
  readonly #pause: PauseWatch;
  readonly #rehearsal: Rehearsal;
  /** It cannot be called off any more: the destination is about to be told. */
  #handingOver = false;
  #handedOver = false;
  readonly #cancelling = new AbortController();

  constructor(options: SourceOptions) {
    this.#options = options;
    this.#pause = new PauseWatch(options.clock);
    const ahead = options.machine.saveAhead !== undefined;
    this.#links = new SourceLinks({ ...options, ahead, cancelled: this.#cancelling.signal });
    this.#rehearsal = new Rehearsal({ ...options, links: this.#links });
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
      await this.#copy();
      for (const step of LAST_ROUND) await this.#take(step);
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
    this.#enter('post-copy');
    await this.#postcopy.serve();
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
    return this.#stoppedMs === undefined && !this.#cancelling.signal.aborted;
  }

  async #copy(): Promise<void> {
    const { ram, log, dirty, convergence, machine } = this.#options;
    this.#enter('copying');
    // First the log, then what there is: what is written meanwhile is in the log.
    log.collect(0, ram.slots, dirty);
    if (ram.nearlyBacked) {
      dirty.setAll();
    } else {
      dirty.clear(0, ram.slots);
      ram.forEachBacked(0, ram.slots, (start, count) => dirty.set(start, count));
    }
    this.#unbackedPages = ram.slots - dirty.countIn();
    for (;;) {
      this.#round++;
      for (const step of ROUND) {
        if (
          step === 'send' &&
          this.#round > (this.#options.postcopy?.afterRound ?? Number.POSITIVE_INFINITY)
        ) {
          this.#switching = true;
          await this.#rehearse();
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
        } = convergence.decide(this.#remainingPages, this.#fixedMs);
        this.#statesAreLate = statesAreLate;
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

  async #take(step: RoundStep): Promise<void> {
    const { hints, machine, clock } = this.#options;
    this.#checkCancelled();
    switch (step) {
      case 'stop-hints':
        await hints?.channel.stop();
        return;
      case 'stop-guest':
        this.#enter('stopping');
        this.#stoppedMs = this.#pause.begin();
        await machine.stop(this.#pause.note);
        return void this.#pause.done('stop');
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
    if (this.#stoppedMs !== undefined) this.#pause.done('sync');
  }

  async #sendRound(): Promise<void> {
    const { clock, convergence } = this.#options;
    await this.#links.tell({ kind: 'round', round: this.#round });
    // The first goes on beside the longest round; another one is for a stop that would take too long by the last.
    const rehearses = this.#rehearsal.possible && (this.#round === 1 || this.#statesAreLate);
    if (this.#statesAreLate) await clock.sleep(REHEARSAL_PAUSE_MS);
    if (rehearses) await this.#rehearsal.send();
    const before = this.#links.sent;
    const startMs = clock.nowMs();
    await this.#links.onAll(link => link.sendPages());
    this.#checkCancelled();
    const after = this.#links.sent;
    convergence.sent(after.pages - before.pages, after.bytes - before.bytes, clock.nowMs() - startMs);
    if (rehearses) await this.#rehearsal.heard();
  }

  /** Before a stop that is not preceded by a round: it goes as it has gone just now, with just this guest. */
  async #rehearse(): Promise<void> {
    if (!this.#rehearsal.possible) return;
    await this.#rehearsal.send();
    await this.#rehearsal.heard();
  }

  /** How long the guest would stand still if there were no page to send, as far as that is known. */
  get #fixedMs(): number {
    const rehearsedMs = this.#rehearsal.fixedMs;
    return rehearsedMs === undefined ? 0 : rehearsedMs + this.#syncMs + UNREHEARSED_MS;
  }

  async #sendRest(): Promise<void> {
    const pause = this.#pause;
    const states = await this.#options.machine.save(pause.note);
    pause.done('save');
    this.#stateBytes = states.reduce((sum, { bytes }) => sum + bytes.length, 0);
    this.#postcopy = this.#switching ? this.#openPostcopy() : undefined;
    this.#round++;
    await this.#links.tell({ kind: 'round', round: this.#round });
    await this.#links.onAll(async (link, index) => {
      await link.sendPages();
      if (index === 0) pause.done('pages');
      await this.#postcopy?.announce(link, index, this.#options.connections);
      if (index === 0) for (const state of states) await link.send(this.#rehearsal.message(state));
      this.#checkCancelled();
      await link.send({ kind: 'end' });
    });
    pause.done('states');
    const { spent } = await this.#links.expect('ready');
    pause.told(spent);
    pause.done('load');
  }

  /** Undefined where nothing is left to come later: the destination hears of no missing page, and awaits none. */
  #openPostcopy(): PostcopySource | undefined {
    const { ram, clock, dirty, machine } = this.#options;
    const changed = () => this.#enter(this.#postcopy?.phase ?? 'post-copy');
    const postcopy = new PostcopySource({ ram, machine, links: this.#links, clock, changed }, dirty);
    return postcopy.progress.latePages > 0 ? postcopy : undefined;
  }

  async #handOver(): Promise<void> {
    const { machine } = this.#options;
    this.#handingOver = true;
    this.#enter('handing-over');
    await machine.handOver();
    this.#handedOver = true;
    this.#pause.done('hand-over');
    await this.#links.tell({ kind: 'go' });
    const { spent } = await this.#links.expect('running');
    this.#pause.told(spent);
    this.#runningMs = this.#pause.done('run');
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
      if (this.#stoppedMs !== undefined) await machine.resume();
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
    return {
      totalMs: clock.nowMs() - startMs,
      downtimeMs: this.#runningMs - (this.#stoppedMs ?? this.#runningMs),
      rounds: this.#round,
      bytes,
      stateBytes: this.#stateBytes,
      pages: pages + (late?.pages ?? 0),
      zeroPages: zeroPages + (late?.zeroPages ?? 0),
      resentPages,
      freePages: hints?.pages.countUnsent(sent) ?? 0,
      unbackedPages: this.#unbackedPages,
      hintRaces: this.#hintRaces,
      guestShareMin: this.#shareMin,
      postcopy: this.postcopy,
      pause: this.#pause.steps,
    };
  }
}
