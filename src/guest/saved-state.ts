/**
 * The bytes of a saved guest: a stream of 32-bit little-endian words, written and read back in the same order.
 * A reader believes nothing: each number has a bound and each array a length that its caller names, and what
 * is beyond throws {@link SavedGuestError}, so a hostile stream costs an error and no more memory than it has
 * bytes.
 */
import { AerostatError, assert } from '../sys/error.ts';

export const SAVED_STATE_MAGIC = 0x74534741;
export const SAVED_STATE_VERSION = 2;

/** A saved guest that cannot be resumed: cut short, of another version, or not saved by us. */
export class SavedGuestError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_SAVED_GUEST', `saved guest refused: ${message}`);
  }
}

const TEXT_LENGTH_MAX = 256;
const TWO_32 = 2 ** 32;
/** An array is written as runs where they are so long in the mean. */
const WORDS_PER_RUN_MIN = 16;

export class StateWriter {
  /** It grows in every guest: what V8 has compiled for one that never did would be of no use to the first that does. */
  #words = new Uint32Array(64);
  #length = 0;

  u32(value: number): void {
    if (this.#length === this.#words.length) this.#reserve(1);
    this.#words[this.#length++] = value;
  }

  /** A whole number below 2^53, or -1 for "none". */
  integer(value: number): void {
    this.u32(value % TWO_32);
    this.u32(Math.floor(value / TWO_32));
  }

  float(value: number): void {
    const words = new Uint32Array(Float64Array.of(value).buffer);
    this.u32(words[0]);
    this.u32(words[1]);
  }

  flag(value: boolean): void {
    this.u32(value ? 1 : 0);
  }

  text(value: string): void {
    const codes = Uint32Array.from(value.slice(0, TEXT_LENGTH_MAX), character => character.charCodeAt(0));
    this.array(codes);
  }

  /** An array of 32-bit words with its length before it. */
  array(values: ArrayLike<number>): void {
    this.u32(values.length);
    this.#reserve(values.length);
    this.#words.set(values, this.#length);
    this.#length += values.length;
  }

  /** Starts an array whose length is not known yet; its words follow through {@link u32}. */
  open(): number {
    this.u32(0);
    return this.#length;
  }

  /** Ends the array that began at what {@link open} returned. */
  close(start: number): void {
    this.#words[start - 1] = this.#length - start;
  }

  /** An array in which neighbours are mostly alike, as runs of a length and a value where that is much shorter. */
  runs(values: Uint32Array): void {
    const countMax = values.length / WORDS_PER_RUN_MIN;
    let count = values.length === 0 ? 0 : 1;
    for (let i = 1; i < values.length && count < countMax; i++) if (values[i] !== values[i - 1]) count++;
    this.flag(count < countMax);
    // Many short runs take a guest that stands still longer to write and to read than the array takes to be copied.
    if (count >= countMax) {
      this.array(values);
      return;
    }
    this.u32(count);
    for (let start = 0; start < values.length; ) {
      const value = values[start];
      let end = start + 1;
      while (end < values.length && values[end] === value) end++;
      this.u32(end - start);
      this.u32(value);
      start = end;
    }
  }

  bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer, 0, this.#length * 4);
  }

  #reserve(words: number): void {
    if (this.#length + words <= this.#words.length) return;
    const grown = new Uint32Array(Math.max(this.#words.length * 2, this.#length + words));
    grown.set(this.#words);
    this.#words = grown;
  }
}

export class StateReader {
  readonly #words: Uint32Array;
  #at = 0;

  /** `bytes` stay as they are until all is read. */
  constructor(bytes: Uint8Array) {
    if (bytes.length % 4 !== 0) throw new SavedGuestError(`${bytes.length} bytes are not whole words`);
    // Copied where it is not aligned, and not by slice(): a Buffer's is a view of memory that it shares with others.
    const { buffer, byteOffset, length } = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes);
    this.#words = new Uint32Array(buffer, byteOffset, length / 4);
  }

  /** Words that were read. */
  get at(): number {
    return this.#at;
  }

  /** Goes on reading at word `at`. */
  seek(at: number): void {
    assert(at >= 0 && at <= this.#words.length, 'a place outside of a saved guest');
    this.#at = at;
  }

  get remaining(): number {
    return this.#words.length - this.#at;
  }

  /** A word of at most `max`; `what` names it in the error. */
  u32(what: string, max: number = TWO_32 - 1): number {
    if (this.#at >= this.#words.length) throw new SavedGuestError(`it ends before ${what}`);
    const value = this.#words[this.#at++];
    if (value > max) throw new SavedGuestError(`${what} is ${value}, above ${max}`);
    return value;
  }

  /** A signed word in [-1, max]. */
  signed(what: string, max: number): number {
    const value = this.u32(what) | 0;
    if (value < -1 || value > max) throw new SavedGuestError(`${what} is ${value}, not in -1…${max}`);
    return value;
  }

  integer(what: string, max: number = Number.MAX_SAFE_INTEGER): number {
    const value = this.u32(what) + this.u32(what) * TWO_32;
    if (!(value <= max)) throw new SavedGuestError(`${what} is ${value}, above ${max}`);
    return value;
  }

  /** A finite number in [min, max]. */
  float(what: string, min: number, max: number): number {
    const value = new Float64Array(Uint32Array.of(this.u32(what), this.u32(what)).buffer)[0];
    if (!(value >= min && value <= max)) throw new SavedGuestError(`${what} is ${value}`);
    return value;
  }

  flag(what: string): boolean {
    return this.u32(what, 1) === 1;
  }

  text(what: string): string {
    return String.fromCharCode(...this.array(what, TEXT_LENGTH_MAX));
  }

  /** An array of at most `lengthMax` words. */
  array(what: string, lengthMax: number): Uint32Array {
    return this.view(what, lengthMax).slice();
  }

  /** The same where it lies, for who reads it at once: a large one takes its time to be copied. */
  view(what: string, lengthMax: number): Uint32Array {
    const length = this.u32(`the length of ${what}`, Math.min(lengthMax, this.remaining));
    if (length > this.remaining) throw new SavedGuestError(`it ends inside ${what}`);
    const values = this.#words.subarray(this.#at, this.#at + length);
    this.#at += length;
    return values;
  }

  /** Reads what {@link StateWriter.runs} wrote into `values`, which has its length. */
  runs(what: string, values: Uint32Array): void {
    if (!this.flag(what)) {
      const dense = this.view(what, values.length);
      if (dense.length !== values.length) throw new SavedGuestError(`${what} has ${dense.length} entries`);
      values.set(dense);
      return;
    }
    const count = this.u32(what, values.length);
    let at = 0;
    for (let i = 0; i < count; i++) {
      const end = at + this.u32(what, values.length - at);
      values.fill(this.u32(what), at, end);
      at = end;
    }
    if (at !== values.length) throw new SavedGuestError(`${what} has ${at} entries`);
  }

  /** Fails unless all was read. */
  end(): void {
    if (this.remaining > 0) throw new SavedGuestError(`${this.remaining} words follow its end`);
  }
}
