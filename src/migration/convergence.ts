/** When to stop the guest: by what is left, how fast it goes, and how long the guest may stand still. */
import { PAGE_SIZE } from '../memory/page.ts';

export interface ConvergenceOptions {
  /** How long the guest may stand still. */
  readonly downtimeMsMax: number;
  /** Rounds after which the guest is stopped whatever that costs. */
  readonly roundsMax: number;
  /** Slow the guest down when it writes faster than can be sent. */
  readonly autoConverge: boolean;
}

/** Slowing down begins with a fifth of the guest's time and takes a tenth more each time, as QEMU's does. */
const THROTTLE_FIRST = 0.2;
const THROTTLE_STEP = 0.1;
const THROTTLE_MAX = 0.99;
/** Rounds in a row that gained too little before the guest is slowed down. */
const POOR_ROUNDS = 2;
/** A round gains too little when it leaves more than this share of what it sent. */
const POOR_SHARE = 0.5;
/** Less time than this says little about bandwidth: buffers in between swallow what is sent. Short rounds add up. */
const MEASURED_MS_MIN = 20;

export interface Decision {
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
  #throttle = 0;
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
    if (autoConverge && this.#poorRounds >= POOR_ROUNDS) {
      this.#throttle = Math.min(
        THROTTLE_MAX,
        this.#throttle === 0 ? THROTTLE_FIRST : this.#throttle + THROTTLE_STEP,
      );
      this.#poorRounds = 0;
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

  get #share(): number {
    return 1 - this.#throttle;
  }
}
