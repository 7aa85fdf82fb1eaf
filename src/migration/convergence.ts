/** When to stop the guest: by what is left, how fast it goes, and how long the guest may stand still. */
import { PAGE_SIZE } from '../memory/page.ts';

interface ConvergenceOptions {
  /** How long the guest may stand still. */
  readonly downtimeMsMax: number;
  /** It was asked for, and a stop that would pass it is called off; one that was not is judged by before the stop alone. */
  readonly keepsLimit?: boolean;
  /** Rounds after which the guest is stopped, or the migration given up. */
  readonly roundsMax: number;
  /**
   * What becomes of a guest that would stand still for longer than it may even then. `stop`, unless said otherwise: it is
   * stopped whatever that costs. `refuse`: it is not, and the migration fails.
   */
  readonly overLimit?: 'stop' | 'refuse';
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
/** Stops that are called off before there is no other: the guest stands still each time. */
const STOPS_CALLED_OFF_MAX = 4;

interface Decision {
  readonly last: boolean;
  /** The share of its time that the guest should have from now on. */
  readonly share: number;
  /** How long the guest would stand still if it were stopped now. */
  readonly downtimeMs: number;
  /** Why it is never to be stopped. */
  readonly refusal?: string;
  /** What is left of the pages could be sent in the time that the guest may stand still; its states take too long. */
  readonly statesAreLate?: boolean;
  /** It is to be stopped for as long as it takes. */
  readonly forced?: boolean;
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
  /** How long the guest stood still each time that a stop was called off. */
  readonly #calledOffMs: number[] = [];

  constructor(options: ConvergenceOptions) {
    this.#options = options;
  }

  /** Measured on the wire, 0 before the first round that told something. */
  get bytesPerMs(): number {
    return this.#bytesPerMs;
  }

  /** How long the guest may stand still. */
  get downtimeMsMax(): number {
    return this.#options.downtimeMsMax;
  }

  get keepsLimit(): boolean {
    return this.#options.keepsLimit ?? true;
  }

  /** The guest stood still for so long, would have for longer than it may, and went on where it was. */
  calledOff(stoodMs: number): void {
    this.#calledOffMs.push(stoodMs);
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

  /**
   * After a sync that leaves so many pages to send. `fixedMs` is what the stop takes beside them: what was measured of it.
   */
  decide(remainingPages: number, fixedMs = 0): Decision {
    const { downtimeMsMax, roundsMax, autoConverge, overLimit } = this.#options;
    const pagesMs = this.#msOf(remainingPages);
    const downtimeMs = pagesMs + fixedMs;
    // Before the first round nothing is known: pages that could still be hinted would be sent while the guest waits.
    const known = this.#rounds > 0;
    const late = known && this.#rounds >= roundsMax;
    const calledOffMs = this.#calledOffMs;
    const mayTry = calledOffMs.length < STOPS_CALLED_OFF_MAX;
    if (known && mayTry && downtimeMs <= downtimeMsMax) {
      return { last: true, share: this.#share, downtimeMs };
    }
    if (late && overLimit !== 'refuse') return { last: true, share: this.#share, downtimeMs, forced: true };
    const decision = { last: false, share: this.#share, downtimeMs };
    if (!mayTry && overLimit === 'refuse') {
      return { ...decision, refusal: calledOffRefusal(calledOffMs, downtimeMsMax) };
    }
    if (late) return { ...decision, refusal: refusalOf(pagesMs, fixedMs, downtimeMsMax) };
    if (known && pagesMs <= downtimeMsMax) return { ...decision, statesAreLate: true };
    const poor = known && remainingPages > this.#sentPages * POOR_SHARE;
    this.#poorRounds = poor ? this.#poorRounds + 1 : 0;
    // Once it is slowed down, a round that still gains too little has shown that this was not enough.
    if (autoConverge && poor && (this.#share < 1 || this.#poorRounds >= POOR_ROUNDS)) {
      const gained = (this.#sentPages * POOR_SHARE) / remainingPages;
      this.#share = Math.max(SHARE_MIN, this.#share * Math.max(SLOWER_MIN, SLOWER_MAX * gained));
    }
    return { last: false, share: this.#share, downtimeMs };
  }

  /** How long so many pages take. */
  #msOf(pages: number): number {
    if (pages === 0 && this.#rounds > 0) return 0;
    const rate = this.#memoryBytesPerMs;
    return rate > 0 ? (pages * PAGE_SIZE) / rate : Number.POSITIVE_INFINITY;
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

const REMEDY =
  'Allow more (--downtime-limit), or have it stopped all the same after so many rounds (--max-rounds)';

const calledOffRefusal = (calledOffMs: readonly number[], downtimeMsMax: number): string =>
  `the guest would have stood still for longer than the ${downtimeMsMax} ms that it may, ${calledOffMs.length} times; each time it was ` +
  `let go on here (after ${calledOffMs.map(ms => ms.toFixed(1)).join(', ')} ms), and it runs on here. ${REMEDY}`;

function refusalOf(pagesMs: number, fixedMs: number, downtimeMsMax: number): string {
  const about = (ms: number) => (Number.isFinite(ms) ? `${Math.ceil(ms)} ms` : 'no one knows how long');
  return (
    `the guest would stand still for about ${about(pagesMs + fixedMs)} (${about(pagesMs)} for the pages that it goes on writing, ` +
    `${about(fixedMs)} for its states and the hand-over), and may for ${downtimeMsMax} ms; it was not stopped, and runs on here. ` +
    REMEDY
  );
}
