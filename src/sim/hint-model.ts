/**
 * A machine small enough to be known completely: a guest of a few pages, its hint queue, and a migration that
 * skips what is hinted. Host and guest are the real thing, {@link HintSession} and {@link HintResponder}, the real
 * {@link SoftwareDirtyLog} and {@link SlotBitmap}, in the order of {@link ROUND} and {@link LAST_ROUND}. The model adds
 * what they run in: an allocator, a ring, and two memories, of which only this matters: who has what the guest wrote
 * last. Every store writes something new, so one bit a page and memory is all there is to know.
 *
 * Whatever may happen next in reality is a step here; {@link ./hint-explorer.ts} tries all orders of them.
 */
import { HINT_ID_MIN, HINT_STOP, HintResponder, HintSession } from '../balloon/hint-session.ts';
import { SoftwareDirtyLog } from '../migration/dirty-log.ts';
import { LAST_ROUND, ROUND, type RoundStep } from '../migration/rounds.ts';
import { SlotBitmap } from '../migration/slot-bitmap.ts';
import { assert } from '../sys/error.ts';
import { HINT_ROUNDS_MAX, type HintModelOptions, PAGES_MAX, RING_SLOTS_MAX } from './hint-options.ts';
import { HintRing } from './hint-ring.ts';
import { kindOf, PAGES_PER_KIND, pageOf, stepOf } from './hint-steps.ts';

/** Words of a saved state. */
export const HINT_STATE_WORDS = 4;

/** What the guest's allocator says about a page. */
const FREE = 0;
/** Allocated, and nothing written to it yet: its contents are of no value. */
const BLANK = 1;
/** Allocated and written: losing this is losing data. */
const LIVE = 2;
/** Hinted and kept out of the allocator. */
const HELD = 3;

const PHASES = ['idle', 'requested', 'running', 'stopped', 'done'] as const;

const NO_PAGE = PAGES_PER_KIND - 1;

export class HintModel {
  readonly options: HintModelOptions;
  /** Every step that the migration itself takes, in order. */
  readonly plan: readonly RoundStep[];
  readonly #log: SoftwareDirtyLog;
  readonly #dirty: SlotBitmap;
  #session: HintSession;
  #responder: HintResponder;
  readonly #owners = new Uint8Array(PAGES_MAX);
  /** The live pages whose last store the source's memory (the destination's) still has, as bits. */
  #source = 0;
  #destination = 0;
  /** Half of a store is done: the page, or NO_PAGE. */
  #pending = NO_PAGE;
  readonly #ring = new HintRing();
  /** Index in {@link plan} of what the migration does next or is at. */
  #at = 0;
  /** What a trace calls each page; see {@link rename}. */
  readonly #names = [0, 1, 2, 3];
  readonly #keys = new Int32Array(PAGES_MAX);

  constructor(options: HintModelOptions) {
    const { pages, rounds, ringSlots, rules } = options;
    assert(pages >= 1 && pages <= PAGES_MAX, `a model of ${pages} pages`);
    assert(rounds >= 1 && rounds <= HINT_ROUNDS_MAX, `a model of ${rounds} rounds`);
    assert(ringSlots >= 2 && ringSlots <= RING_SLOTS_MAX, `a model of ${ringSlots} ring slots`);
    this.options = options;
    const last = rules === 'hints-after-last-sync' ? LAST_ROUND.slice(1) : LAST_ROUND;
    this.plan = [...Array.from({ length: rounds }, () => ROUND).flat(), ...last];
    this.#log = new SoftwareDirtyLog(pages);
    this.#dirty = new SlotBitmap(pages);
    this.#session = new HintSession(options);
    this.#responder = new HintResponder(options);
  }

