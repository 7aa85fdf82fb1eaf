/**
 * The guest's only source of chance: xoshiro128** (Blackman and Vigna), seeded through splitmix32. A seed
 * names a whole history; a split stream does not disturb the one that it was split from, so adding a workload
 * leaves the others' histories as they were. Not for secrets.
 */

export const RANDOM_STATE_WORDS = 4;

export class Random {
  readonly #state: Uint32Array;

  /** Any finite number seeds; its low 32 bits and the 21 above them count. */
  constructor(seed: number) {
    const next = splitMix(seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0);
    this.#state = Uint32Array.from({ length: RANDOM_STATE_WORDS }, next);
  }

  /** A stream of its own for `label`, the same whenever it is asked for at this point of the history. */
  split(label: string): Random {
    let hash = 0x811c9dc5;
    for (let i = 0; i < label.length; i++) hash = Math.imul(hash ^ label.charCodeAt(i), 0x01000193);
    const child = new Random(0);
    child.#state.set(this.#state.map((word, i) => word ^ mix(hash + Math.imul(i, GOLDEN))));
    return child;
  }

  /** 32 random bits, as an unsigned number. */
  u32(): number {
    const s = this.#state;
    const result = Math.imul(rotate(Math.imul(s[1], 5), 7), 9) >>> 0;
    const t = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 11);
    return result;
  }

  /** An integer in [0, bound); `bound` is 1 to 2^32. The bias of the multiplication is below 2^-20 at a million. */
  below(bound: number): number {
    return Math.floor((this.u32() / 2 ** 32) * bound);
  }

  /** An integer in [low, high]. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True with probability `p`. */
  chance(p: number): boolean {
    return this.u32() < p * 2 ** 32;
  }

  /** Shuffles in place (Fisher and Yates). */
  shuffle(items: Int32Array, count: number = items.length): void {
    for (let i = count - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const item = items[i];
      items[i] = items[j];
      items[j] = item;
    }
  }

  save(): Uint32Array {
    return this.#state.slice();
  }

  /** A stream that goes on where {@link save} was called; all zeros is no state of the generator. */
  static restore(state: ArrayLike<number>): Random {
    const random = new Random(0);
    random.#state.set(Array.from(state).slice(0, RANDOM_STATE_WORDS));
    if (random.#state.every(word => word === 0)) random.#state[0] = 1;
    return random;
  }
}

const GOLDEN = 0x9e3779b9;

const rotate = (word: number, by: number) => (word << by) | (word >>> (32 - by));

/** A bijection on 32 bits that spreads every input bit over the output (splitmix's finisher). */
export function mix(word: number): number {
  word = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
  return (word ^ (word >>> 15)) >>> 0;
}

function splitMix(low: number, high: number): () => number {
  let at = low ^ mix(high);
  return () => {
    at = (at + GOLDEN) >>> 0;
    return mix(at);
  };
}
