/** When to stop the guest: by what is left, how fast it goes, and how long the guest may stand still. */
import { PAGE_SIZE } from '../memory/page.ts';

interface ConvergenceOptions {
  /** How long the guest may stand still. */
  readonly downtimeMsMax: number;
  /** Rounds after which the guest is stopped whatever that costs. */
  readonly roundsMax: number;
  /** Slow the guest down when it writes faster than can be sent. */
  readonly autoConverge: boolean;
}

/** What a guest has of its time at least, however little that helps. */
const SHARE_MIN = 0.01;
/**
 * What a round that gained too little leaves of the guest's time, at most and at least: a guest writes to the same pages
 * again and again, so that taking away a little of its time changes nothing of what is left to send. Steps of a tenth, as
 * QEMU has them, would take twenty rounds of all that the guest works on to the same end.
 */
const SLOWER_MAX = 0.5;
const SLOWER_MIN = 0.25;
/** Rounds in a row that gained too little before the guest is slowed down for the first time. */
const POOR_ROUNDS = 2;
/** A round gains too little when it leaves more than this share of what it sent. */
const POOR_SHARE = 0.5;
/** Less time than this says little about bandwidth: buffers in between swallow what is sent. Short rounds add up. */
const MEASURED_MS_MIN = 20;

interface Decision {
  readonly last: boolean;
  /** The share of its time that the guest should have from now on. */
  readonly share: number;
  /** How long the guest would stand still if it were stopped now. */
  readonly downtimeMs: number;
}

export class Convergence {
  readonly #options: ConvergenceOptions;
  #bytesPerMs = 0;
  /** The same in bytes of memory: more of them went where pages were compressed. */
  #memoryBytesPerMs = 0;
  /** Since it was measured last. */
  #bytes = 0;
  #memoryBytes = 0;
  #elapsedMs = 0;
  #sentPages = 0;
  #poorRounds = 0;
  #share = 1;
  #rounds = 0;

  constructor(options: ConvergenceOptions) {
    this.#options = options;
  }

  /** Measured on the wire, 0 before the first round that told something. */
  get bytesPerMs(): number {
    return this.#bytesPerMs;
  }

  /** A round has sent so much in such a time. */
  sent(pages: number, bytes: number, elapsedMs: number): void {
    this.#rounds++;
    this.#sentPages = pages;
    this.#bytes += bytes;
    this.#memoryBytes += Math.max(bytes, pages * PAGE_SIZE);
    this.#elapsedMs += elapsedMs;
    if (this.#elapsedMs >= MEASURED_MS_MIN || this.#bytesPerMs === 0) this.#measure();
  }

  /** After a sync that leaves so many pages to send. */
  decide(remainingPages: number): Decision {
    const { downtimeMsMax, roundsMax, autoConverge } = this.#options;
    const bytes = remainingPages * PAGE_SIZE;
    const rate = this.#memoryBytesPerMs;
    const downtimeMs = rate > 0 ? bytes / rate : Number.POSITIVE_INFINITY;
    // Before the first round nothing is known: pages that could still be hinted would be sent while the guest waits.
    const known = this.#rounds > 0;
    if (known && (remainingPages === 0 || downtimeMs <= downtimeMsMax || this.#rounds >= roundsMax)) {
      return { last: true, share: this.#share, downtimeMs };
    }
    const poor = known && remainingPages > this.#sentPages * POOR_SHARE;
    this.#poorRounds = poor ? this.#poorRounds + 1 : 0;
    // Once it is slowed down, a round that still gains too little has shown that this was not enough.
    if (autoConverge && poor && (this.#share < 1 || this.#poorRounds >= POOR_ROUNDS)) {
      const gained = (this.#sentPages * POOR_SHARE) / remainingPages;
      this.#share = Math.max(SHARE_MIN, this.#share * Math.max(SLOWER_MIN, SLOWER_MAX * gained));
    }
    return { last: false, share: this.#share, downtimeMs };
  }

  #measure(): void {
    const elapsedMs = this.#elapsedMs;
    this.#bytesPerMs = elapsedMs > 0 ? this.#bytes / elapsedMs : 0;
    this.#memoryBytesPerMs = elapsedMs > 0 ? this.#memoryBytes / elapsedMs : 0;
    this.#bytes = 0;
    this.#memoryBytes = 0;
    this.#elapsedMs = 0;
  }
}