  /** Every state in which a migration may begin, but for the names of the pages. */
  *firstStates(): Generator<Int32Array> {
    for (let live = 0; live <= this.options.pages; live++) {
      this.#session = new HintSession(this.options);
      this.#responder = new HintResponder(this.options);
      this.#owners.fill(FREE);
      this.#owners.fill(LIVE, 0, live);
      this.#source = (1 << live) - 1;
      this.#destination = 0;
      this.#pending = NO_PAGE;
      this.#ring.clear();
      this.#at = 0;
      this.#log.words[0] = 0;
      this.#dirty.words[0] = 0;
      this.#dirty.setAll();
      const state = new Int32Array(HINT_STATE_WORDS);
      this.rename();
      this.save(state);
      yield state;
    }
  }

  save(into: Int32Array): void {
    const { wished, active, last, exhausted, holding } = this.#responder.state;
    const { phase, id } = this.#session.state;
    into[0] =
      (this.#source << 0) |
      (this.#destination << 4) |
      (this.#log.words[0] << 8) |
      (this.#dirty.words[0] << 12) |
      (this.#owners[0] << 16) |
      (this.#owners[1] << 18) |
      (this.#owners[2] << 20) |
      (this.#owners[3] << 22) |
      (this.#pending << 24);
    into[1] =
      shortId(wished) |
      (shortId(active) << 4) |
      (shortId(last) << 8) |
      (Number(exhausted) << 12) |
      (Number(holding) << 13) |
      (PHASES.indexOf(phase) << 14) |
      (shortId(id) << 17) |
      (this.#ring.length << 21);
    into[2] = this.#at;
    into[3] = this.#ring.save();
  }

  /**
   * Gives the pages the order of what is known of them. Pages have no peculiarities, so states that differ only in
   * which page is which have the same future; this makes them equal. What a trace calls a page stays.
   */
  rename(): void {
    for (let page = 0; page < this.options.pages; page++) this.#keys[page] = this.#keyOf(page);
    for (let page = 1; page < this.options.pages; page++) {
      for (let at = page; at > 0 && this.#keys[at - 1] < this.#keys[at]; at--) this.#swap(at - 1);
    }
  }

  #keyOf(page: number): number {
    let key = this.#owners[page] | (Number(page === this.#pending) << 2);
    const bits = [this.#source, this.#destination, this.#log.words[0], this.#dirty.words[0]];
    for (const word of bits) key = (key << 1) | ((word >>> page) & 1);
    for (let slot = 0; slot < RING_SLOTS_MAX; slot++) {
      key = (key << 1) | Number(this.#ring.hintsAt(slot, page));
    }
    return key;
  }

  /** Swaps pages `page` and `page + 1`. */
  #swap(page: number): void {
    for (const array of [this.#owners, this.#names, this.#keys]) {
      const first = array[page];
      array[page] = array[page + 1];
      array[page + 1] = first;
    }
    this.#source = swapBits(this.#source, page);
    this.#destination = swapBits(this.#destination, page);
    this.#log.words[0] = swapBits(this.#log.words[0], page);
    this.#dirty.words[0] = swapBits(this.#dirty.words[0], page);
    if (this.#pending === page) this.#pending = page + 1;
    else if (this.#pending === page + 1) this.#pending = page;
    this.#ring.swap(page);
  }

  load(from: Int32Array): void {
    this.#source = from[0] & 15;
    this.#destination = (from[0] >>> 4) & 15;
    this.#log.words[0] = (from[0] >>> 8) & 15;
    this.#dirty.words[0] = (from[0] >>> 12) & 15;
    for (let page = 0; page < PAGES_MAX; page++) this.#owners[page] = (from[0] >>> (16 + page * 2)) & 3;
    this.#pending = (from[0] >>> 24) & 7;
    this.#responder = new HintResponder(this.options, {
      wished: longId(from[1] & 15),
      active: longId((from[1] >>> 4) & 15),
      last: longId((from[1] >>> 8) & 15),
      exhausted: ((from[1] >>> 12) & 1) !== 0,
      holding: ((from[1] >>> 13) & 1) !== 0,
    });
    this.#session = new HintSession(this.options, {
      phase: PHASES[(from[1] >>> 14) & 7],
      id: longId((from[1] >>> 17) & 15),
    });
    this.#at = from[2];
    this.#ring.load(from[3], (from[1] >>> 21) & 7);
  }

  /** The first page whose contents are lost for good; undefined when none is. */
  get lost(): number | undefined {
    for (let page = 0; page < this.options.pages; page++) {
      if (this.#owners[page] !== LIVE || page === this.#pending) continue;
      const has = this.#handedOver ? this.#destination : this.#source;
      if ((has & (1 << page)) === 0) return page;
    }
    return undefined;
  }

  /** What a trace calls a page. */
  nameOf(page: number): number {
    return this.#names[page];
  }

  /** A page is in use again while the ring still holds its hint: the case that the rules are about. */
  get reusedBeforeProcessed(): boolean {
    return this.#ring.hintsAny(page => this.#owners[page] === LIVE);
  }

  get #handedOver(): boolean {
    return this.#at === this.plan.length;
  }

  get #guestRuns(): boolean {
    return this.plan.indexOf('stop-guest') >= this.#at;
  }

  /** Calls `visit` with every step that is possible now. */
  forEachStep(visit: (step: number) => void): void {
    if (this.#handedOver) return;
    if (this.#guestRuns) this.#forEachGuestStep(visit);
    if (this.#ring.length > 0) visit(stepOf('process'));
    const at = this.plan[this.#at];
    if (at === 'send' || at === 'send-rest') {
      for (let page = 0; page < this.options.pages; page++) {
        if (this.#dirty.has(page)) visit(stepOf('send', page));
      }
      // A round may end with pages unsent; the last one may not.
      if (at === 'send-rest' && this.#dirty.countIn() > 0) return;
    }
    // A guest is stopped between its instructions and with its log complete.
    if (at === 'stop-guest' && this.#pending !== NO_PAGE) return;
    visit(stepOf('next'));
  }

  #forEachGuestStep(visit: (step: number) => void): void {
    if (this.#pending !== NO_PAGE) visit(stepOf('log'));
    for (let page = 0; page < this.options.pages; page++) {
      const owner = this.#owners[page];
      // One processor writes at a time; another may do anything else meanwhile, but to the same page.
      if (page === this.#pending) continue;
      if (owner === FREE) visit(stepOf('allocate', page));
      if (owner === BLANK || owner === LIVE) {
        visit(stepOf('free', page));
        if (this.#pending === NO_PAGE) visit(stepOf('store', page));
      }
      // At DONE, or earlier when memory is short: a hint is no promise.
      if (owner === HELD) visit(stepOf('release', page));
    }
    if (this.#responder.state.wished !== this.#session.commandId) visit(stepOf('read-config'));
    const room = this.options.ringSlots - this.#ring.length;
    switch (this.#responder.next()) {
      case 'begin':
        if (room > 1) visit(stepOf('begin'));
        break;
      case 'hint':
        if (room > 1) this.#forEachFree(page => visit(stepOf('hint', page)));
        if (!this.#owners.subarray(0, this.options.pages).includes(FREE)) visit(stepOf('hint', NO_PAGE));
        break;
      case 'end':
        visit(stepOf('end'));
        break;
    }
  }

  #forEachFree(visit: (page: number) => void): void {
    for (let page = 0; page < this.options.pages; page++) if (this.#owners[page] === FREE) visit(page);
  }

  /** Takes one step. Returns what changed, for {@link describe}. */
  apply(step: number): string {
    const page = pageOf(step);
    const name = this.#names[page];
    switch (kindOf(step)) {
      case 'store':
        this.#pending = page;
        return this.#storeHalf(page, true);
      case 'log': {
        const pending = this.#pending;
        this.#pending = NO_PAGE;
        return this.#storeHalf(pending, false);
      }
      case 'allocate':
        this.#owners[page] = BLANK;
        return `guest: allocates page ${name}`;
      case 'free':
        this.#owners[page] = FREE;
        this.#source &= ~(1 << page);
        this.#destination &= ~(1 << page);
        return `guest: frees page ${name}`;
      case 'release':
        this.#owners[page] = FREE;
        if (!this.#owners.includes(HELD)) this.#responder.release();
        return `guest: takes the hinted page ${name} back`;
      case 'read-config':
        this.#responder.onConfig(this.#session.commandId);
        return `guest: reads ${idName(this.#session.commandId)} in the configuration`;
      case 'begin': {
        const id = this.#responder.begin();
        this.#ring.pushId(id);
        return `guest: queues its answer, ${idName(id)}`;
      }
      case 'hint':
        if (page === NO_PAGE) {
          this.#responder.exhaust();
          return 'guest: has no free page left to hint';
        }
        this.#owners[page] = HELD;
        this.#responder.hold();
        this.#ring.pushPage(page);
        return `guest: queues the hint that page ${name} is free`;
      case 'end':
        this.#responder.end();
        this.#ring.pushId(HINT_STOP);
        return 'guest: queues STOP';
      case 'process':
        return this.#process();
      case 'next':
        return this.#next();
      case 'send':
        this.#dirty.drain(page, page + 1, 1);
        this.#destination = (this.#destination & ~(1 << page)) | (this.#source & (1 << page));
        return `host: sends page ${name}`;
    }
  }

  #storeHalf(page: number, first: boolean): string {
    const logFirst = this.options.rules === 'logged-before-store';
    if (first === logFirst) {
      this.#log.add(page, 1);
      return `guest: page ${this.#names[page]} enters the write log`;
    }
    this.#owners[page] = LIVE;
    this.#source |= 1 << page;
    this.#destination &= ~(1 << page);
    return `guest: writes to page ${this.#names[page]}`;
  }

  #process(): string {
    const buffer = this.#ring.pop();
    if ('page' in buffer) return this.#hint(buffer.page);
    this.#session.onIdBuffer(buffer.id);
    return buffer.id === HINT_STOP
      ? 'host: takes STOP from the queue'
      : `host: takes the answer ${idName(buffer.id)} from the queue`;
  }

  #hint(page: number): string {
    const { rules } = this.options;
    const takes = `host: takes the hint for page ${this.#names[page]} from the queue and`;
    if (!this.#session.onPages() && rules !== 'ids-ignored') {
      return `${takes} ignores it, for its session is over`;
    }
    this.#dirty.clear(page, 1);
    const skips = `${takes} clears its bit in the dirty bitmap`;
    if (rules === 'log-cleared') {
      this.#log.words[0] &= ~(1 << page);
      return `${skips} and in the write log`;
    }
    if (rules === 'page-freed') {
      this.#source &= ~(1 << page);
      return `${skips}, and frees the page`;
    }
    return skips;
  }

  #next(): string {
    const step = this.plan[this.#at++];
    switch (step) {
      case 'stop-hints':
        this.#session.stop();
        return 'host: ends the hint session';
      case 'stop-guest':
        return 'host: stops the guest';
      case 'sync':
        this.#log.collect(0, this.#dirty.slots, this.#dirty);
        return 'host: syncs: the write log moves into the dirty bitmap and is cleared';
      case 'start-hints':
        return `host: asks for hints under ${idName(this.#session.start())}`;
      case 'send':
        return 'host: ends the round';
      case 'send-rest':
        return 'host: has nothing left to send';
      case 'hand-over':
        return 'host: lets the destination run';
    }
  }
}

/** `word` with the bits `index` and `index + 1` in each other's place. */
function swapBits(word: number, index: number): number {
  const differ = ((word >>> index) ^ (word >>> (index + 1))) & 1;
  return word ^ (differ << index) ^ (differ << (index + 1));
}

/** Ids are counted from HINT_ID_MIN; STOP and DONE keep their numbers. */
const shortId = (id: number): number => (id < HINT_ID_MIN ? id : id - HINT_ID_MIN + 2);
const longId = (short: number): number => (short < 2 ? short : short - 2 + HINT_ID_MIN);

function idName(id: number): string {
  if (id === HINT_STOP) return 'STOP';
  return id < HINT_ID_MIN ? 'DONE' : `id ${id - HINT_ID_MIN + 1}`;
}
