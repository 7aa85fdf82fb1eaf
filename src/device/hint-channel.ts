/**
 * The queue of free page hint sessions: 4-byte command ids and blocks of pages that the guest does not use. The
 * rules of what counts are balloon/hint-session.ts's; here the pages that count go to `PartWorld.unusedPages`. They are not
 * discarded, since a hint does not promise that the guest stays away from a page; but where HINT_WAIT_ON_ACK was
 * negotiated, it does until the buffer is back, and they are discarded before that.
 */
import { HINT_COMMAND_BYTES, HINT_ID_MIN, type HintPhase, HintSession } from '../balloon/hint-session.ts';
import { type PageList, PageListError } from '../balloon/page-list.ts';
import type { PageSink } from '../memory/page.ts';
import { either, integer, oneOf } from '../sys/shape.ts';
import type { PageAccount } from './page-account.ts';
import { type DevicePart, type PartWorld, savedFields } from './part.ts';
import { PromptDiscards } from './prompt-discards.ts';
import type { RunningQueue } from './running-queue.ts';

export class HintChannel implements DevicePart {
  readonly roles = ['hint'] as const;
  readonly counters = { hintBuffers: 0, hintedPages: 0 };
  #session: HintSession;
  readonly #world: PartWorld;
  readonly #prompt: PromptDiscards;
  #ring: RunningQueue | undefined;
  #features = 0n;
  /** A test switch: blocks count whatever session they are of, and a guest that moves loses data. */
  ignoreIds = false;
  /** Runs that counted in the newest session. */
  ranges = 0;
  /** Pages that counted for nothing, because they came outside of their session. */
  stalePages = 0;

  constructor(world: PartWorld) {
    this.#world = world;
    this.#prompt = new PromptDiscards(world);
    this.#session = new HintSession({ hasDone: this.#hasDone });
  }

  get session(): HintSession {
    return this.#session;
  }

  get #hasDone(): boolean {
    const { freePages } = this.#world.profile;
    return freePages.kind === 'session' && freePages.hasDone;
  }

  /**
   * Ids begin at `idMin`. A device that may take the place of one that died, and does not know what that one issued,
   * begins somewhere else: the ring may still hold what the guest sent under an id of then, and Linux answers the id of
   * its last session no second time.
   */
  beginAt(idMin: number): void {
    this.#session = new HintSession({ hasDone: this.#hasDone, idMin });
  }

  /** Goes on after the session `id` of another device, which is over: no id is issued twice to one guest. */
  resumeAfter(id: number): void {
    this.#session = new HintSession({ hasDone: this.#hasDone }, { phase: 'done', id });
  }

  /** The same after a device of this host, whose driver runs on and is told that the session is over. */
  takeOver(id: number): void {
    this.resumeAfter(id);
    this.#showId();
  }

  /** The guest has the queue running. */
  get running(): boolean {
    return this.#ring !== undefined;
  }

  /** The guest keeps what it hinted out of use: it has begun a session that is not done. */
  get holding(): boolean {
    return this.running && this.#hasDone && (this.phase === 'running' || this.phase === 'stopped');
  }

  get phase(): HintPhase {
    return this.session.phase;
  }

  /** What the configuration space shows. */
  get commandId(): number {
    return this.session.commandId;
  }

  negotiated(features: bigint): void {
    this.#features = features;
  }

  /** The guest keeps blocks out of use until their buffers are back, and counts on nothing that they hold. */
  get #mayDiscard(): boolean {
    const { profile, config } = this.#world;
    const poisons = (this.#features & profile.poisonFeature) !== 0n && config.poisonValue !== 0;
    return (this.#features & profile.hintAckFeature) !== 0n && !poisons;
  }

  start(ring: RunningQueue): void {
    this.#ring = ring;
  }

  /** The ring is gone: a session that ran cannot go on. */
  stop(ring: RunningQueue): void {
    if (ring.kept) this.#prompt.forget();
    this.#ring = undefined;
    this.end();
  }

  /** Asks the guest for hints under a new id, which is returned. */
  begin(): number {
    this.ranges = 0;
    const id = this.session.start();
    this.#changed();
    return id;
  }

  /** Tells the guest that it need hint no more; it keeps what it hinted. */
  end(): void {
    if (this.session.stop()) this.#changed();
  }

  /** Tells the guest that it may use the hinted pages again. */
  done(): void {
    if (this.session.done()) this.#changed();
  }

  /**
   * A buffer is a command id, blocks of pages, or both, in this order.
   * @throws PageListError when it is neither
   */
  serve(ring: RunningQueue): true {
    const list = ring.readList();
    this.counters.hintBuffers++;
    if (list.length > 0) this.#takeCommand(list);
    if (list.extentCount > 0) {
      // The command is read; what is left of the buffer is blocks.
      list.length = 0;
      ring.walk.begin(this.#world.profile.freePages.format, this.#hinted, this.#world.accounts);
    }
    return true;
  }

  batchBegun(): void {
    this.#prompt.begin();
  }

  mayReturn(): boolean {
    return this.#prompt.mayReturn();
  }

  reset(): void {
    this.session.reset();
    this.#showId();
  }

  #changed(): void {
    const { host } = this.#world;
    if (this.#showId()) host.configChanged();
    host.hintChanged();
  }

  /** Whether the driver sees another id from now on. */
  #showId(): boolean {
    const { config } = this.#world;
    const shown = config.hintCommandId;
    config.hintCommandId = this.commandId;
    return shown !== this.commandId;
  }

  #takeCommand(list: PageList): void {
    // A block must not be touched when the command in front of it is nonsense.
    if (list.length !== HINT_COMMAND_BYTES) {
      throw new PageListError(
        'message',
        `a hint command of ${list.length} bytes; it has ${HINT_COMMAND_BYTES}`,
      );
    }
    const before = this.session.phase;
    this.session.onIdBuffer(list.view.getUint32(0, true));
    if (this.session.phase !== before) this.#changed();
  }

  readonly #hinted: PageSink = {
    add: (pfn, count) => {
      if (!this.session.onPages() && !this.ignoreIds) {
        this.stalePages += count;
        return;
      }
      this.ranges++;
      this.counters.hintedPages += count;
      this.#world.accounts.forEachPart(pfn, count, this.#unused);
    },
  };

  readonly #unused = (account: PageAccount, page: number, count: number): void => {
    this.#world.noteUnused(account, page, count);
    if (this.#mayDiscard) this.#prompt.discard(account, page, count);
  };

  /** The id of the last session, 0 where there was none. */
  readonly saved = savedFields(
    { hintId: either(oneOf([0]), integer(HINT_ID_MIN, 0xffff_ffff)) },
    () => ({ hintId: this.session.id ?? 0 }),
    ({ hintId }) => {
      if (hintId !== 0) this.takeOver(hintId);
      else this.#showId();
    },
  );
}
