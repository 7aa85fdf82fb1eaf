/**
 * The pages that a guest has still to get which runs already, at its destination: which are missing, what the source is asked
 * for, and what is said when all are there. How a page is put under a running guest is its machine's ({@link LatePages}).
 */
import { forEachFilled } from '../memory/word-stretches.ts';
import type { Inlet } from './destination-link.ts';
import type { Clock, DestinationMachine, LatePages } from './machine.ts';
import type { Ram } from './ram.ts';
import { SlotBitmap } from './slot-bitmap.ts';
import { FEATURE_POSTCOPY } from './stream/messages.ts';
import { type FaultCounts, type MissingPages, WANTED_PAGES_MAX } from './stream/postcopy-messages.ts';
import { StreamError } from './stream/section.ts';

export interface ArrivalState extends FaultCounts {
  readonly missingPages: number;
  /** The source is there, and sends. Otherwise those who need a page wait for {@link PostcopyArrival.resume}. */
  readonly connected: boolean;
}

export class PostcopyArrival {
  readonly missing: SlotBitmap;
  readonly #late: LatePages;
  readonly #ram: Ram;
  readonly #held: SlotBitmap;
  readonly #clock: Clock;
  /** Over which the source is asked; none while it is gone. */
  #inlet: Inlet | undefined;
  /** Pages that were asked for over these connections, and those that wait for the next section. */
  readonly #asked: SlotBitmap;
  #due: number[] = [];
  #asking = false;
  /** Since when a thread waits for a page. */
  readonly #waiting = new Map<number, number>();
  #faults = 0;
  #longestMs = 0;
  #expected = false;
  /** Connections over which all has been sent. */
  #rests = 0;
  #arrived = false;

  private constructor(late: LatePages, ram: Ram, held: SlotBitmap, clock: Clock) {
    this.missing = new SlotBitmap(ram.slots, late.missing);
    this.#asked = new SlotBitmap(ram.slots);
    this.#late = late;
    this.#ram = ram;
    this.#held = held;
    this.#clock = clock;
    late.onFaults = slots => this.#faulted(slots);
  }

  /** Where these features have it; undefined also where the machine cannot have it. */
  static open(
    features: number,
    ram: Ram,
    held: SlotBitmap,
    { machine, clock }: { readonly machine: DestinationMachine; readonly clock: Clock },
  ): PostcopyArrival | undefined {
    const late = (features & FEATURE_POSTCOPY) === 0 ? undefined : machine.latePages;
    return late && new PostcopyArrival(late, ram, held, clock);
  }

  /** The source has said that pages come later. */
  get expected(): boolean {
    return this.#expected;
  }

