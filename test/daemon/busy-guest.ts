/** A guest that gives pages and takes them back all the time, and looks whether all that it has is what it put there. */
import type { Random } from '../../src/guest/random.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { FIRST_PAGE, type HandGuest } from './hand-guest.ts';

/** The guest gives and takes pieces of so many pages. */
const PIECE_PAGES = 256;
const PIECES = 24;

/** What a guest does with its balloon, and what its memory has to hold. */
export class BusyGuest {
  readonly guest: HandGuest;
  readonly #random: Random;
  #work: Promise<void> | undefined;
  #stopping = false;
  /** The longest time that a buffer was with its device. */
  stallMsMax = 0;
  /** How often it gave or took. */
  steps = 0;
  /** The value that fills each piece; undefined while it is in the balloon. */
  readonly values: (number | undefined)[] = Array.from({ length: PIECES }, (_, index) => index + 1);

  constructor(guest: HandGuest, random: Random) {
    this.guest = guest;
    this.#random = random;
    for (let piece = 0; piece < PIECES; piece++) guest.touch(firstOf(piece), PIECE_PAGES, piece + 1);
  }

  get balloonedPages(): number {
    return this.values.filter(value => value === undefined).length * PIECE_PAGES;
  }

  /** What it may hold at most when all that it gave is back at the host. */
  get keptBytes(): number {
    return (FIRST_PAGE + PIECES * PIECE_PAGES - this.balloonedPages) * PAGE_SIZE;
  }

  /** Gives and takes until {@link stop}. */
  start(): void {
    this.#work ??= (async () => {
      while (!this.#stopping) await this.step();
    })();
    this.#work.catch(() => {});
  }

  /** Resolves when it stands still; rejects with what went wrong. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#work;
    this.#work = undefined;
    this.#stopping = false;
  }

  /** Gives a piece, or takes it back and uses it; then all that it has is what it was. */
  async step(): Promise<void> {
    const piece = this.#random.below(PIECES);
    const startedMs = performance.now();
    if (this.values[piece] === undefined) {
      await this.guest.deflate(firstOf(piece), PIECE_PAGES);
      this.stallMsMax = Math.max(this.stallMsMax, performance.now() - startedMs);
      this.values[piece] = this.#random.between(1, 255);
      this.guest.touch(firstOf(piece), PIECE_PAGES, this.values[piece]);
    } else {
      this.values[piece] = undefined;
      await this.guest.inflate(firstOf(piece), PIECE_PAGES);
      this.stallMsMax = Math.max(this.stallMsMax, performance.now() - startedMs);
    }
    await this.guest.writeActual(this.balloonedPages);
    this.steps++;
    this.verify();
  }

  verify(): void {
    for (const [piece, value] of this.values.entries()) {
      if (value === undefined) continue;
      for (const page of [0, 100, PIECE_PAGES - 1]) {
        const found = this.guest.memory.u32((firstOf(piece) + page) * PAGE_SIZE);
        if (found !== value * 0x01010101) throw new Error(`piece ${piece}, page ${page} holds ${found}`);
      }
    }
  }
}

const firstOf = (piece: number): number => FIRST_PAGE + piece * PIECE_PAGES;
