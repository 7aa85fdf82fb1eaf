/**
 * A guest for migrations to move: it allocates, writes, frees and hints by chance, takes hinted pages back when it likes
 * and writes to them at once, and knows what every page of its has to hold. The rules of its hints are the real ones,
 * {@link HintResponder} and {@link HintSession}; its queue is served late.
 */
import { HINT_STOP, HintResponder, HintSession } from '../balloon/hint-session.ts';
import type { Random } from '../guest/random.ts';
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import type { DirtyLog } from '../migration/dirty-log.ts';
import type { Clock, FreePageChannel } from '../migration/machine.ts';
import type { Ram } from '../migration/ram.ts';
import { AerostatError } from '../sys/error.ts';

const WORDS = PAGE_SIZE / 4;
const FREE = 0;
const LIVE = 1;
const HELD = 2;
const RING_SLOTS = 64;

/** How busy the guest is, per millisecond. */
interface GuestLoad {
  readonly writesPerMs: number;
  readonly hintsPerMs: number;
  /** Chance, each millisecond, that some of what is held goes back early, to be used at once. */
  readonly earlyRelease: number;
  /** Buffers that the device takes from the queue. */
  readonly servedPerMs: number;
  /** Untruths in the hint queue: pages in use, pages twice, no pages, ids that are over or never were. */
  readonly liesPerMs: number;
}

export class SimGuest {
  readonly ram: Ram;
  readonly load: GuestLoad;
  readonly hints: SimHints;
  running = false;
  share = 1;
  readonly #random: Random;
  readonly #clock: Clock;
  readonly #log: (DirtyLog & PageSink) | undefined;
  readonly #owners: Uint8Array;
  /** What each live page holds: a word, all over the page; 0 is a page of zeros. */
  readonly #stamps: Uint32Array;
  #serial = 1;
  /** A guest that goes on does not live twice. */
  #life = 0;

  constructor(ram: Ram, random: Random, clock: Clock, load: GuestLoad, log?: DirtyLog & PageSink) {
    this.ram = ram;
    this.load = load;
    this.#random = random;
    this.#clock = clock;
    this.#log = log;
    this.#owners = new Uint8Array(ram.slots);
    this.#stamps = new Uint32Array(ram.slots);
    this.hints = new SimHints(this, random, clock);
  }

  get livePages(): number {
    return this.#owners.reduce((pages, owner) => pages + Number(owner === LIVE), 0);
  }

