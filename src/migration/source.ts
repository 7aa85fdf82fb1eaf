/**
 * The side that the guest leaves: rounds of sync, hints and sending, the stop, the last pages, and the hand-over. The
 * order of steps is that of {@link ./rounds.ts}; threads, sockets and the guest are behind the interfaces that it is
 * given.
 *
 * Until the destination has everything and says so, any failure ends with the guest running here as if nothing had
 * been. After that the guest never runs here again, unless the destination is known not to run it either.
 */
import type { Convergence } from './convergence.ts';
import type { DirtyBitmap } from './dirty-bitmap.ts';
import type { DirtyLog } from './dirty-log.ts';
import { MigrationCancelled, MigrationError, MigrationUnknown } from './errors.ts';
import { featuresAgreed, featuresToOffer } from './features.ts';
import type { HintedPages } from './hinted-pages.ts';
import type { Clock, FreePageChannel, SavedState, SourceMachine } from './machine.ts';
import { answerMsMax, Watch } from './patience.ts';
import type { Ram } from './ram.ts';
import { LAST_ROUND, ROUND, type RoundStep } from './rounds.ts';
import type { Answer, Link, LinkProgress } from './source-link.ts';
import { shapeOf } from './stream/messages.ts';

/**
 * How long the first round waits for hints, at most; for the first one of a guest that may be busy; and for the next one
 * of a guest that has more.
 */
const HINTS_MS_MAX = 1000;
const HINTS_FIRST_MS = 200;
const HINTS_IDLE_MS = 40;
const HINTS_POLL_MS = 2;

/** What the destination says when it is asked whether it has taken over. */
export type Inquiry = 'running' | 'absent' | 'unreachable';

export interface Connector {
  /** Opens connection `index` of `count`. */
  open(index: number, count: number): Promise<Link>;
  /** Asks, over a new connection, what became of the migration `id`; tries again as long as that makes sense. */
  inquire(id: Uint8Array): Promise<Inquiry>;
}

export interface SourceOptions {
  readonly id: Uint8Array;
  readonly ram: Ram;
  readonly machine: SourceMachine;
  readonly log: DirtyLog;
  /** The links' senders have the same two. */
  readonly dirty: DirtyBitmap;
  readonly sent: DirtyBitmap;
  readonly connector: Connector;
  readonly connections: number;
  readonly convergence: Convergence;
  readonly clock: Clock;
  /** How the guest names free pages, and who takes them. Without it, all pages are sent. */
  readonly hints?: { readonly channel: FreePageChannel; readonly pages: HintedPages };
  /** Compress pages; both sides must have zstd. Costs both a processor. */
  readonly compress?: boolean;
  /** What happens, as it happens. */
  readonly observer?: (progress: MigrationProgress) => void;
}

const NOTHING_SENT: LinkProgress = { pages: 0, zeroPages: 0, zeroPagesSent: 0, resentPages: 0, bytes: 0 };

export type SourcePhase = 'connecting' | 'copying' | 'stopping' | 'handing-over' | 'done' | 'failed';

export interface MigrationProgress {
  readonly phase: SourcePhase;
  readonly round: number;
  /** Pages to send, after the last sync. */
  readonly remainingPages: number;
  readonly bytesPerMs: number;
  readonly expectedDowntimeMs: number;
  /** The share of its time that the guest has. */
  readonly guestShare: number;
}

export interface MigrationSummary {
  readonly totalMs: number;
  /** From asking the guest to stop until it ran at the destination. */
  readonly downtimeMs: number;
  /** Rounds, the last one included. */
  readonly rounds: number;
  /** Bytes of all sections. */
  readonly bytes: number;
  readonly stateBytes: number;
  readonly pages: number;
  readonly zeroPages: number;
  readonly resentPages: number;
  /**
   * Never sent, because the guest named them as free, or because the host was known to hold nothing for them. Of a guest
   * of which it holds nearly all, the rest is among {@link zeroPages}.
   */
  readonly freePages: number;
  readonly unbackedPages: number;
  /** Pages that were written after the guest had named them as free, and sent for it. */
  readonly hintRaces: number;
  readonly guestShareMin: number;
}

export class MigrationSource {
  readonly #options: SourceOptions;
  readonly #links: Link[] = [];
  #phase: SourcePhase = 'connecting';
  #round = 0;
  #remainingPages = 0;
  #expectedDowntimeMs = Number.POSITIVE_INFINITY;
  #share = 1;
  #shareMin = 1;
  #unbackedPages = 0;
  #hintRaces = 0;
  #stateBytes = 0;
  #stoppedMs: number | undefined;
  #runningMs = 0;
  /** From here on nobody can call it off: the destination is about to be told. */
  #handingOver = false;
  #letGo = false;
  readonly #cancelling = new AbortController();

  constructor(options: SourceOptions) {
    this.#options = options;
  }

  /** What went over the wire so far. */
  get sentBytes(): number {
    return this.#sent().bytes;
  }

