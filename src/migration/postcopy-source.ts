/**
 * The source's part after its guest runs elsewhere and has yet to get pages: it brings them, also over new connections where
 * the old ones broke, for as long as it takes. There is no way back from here: the guest is the destination's, and this side
 * never runs it again.
 */
import { forEachFilled } from '../memory/word-stretches.ts';
import { deferred } from '../sys/deferred.ts';
import { MigrationError } from './errors.ts';
import type { Clock, SourceMachine } from './machine.ts';
import { STRIPE_PAGES } from './page-sender.ts';
import { PostcopySupply } from './postcopy-supply.ts';
import type { Ram } from './ram.ts';
import { SlotBitmap } from './slot-bitmap.ts';
import type { Link, PostcopyListener } from './source-link.ts';
import type { SourceLinks } from './source-links.ts';
import { type FaultCounts, type MissingPages, type Want, writeMissing } from './stream/postcopy-messages.ts';

/** Before the first attempt to reach a destination that was lost, and the next ones; a person need not wait for them. */
const FIRST_RETRY_MS = 500;
const RETRY_MS = 5000;

export interface PostcopyProgress extends FaultCounts {
  /** Pages that have still to be sent, and those that were left when the guest began to run there. */
  readonly leftPages: number;
  readonly latePages: number;
  /** Why the destination gets nothing; null while it does. */
  readonly broken: string | null;
  /** How often the connections broke and were made again. */
  readonly recoveries: number;
}

interface PostcopySourceOptions {
  readonly ram: Ram;
  readonly machine: SourceMachine;
  /** Loses what comes later, and keeps what the destination needs before it can run the guest. */
  readonly dirty: SlotBitmap;
  readonly links: SourceLinks;
  readonly clock: Clock;
  readonly changed: () => void;
}

export class PostcopySource implements PostcopyListener {
  readonly slots: number;
  readonly #options: PostcopySourceOptions;
  readonly #supply: PostcopySupply;
  readonly #latePages: number;
  #broken: string | null = null;
  #recoveries = 0;
  #tryNow = new AbortController();
  readonly #end = deferred();
  #abandoned = false;

  private constructor(options: PostcopySourceOptions) {
    const { ram, machine, dirty } = options;
    this.#options = options;
    this.slots = ram.slots;
    const late = new SlotBitmap(ram.slots, dirty.words.slice());
    machine.forEachVitalPage?.((pfn, count) =>
      ram.forEachSlotOf(pfn, count, (start, pages) => late.clear(start, pages)),
    );
    // Word by word: a guest that writes in no order has as many runs of pages as pages.
    forEachFilled(late.words, 0, late.words.length, (from, to) => {
      for (let word = from; word < to; word++) Atomics.and(dirty.words, word, ~late.words[word]);
    });
    this.#supply = new PostcopySupply(ram, late);
    this.#end.promise.catch(() => {});
    this.#latePages = this.#supply.leftPages;
  }

  /** At the stop. Undefined where nothing is left to come later: the destination hears of no missing page, and awaits none. */
  static open(options: PostcopySourceOptions): PostcopySource | undefined {
    const postcopy = new PostcopySource(options);
    return postcopy.progress.latePages > 0 ? postcopy : undefined;
  }

  /** Says over one connection which of its pages come later. */
  async announce(link: Link, index: number, of: number): Promise<void> {
    link.listen(this);
    for (let stripe = index; stripe * STRIPE_PAGES < this.slots; stripe += of) {
      const from = stripe * STRIPE_PAGES;
      const to = Math.min(this.slots, from + STRIPE_PAGES);
      let sections: Iterator<Uint8Array> | undefined;
      await link.sendPages({
        next: writer => {
          sections ??= writeMissing(writer, this.#supply.left, from, to);
          return sections.next().value;
        },
      });
    }
  }

  get counts(): { readonly pages: number; readonly zeroPages: number } {
    return this.#supply.counts;
  }

  get progress(): PostcopyProgress {
    const { leftPages, faults } = this.#supply;
    const [latePages, broken, recoveries] = [this.#latePages, this.#broken, this.#recoveries];
    return { ...faults, leftPages, latePages, broken, recoveries };
  }

  get phase(): 'post-copy' | 'post-copy-paused' {
    return this.#broken === null ? 'post-copy' : 'post-copy-paused';
  }

  want(want: Want): void {
    this.#supply.want(want);
  }

  missing(missing: MissingPages): void {
    this.#supply.add(missing);
  }

  /** Tries to reach a destination that was lost now, and not in a while. Returns whether there is one. */
  recover(): boolean {
    if (this.#broken === null) return false;
    this.#tryNow.abort();
    return true;
  }

  /** Nothing is brought any more: {@link serve} rejects with `reason`. */
  abandon(reason: Error): void {
    this.#abandoned = true;
    this.#end.reject(reason);
    this.#supply.stop();
    this.#tryNow.abort();
    for (const link of this.#options.links.all) link.close(false);
  }

  /** Resolves when the destination has all. */
  async serve(): Promise<void> {
    await Promise.race([this.#serve(), this.#end.promise]);
  }

  async #serve(): Promise<void> {
    const { links, clock, changed } = this.#options;
    let delayMs: number | undefined;
    for (;;) {
      try {
        if (delayMs !== undefined) await this.#reconnect();
        delayMs = undefined;
        await this.#bring();
        return;
      } catch (error) {
        this.#supply.stop();
        for (const link of links.all) link.close(false);
        if (this.#abandoned) return;
        this.#broken = (error as Error).message;
        this.#tryNow = new AbortController();
        changed();
        delayMs = delayMs === undefined ? FIRST_RETRY_MS : RETRY_MS;
        await clock.sleep(delayMs, this.#tryNow.signal);
        if (this.#abandoned) return;
      }
    }
  }

  async #reconnect(): Promise<void> {
    this.#supply.begin();
    await this.#options.links.recover(this);
    this.#broken = null;
    this.#recoveries++;
    this.#options.changed();
  }

  async #bring(): Promise<void> {
    const { links } = this.#options;
    const supply = this.#supply;
    let lost = false;
    for (const link of links.all) {
      link.broken.catch(() => {
        lost = true;
        supply.stop();
      });
    }
    await links.onAll(async (link, index) => {
      if (index > 0 || links.all.length === 1) {
        await link.sendPages({ next: writer => supply.background(writer) });
      }
      if (index === 0) await this.#answer(link);
      if (lost) throw new MigrationError('the connection to the destination is gone');
      await link.send({ kind: 'rest' });
    });
    const { faults, longestUs } = await links.expect('arrived');
    supply.faults = { faults, longestUs };
  }

  /** What is asked for, until nothing is left to be asked for. */
  async #answer(link: Link): Promise<void> {
    const supply = this.#supply;
    for (;;) {
      await link.sendPages({ next: writer => supply.urgent(writer) });
      if (supply.over) return;
      await supply.wanted();
    }
  }
}