  /** Uses about this share of memory, and leaves what else it touched free. */
  populate(share: number): void {
    for (let slot = 0; slot < this.ram.slots; slot++) {
      this.#write(slot);
      if (!this.#random.chance(share)) this.#owners[slot] = FREE;
    }
  }

  /** Runs until it is stopped. */
  async run(): Promise<void> {
    this.running = true;
    const life = ++this.#life;
    while (this.running && life === this.#life) {
      this.step();
      await this.#clock.sleep(1 / this.share);
    }
  }

  /** About a millisecond of a guest's life. */
  step(): void {
    const random = this.#random;
    for (let i = 0; i < this.load.writesPerMs; i++) {
      const slot = random.below(this.ram.slots);
      if (this.#owners[slot] === HELD) continue;
      if (this.#owners[slot] === LIVE && random.chance(0.3)) this.#owners[slot] = FREE;
      else this.#write(slot);
    }
    this.hints.step();
    if (random.chance(this.load.earlyRelease)) this.#releaseSome();
  }

  /** Takes a free page out of the allocator; undefined when the search finds none. */
  hold(): number | undefined {
    const from = this.#random.below(this.ram.slots);
    for (let i = 0; i < this.ram.slots; i++) {
      const slot = (from + i) % this.ram.slots;
      if (this.#owners[slot] !== FREE) continue;
      this.#owners[slot] = HELD;
      return slot;
    }
    return undefined;
  }

  releaseAll(): void {
    for (let slot = 0; slot < this.ram.slots; slot++) {
      if (this.#owners[slot] === HELD) this.#owners[slot] = FREE;
    }
  }

  /** Looks at every live page. @throws AerostatError AEROSTAT_SIM_LOST when one does not hold what was written */
  verify(where: string): void {
    const bytes = new Uint8Array(PAGE_SIZE);
    const words = new Uint32Array(bytes.buffer);
    for (let slot = 0; slot < this.ram.slots; slot++) {
      if (this.#owners[slot] !== LIVE) continue;
      this.ram.read(slot, 1, bytes, 0);
      if (words.every(word => word === this.#stamps[slot])) continue;
      throw new AerostatError(
        'AEROSTAT_SIM_LOST',
        `page ${slot} lost its contents ${where}: 0x${words[0].toString(16)} in place of 0x${this.#stamps[slot].toString(16)}`,
      );
    }
  }

  save(): Uint8Array {
    const state = new Uint32Array(1 + this.ram.slots * 2);
    state[0] = this.#serial;
    state.set(this.#owners, 1);
    state.set(this.#stamps, 1 + this.ram.slots);
    return new Uint8Array(state.buffer);
  }

  /** @throws AerostatError AEROSTAT_SIM_STATE when the state is not of such a guest */
  restore(bytes: Uint8Array): void {
    const { slots } = this.ram;
    if (bytes.length !== (1 + slots * 2) * 4)
      throw new AerostatError('AEROSTAT_SIM_STATE', 'no state of this guest');
    const state = new Uint32Array(new Uint8Array(bytes).buffer);
    this.#serial = state[0];
    this.#owners.set(state.subarray(1, 1 + slots));
    this.#stamps.set(state.subarray(1 + slots));
    // No session survives the journey: what was held for one is free again.
    this.releaseAll();
  }

  #write(slot: number): void {
    // Some pages become zeros, which travel in another way.
    const stamp = this.#random.chance(0.1) ? 0 : this.#serial++;
    this.ram.write(slot, 1, new Uint8Array(new Uint32Array(WORDS).fill(stamp).buffer), 0);
    this.#owners[slot] = LIVE;
    this.#stamps[slot] = stamp;
    this.#log?.add(slot, 1);
  }

  /** Memory is short: held pages go back, and are written to before the host has read that they were free. */
  #releaseSome(): void {
    for (let slot = 0; slot < this.ram.slots; slot++) {
      if (this.#owners[slot] === HELD && this.#random.chance(0.5)) this.#write(slot);
    }
    if (!this.#owners.includes(HELD)) this.hints.released();
  }
}

/** What is in the queue: a command id, or pages that are said to be free. */
type HintBuffer = { readonly id: number } | { readonly pfn: number; readonly pages: number };

/** The guest's and the device's side of free page hints, and the queue between them. */
class SimHints implements FreePageChannel {
  /** A test switch: hints count whatever session they are of. Guests lose data then. */
  ignoreIds = false;
  /** Takes the pages that count. */
  sink: PageSink | undefined;
  pages = 0;
  /** Pages that counted for nothing. */
  stalePages = 0;
  readonly #session = new HintSession({ hasDone: true });
  readonly #responder = new HintResponder({ hasDone: true });
  readonly #ring: HintBuffer[] = [];
  readonly #guest: SimGuest;
  readonly #random: Random;
  readonly #clock: Clock;
  #answered = false;

  constructor(guest: SimGuest, random: Random, clock: Clock) {
    this.#guest = guest;
    this.#random = random;
    this.#clock = clock;
  }

  get finished(): boolean {
    return this.#answered && this.#session.phase !== 'running';
  }

  async start(): Promise<void> {
    await this.#clock.sleep(this.#random.below(2));
    this.#session.start();
    this.pages = 0;
    this.#answered = false;
  }

  async stop(): Promise<void> {
    // The device's thread serves its queue until it hears of this.
    await this.#clock.sleep(this.#random.below(3));
    this.#session.stop();
  }

  async done(): Promise<void> {
    this.#session.done();
  }

  released(): void {
    this.#responder.release();
  }

  step(): void {
    // Any interrupt makes the guest read the configuration; it may also be late.
    if (this.#random.chance(0.7)) this.#responder.onConfig(this.#session.commandId);
    for (let i = 0; i < this.#guest.load.hintsPerMs && this.#answer(); i++);
    for (let i = 0; i < this.#guest.load.liesPerMs && this.#ring.length + 2 < RING_SLOTS; i++) {
      this.#ring.push(this.#lie());
    }
    for (let i = 0; i < this.#guest.load.servedPerMs && this.#ring.length > 0; i++) this.#serve();
  }

  /** What the driver does next; false when it has to wait. */
  #answer(): boolean {
    const responder = this.#responder;
    const room = RING_SLOTS - this.#ring.length;
    switch (responder.next()) {
      case 'begin':
        if (room < 2) return false;
        this.#ring.push({ id: responder.begin() });
        return true;
      case 'hint': {
        if (room < 2) return false;
        const slot = this.#guest.hold();
        if (slot === undefined) {
          responder.exhaust();
        } else {
          responder.hold();
          this.#ring.push({ pfn: this.#guest.ram.pfnOf(slot), pages: 1 });
        }
        return true;
      }
      case 'end':
        responder.end();
        this.#ring.push({ id: HINT_STOP });
        return true;
      case 'release':
        this.#guest.releaseAll();
        responder.release();
        return true;
      case 'wait':
        return false;
    }
  }

  #serve(): void {
    const buffer = this.#ring.shift();
    if (buffer === undefined) return;
    if ('id' in buffer) {
      this.#session.onIdBuffer(buffer.id);
      this.#answered ||= this.#session.phase === 'running';
    } else if (this.#session.onPages() || this.ignoreIds) {
      this.pages += buffer.pages;
      this.sink?.add(buffer.pfn, buffer.pages);
    } else {
      this.stalePages += buffer.pages;
    }
  }

  /** Something that is not so, or not so any more. */
  #lie(): HintBuffer {
    const random = this.#random;
    const { ram } = this.#guest;
    if (random.chance(0.2)) {
      const { id } = this.#session;
      return {
        id: random.chance(0.5) ? random.u32() : Math.max(HINT_STOP, (id ?? HINT_STOP) - random.below(3)),
      };
    }
    const pfn = ram.pfnOf(random.below(ram.slots));
    if (random.chance(0.1)) return { pfn: pfn + ram.slots, pages: 2 ** 31 };
    return { pfn, pages: random.between(1, 64) };
  }
}