  /** Ends the migration, unless the guest was handed over already. Returns whether it will end. */
  cancel(reason: string): boolean {
    if (this.#handingOver) return false;
    if (!this.#cancelling.signal.aborted) this.#cancelling.abort(new MigrationCancelled(reason));
    for (const link of this.#links) link.interrupt();
    return true;
  }

  /**
   * Moves the guest.
   * @throws MigrationCancelled, MigrationError when the guest runs on here
   * @throws MigrationUnknown when it does not run here and nobody knows whether it does there
   */
  async run(): Promise<MigrationSummary> {
    const { clock } = this.#options;
    const startMs = clock.nowMs();
    const watch = new Watch({ clock, links: this.#links, atEase: () => this.#atEase });
    try {
      await this.#connect();
      await this.#copy();
      await this.#follow(LAST_ROUND);
    } catch (error) {
      await this.#giveUp(watch.failure ?? (error as Error));
    } finally {
      watch.end();
    }
    for (const link of this.#links) link.close(true);
    this.#enter('done');
    return this.#summary(startMs);
  }

  get #atEase(): boolean {
    return this.#stoppedMs === undefined && !this.#cancelling.signal.aborted;
  }

  async #connect(): Promise<void> {
    const { id, ram, connections, connector, compress = false } = this.#options;
    this.#enter('connecting');
    const offered = featuresToOffer(compress);
    const hello = { kind: 'hello', id, purpose: 'migrate', connections, features: offered } as const;
    const first = await connector.open(0, connections);
    this.#links.push(first);
    await first.send({ ...hello, connection: 0 });
    await first.send({ kind: 'memory', regions: shapeOf(ram.memory) });
    // No page before the destination has a place for it.
    const welcome = await this.#expect('welcome');
    const features = featuresAgreed(offered, welcome.features);
    first.useFeatures(features);
    for (let index = 1; index < connections; index++) {
      const link = await connector.open(index, connections);
      this.#links.push(link);
      await link.send({ ...hello, connection: index });
      link.useFeatures(features);
    }
  }

  async #copy(): Promise<void> {
    const { ram, log, dirty, convergence, machine } = this.#options;
    this.#enter('copying');
    // First the log, then what there is: what is written meanwhile is in the log.
    log.take(0, ram.slots, dirty);
    if (ram.nearlyBacked) {
      dirty.markAll();
    } else {
      dirty.skip(0, ram.slots);
      ram.forEachBacked(0, ram.slots, (start, count) => dirty.mark(start, count));
    }
    this.#unbackedPages = ram.slots - dirty.countIn();
    for (;;) {
      this.#round++;
      for (const step of ROUND) {
        await this.#take(step);
        if (step !== 'sync') continue;
        const { last, share, downtimeMs } = convergence.decide(this.#remainingPages);
        this.#expectedDowntimeMs = downtimeMs;
        this.#notify();
        if (last) return;
        if (share === this.#share) continue;
        this.#share = share;
        this.#shareMin = Math.min(this.#shareMin, share);
        await machine.throttle(share);
      }
    }
  }

  async #follow(steps: readonly RoundStep[]): Promise<void> {
    for (const step of steps) await this.#take(step);
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
        this.#stoppedMs = clock.nowMs();
        await machine.stop();
        return;
      case 'sync':
        this.#sync();
        return;
      case 'start-hints':
        await hints?.channel.start();
        if (this.#round === 1) await this.#awaitHints();
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
    const { ram, dirty, log, hints } = this.#options;
    log.take(0, ram.slots, dirty);
    this.#hintRaces += hints?.pages.countRaces() ?? 0;
    this.#remainingPages = dirty.countIn();
  }

  /** Before the first round nearly all hints are useful, and come faster than the pages that they save would go. */
  async #awaitHints(): Promise<void> {
    const { hints, clock } = this.#options;
    if (hints === undefined) return;
    const deadlineMs = clock.nowMs() + HINTS_MS_MAX;
    let pages = 0;
    let heardMs = clock.nowMs();
    for (;;) {
      const nowMs = clock.nowMs();
      if (hints.channel.finished || nowMs >= deadlineMs) return;
      if (hints.channel.pages !== pages) {
        pages = hints.channel.pages;
        heardMs = nowMs;
      } else if (nowMs - heardMs >= (pages === 0 ? HINTS_FIRST_MS : HINTS_IDLE_MS)) {
        return;
      }
      await clock.sleep(HINTS_POLL_MS);
      this.#checkCancelled();
    }
  }

  async #sendRound(): Promise<void> {
    const { clock, convergence } = this.#options;
    const before = this.#sent();
    const startMs = clock.nowMs();
    await this.#links[0].send({ kind: 'round', round: this.#round });
    await this.#onAllLinks(link => link.sendPages());
    this.#checkCancelled();
    const after = this.#sent();
    convergence.sent(after.pages - before.pages, after.bytes - before.bytes, clock.nowMs() - startMs);
  }

  async #sendRest(): Promise<void> {
    const states = await this.#options.machine.save();
    this.#stateBytes = states.reduce((sum, { bytes }) => sum + bytes.length, 0);
    this.#round++;
    await this.#links[0].send({ kind: 'round', round: this.#round });
    await this.#onAllLinks(async (link, index) => {
      await link.sendPages();
      if (index === 0) await sendStates(link, states);
      this.#checkCancelled();
      await link.send({ kind: 'end' });
    });
    await this.#expect('ready');
  }

