/**
 * The queue of free page hint sessions: 4-byte command ids and blocks of pages that the guest does not use. The
 * rules of what counts are balloon/hint-session.ts's; here the pages that count go to the sink that the caller
 * gave. They are never discarded: a hint does not promise that the guest stays away from a page.
 */
import { HINT_COMMAND_BYTES, type HintPhase, HintSession } from '../balloon/hint-session.ts';
import { type PageList, PageListError } from '../balloon/page-list.ts';
import type { Profile } from '../balloon/profiles.ts';
import type { PageSink } from '../memory/page.ts';
import type { DeviceCounters } from './counters.ts';
import type { ListWalk } from './list-walk.ts';
import type { PageAccounts } from './page-accounts.ts';

export class HintChannel {
  #session: HintSession;
  readonly #profile: Profile;
  readonly #counters: DeviceCounters;
  readonly #sink: PageSink;
  readonly #changed: () => void;
  #running = false;
  /** A test switch: blocks count whatever session they are of, and a guest that moves loses data. */
  ignoreIds = false;
  /** Runs that counted in the newest session. */
  ranges = 0;
  /** Pages that counted for nothing, because they came outside of their session. */
  stalePages = 0;

  /** `changed` is called when the session's phase changed, and so perhaps the configuration. */
  constructor(profile: Profile, counters: DeviceCounters, sink: PageSink, changed: () => void) {
    this.#profile = profile;
    this.#counters = counters;
    this.#sink = sink;
    this.#changed = changed;
    this.#session = new HintSession({ hasDone: this.#hasDone });
  }

  get session(): HintSession {
    return this.#session;
  }

  get #hasDone(): boolean {
    const { freePages } = this.#profile;
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

  /** The guest has the queue running. */
  get running(): boolean {
    return this.#running;
  }

  /** The guest keeps what it hinted out of use: it has begun a session that is not done. */
  get holding(): boolean {
    return this.#running && this.#hasDone && (this.phase === 'running' || this.phase === 'stopped');
  }

  get phase(): HintPhase {
    return this.session.phase;
  }

  /** What the configuration space shows. */
  get commandId(): number {
    return this.session.commandId;
  }

  startQueue(): void {
    this.#running = true;
  }

  /** The ring is gone: a session that ran cannot go on. */
  stopQueue(): void {
    this.#running = false;
    if (this.session.stop()) this.#changed();
  }

  /** Asks the guest for hints under a new id, which is returned. */
  start(): number {
    this.ranges = 0;
    const id = this.session.start();
    this.#changed();
    return id;
  }

  stop(): void {
    if (this.session.stop()) this.#changed();
  }

  /** Tells the guest that it may use the hinted pages again. */
  done(): void {
    if (this.session.done()) this.#changed();
  }

  /**
   * Takes one buffer: a command id, blocks of pages, or both, in this order. The blocks are begun as the list of `walk`.
   * @throws PageListError when it is neither
   */
  take(walk: ListWalk, accounts: PageAccounts): void {
    const { list } = walk;
    this.#counters.hintBuffers++;
    if (list.length > 0) this.#takeCommand(list);
    if (list.extentCount > 0) {
      // The command is read; what is left of the buffer is blocks.
      list.length = 0;
      walk.begin(this.#profile.freePages.format, this.#hinted, accounts);
    }
  }

  reset(): void {
    this.session.reset();
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
      this.#counters.hintedPages += count;
      this.#sink.add(pfn, count);
    },
  };
}
