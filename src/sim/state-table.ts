/**
 * The states that a search has seen, each a few 32-bit words, with the step that first led to it. States are compared
 * whole: two that differ are never taken for one, as they would be if only their hashes were kept.
 */
import { AerostatError } from '../sys/error.ts';

const NONE = -1;
/** States at most: with three words each, about 900 MiB. */
const STATES_MAX = 2 ** 25;
const CAPACITY_START = 2 ** 12;

export class StateTable {
  readonly #width: number;
  /** Number of states. */
  length = 0;
  #states: Int32Array;
  #parents: Int32Array;
  #steps: Uint16Array;
  /** Open addressing; twice as many places as there is room for states. */
  #places: Int32Array;

  /** A table of states of `width` words. */
  constructor(width: number) {
    this.#width = width;
    this.#states = new Int32Array(CAPACITY_START * width);
    this.#parents = new Int32Array(CAPACITY_START);
    this.#steps = new Uint16Array(CAPACITY_START);
    this.#places = new Int32Array(CAPACITY_START * 2).fill(NONE);
  }

  /**
   * Adds a state that `step` led to from state `parent` (-1: a first state), unless it is known.
   * @throws AerostatError AEROSTAT_STATES when there are too many for this machine
   */
  add(state: Int32Array, parent: number, step: number): void {
    const place = this.#find(state);
    if (this.#places[place] !== NONE) return;
    if (this.length === this.#parents.length) {
      this.#grow();
      this.add(state, parent, step);
      return;
    }
    this.#states.set(state, this.length * this.#width);
    this.#parents[this.length] = parent;
    this.#steps[this.length] = step;
    this.#places[place] = this.length++;
  }

  read(index: number, into: Int32Array): void {
    const at = index * this.#width;
    for (let word = 0; word < this.#width; word++) into[word] = this.#states[at + word];
  }

  /** The first state that `index` came from, and the steps from there. */
  pathTo(index: number): { readonly first: number; readonly steps: number[] } {
    const steps: number[] = [];
    let at = index;
    while (this.#parents[at] !== NONE) {
      steps.push(this.#steps[at]);
      at = this.#parents[at];
    }
    return { first: at, steps: steps.reverse() };
  }

  #find(state: Int32Array): number {
    const mask = this.#places.length - 1;
    let place = hash(state) & mask;
    for (;;) {
      const index = this.#places[place];
      if (index === NONE || this.#equals(index, state)) return place;
      place = (place + 1) & mask;
    }
  }

  #equals(index: number, state: Int32Array): boolean {
    const at = index * this.#width;
    for (let word = 0; word < this.#width; word++) {
      if (this.#states[at + word] !== state[word]) return false;
    }
    return true;
  }

  #grow(): void {
    const capacity = this.#parents.length * 2;
    if (capacity > STATES_MAX) {
      throw new AerostatError(
        'AEROSTAT_STATES',
        `the search has more than ${STATES_MAX} states; let the guest have fewer pages, rounds or ring slots`,
      );
    }
    const states = new Int32Array(capacity * this.#width);
    const parents = new Int32Array(capacity);
    const steps = new Uint16Array(capacity);
    states.set(this.#states);
    parents.set(this.#parents);
    steps.set(this.#steps);
    this.#states = states;
    this.#parents = parents;
    this.#steps = steps;
    this.#places = new Int32Array(capacity * 2).fill(NONE);
    const state = new Int32Array(this.#width);
    for (let index = 0; index < this.length; index++) {
      this.read(index, state);
      this.#places[this.#find(state)] = index;
    }
  }
}

function hash(state: Int32Array): number {
  let value = 0x9e3779b9;
  for (const word of state) {
    value = Math.imul(value ^ word, 0x85ebca6b);
    value ^= value >>> 15;
    value = Math.imul(value, 0xc2b2ae35);
    value ^= value >>> 13;
  }
  return value;
}