  async #handOver(): Promise<void> {
    const { machine, clock } = this.#options;
    this.#handingOver = true;
    this.#enter('handing-over');
    await machine.letGo();
    this.#letGo = true;
    await this.#links[0].send({ kind: 'go' });
    await this.#expect('running');
    this.#runningMs = clock.nowMs();
  }

  /** Returns only when the guest runs at the destination after all. */
  async #giveUp(error: Error): Promise<void> {
    if (this.#letGo) {
      const inquiry = await this.#options.connector.inquire(this.#options.id);
      if (inquiry === 'running') {
        this.#runningMs = this.#options.clock.nowMs();
        return;
      }
      if (inquiry === 'unreachable') {
        this.#enter('failed');
        throw new MigrationUnknown({ cause: error });
      }
      // Nobody is there to run it: it is ours again.
      this.#letGo = false;
    }
    const { signal } = this.#cancelling;
    const failure: Error = signal.aborted ? signal.reason : error;
    await this.#takeBack(failure.message);
    this.#enter('failed');
    if (failure instanceof MigrationCancelled || failure instanceof MigrationError) throw failure;
    throw new MigrationError(`the migration failed, and the guest runs on here: ${failure.message}`, {
      cause: failure,
    });
  }

  /** The guest goes on, with all its time and its pages. */
  async #takeBack(reason: string): Promise<void> {
    const { machine, hints } = this.#options;
    for (const link of this.#links) link.interrupt();
    if (this.#stoppedMs !== undefined) await machine.resume();
    if (this.#share !== 1) await machine.throttle(1);
    await hints?.channel.stop();
    await hints?.channel.done();
    // The destination should learn why; it gives up all the same when it cannot be told.
    await this.#links[0]?.send({ kind: 'cancel', reason }).catch(() => {});
    for (const link of this.#links) link.close(true);
  }

  /** The next answer, which has to be this one and come in time. */
  async #expect<K extends Answer['kind']>(kind: K): Promise<Answer & { kind: K }> {
    const { clock, ram } = this.#options;
    const msMax = answerMsMax(kind, ram.slots);
    const waiting = new AbortController();
    const signal = AbortSignal.any([waiting.signal, this.#cancelling.signal]);
    const late = clock.sleep(msMax, signal).then((): Answer => {
      this.#checkCancelled();
      throw new MigrationError(`the destination did not answer ${kind} within ${msMax / 1e3} s`);
    });
    late.catch(() => {});
    try {
      // What is lost on any connection is missed by the destination, which then waits for it.
      const broken = this.#letGo ? [] : this.#links.map(link => link.broken);
      const answer = await Promise.race([this.#links[0].answer(), late, ...broken]);
      if (answer.kind === kind) return answer as Answer & { kind: K };
      throw new MigrationError(`the destination answered ${answer.kind} where ${kind} was due`);
    } finally {
      waiting.abort();
    }
  }

  async #onAllLinks(act: (link: Link, index: number) => Promise<void>): Promise<void> {
    const acts = this.#links.map((link, index) =>
      act(link, index).catch((error: Error) => {
        // One is lost, so the others need not go on; but all of them have to be at rest before anybody goes on.
        for (const other of this.#links) other.interrupt();
        throw error;
      }),
    );
    const results = await Promise.allSettled(acts);
    const failed = results.find(result => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  #checkCancelled(): void {
    this.#cancelling.signal.throwIfAborted();
  }

  #sent(): LinkProgress {
    return this.#links
      .map(link => link.progress())
      .reduce(
        (sum, one) => ({
          pages: sum.pages + one.pages,
          zeroPages: sum.zeroPages + one.zeroPages,
          zeroPagesSent: sum.zeroPagesSent + one.zeroPagesSent,
          resentPages: sum.resentPages + one.resentPages,
          bytes: sum.bytes + one.bytes,
        }),
        NOTHING_SENT,
      );
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
    });
  }

  #summary(startMs: number): MigrationSummary {
    const { pages, zeroPages, resentPages, bytes } = this.#sent();
    const { clock, hints, sent } = this.#options;
    return {
      totalMs: clock.nowMs() - startMs,
      downtimeMs: this.#runningMs - (this.#stoppedMs ?? this.#runningMs),
      rounds: this.#round,
      bytes,
      stateBytes: this.#stateBytes,
      pages,
      zeroPages,
      resentPages,
      freePages: hints?.pages.countUnsent(sent) ?? 0,
      unbackedPages: this.#unbackedPages,
      hintRaces: this.#hintRaces,
      guestShareMin: this.#shareMin,
    };
  }
}

async function sendStates(link: Link, states: readonly SavedState[]): Promise<void> {
  for (const { name, bytes } of states) await link.send({ kind: 'state', name, bytes });
}