  /** Undefined where no page comes later. */
  get state(): ArrivalState | undefined {
    if (!this.#expected) return undefined;
    return {
      missingPages: this.#arrived ? 0 : this.missing.countIn(),
      connected: this.#inlet !== undefined,
      ...this.#counts,
    };
  }

  get #counts(): FaultCounts {
    const waitedMs = [...this.#waiting.values()].reduce(
      (longest, sinceMs) => Math.max(longest, this.#clock.nowMs() - sinceMs),
      this.#longestMs,
    );
    return { faults: this.#faults, longestUs: Math.min(2 ** 32 - 1, Math.round(waitedMs * 1e3)) };
  }

  /** Before the guest runs: these pages come later, and what was received of them counts for nothing. */
  expect({ start, words }: MissingPages): void {
    this.#expected = true;
    const end = Math.min(this.#ram.slots, start + words.length * 32);
    // As long as the section: of a large guest there are many.
    const stale = new SlotBitmap(end - start, words.slice());
    const first = start / 32;
    forEachFilled(stale.words, 0, stale.words.length, (from, to) => {
      for (let word = from; word < to; word++) stale.words[word] &= this.#held.words[first + word];
    });
    // Only what holds something costs work.
    for (let at = 0; stale.drain(at, stale.slots, stale.slots); at = stale.start + stale.count) {
      this.#late.forget(this.#ram, start + stale.start, stale.count);
      this.#held.clear(start + stale.start, stale.count);
    }
    // After that: a page that is discarded is missing no more.
    forEachFilled(words, 0, words.length, (from, to) => {
      for (let word = from; word < to; word++) Atomics.or(this.missing.words, first + word, words[word]);
    });
  }

  /** What comes over this connection from now on comes under a guest that runs. */
  receiveOver(inlet: Inlet): void {
    inlet.receiveLate(this);
  }

  /** The guest runs. Where all has come, that is the end of it. */
  begin(inlets: readonly Inlet[]): void {
    if (!this.#expected) {
      void this.#late.close();
      return;
    }
    for (const inlet of inlets) this.receiveOver(inlet);
    if (inlets.length > 0) this.#resume(inlets[0]);
  }

  /** The source came back over a first connection, and is told what it is to bring. */
  async recover(inlet: Inlet, features: number): Promise<void> {
    this.#rests = 0;
    try {
      await inlet.reply({ kind: 'welcome', features });
      await inlet.reply({ kind: 'missing', missing: this.missing });
      await inlet.reply({ kind: 'ready' });
      this.#resume(inlet);
    } catch {
      // It is gone again.
    }
  }

  /** The source brings them over connections of which this is the first. What was asked for before is asked again. */
  #resume(inlet: Inlet): void {
    this.#inlet = inlet;
    this.#asked.clear(0, this.#asked.slots);
    this.#due = [];
    this.#ask([...this.#waiting.keys()]);
  }

  /** The source is gone. */
  pause(inlet: Inlet): void {
    if (this.#inlet === inlet) this.#inlet = undefined;
  }

  /** Pages came, with what they hold or as zeros; those that are not missing any more stay as they are. */
  place(start: number, count: number, from: Uint8Array | undefined, at: number): void {
    this.#late.place(start, count, from, at);
    if (this.#waiting.size === 0) return;
    const nowMs = this.#clock.nowMs();
    for (const [slot, sinceMs] of this.#waiting) {
      if (this.missing.has(slot)) continue;
      this.#waiting.delete(slot);
      this.#longestMs = Math.max(this.#longestMs, nowMs - sinceMs);
    }
  }

  /** All was sent over one of `connections`. @throws StreamError when it was over the last, and something did not come */
  async rest(connections: number): Promise<void> {
    this.#rests++;
    if (this.#rests < connections) return;
    const missing = this.missing.countIn();
    if (missing > 0)
      throw new StreamError('payload', `the source sent all, and ${missing} pages did not come`);
    this.#arrived = true;
    this.#waiting.clear();
    await this.#late.close();
    // If this does not arrive, the source comes back and hears it then.
    await this.#inlet?.reply({ kind: 'arrived', ...this.#counts }).catch(() => {});
  }

  #faulted(slots: readonly number[]): void {
    const nowMs = this.#clock.nowMs();
    for (const slot of slots) {
      // It may have come meanwhile; its thread was woken then.
      if (!this.missing.has(slot)) continue;
      this.#faults++;
      if (!this.#waiting.has(slot)) this.#waiting.set(slot, nowMs);
    }
    this.#ask(slots);
  }

  #ask(slots: readonly number[]): void {
    for (const slot of slots) {
      if (this.#asked.has(slot) || !this.missing.has(slot)) continue;
      this.#asked.set(slot, 1);
      this.#due.push(slot);
    }
    if (!this.#asking) void this.#askDue();
  }

  /** One section after the other; what faults meanwhile is in the next. */
  async #askDue(): Promise<void> {
    this.#asking = true;
    try {
      while (this.#due.length > 0 && this.#inlet !== undefined) {
        const slots = this.#due.splice(0, WANTED_PAGES_MAX);
        await this.#inlet.reply({ kind: 'want', slots, ...this.#counts });
      }
    } catch {
      // The connection is gone: all is asked for again over the next.
    } finally {
      this.#asking = false;
    }
  }
}
