/**
 * Guests in virtual time, as plain numbers in arrays: memory, balloon, programs, page cache, swap; refaults, stalls and
 * out-of-memory kills that follow when there is too little. Constants say what they stand for; docs/policy.md says where
 * they are from. The host's side and the policy's are elsewhere.
 */

import { GIB, MIB, PAGE_BYTES } from '../../policy/units.ts';
import type { Demand, EventKind, GuestSpec } from './trace.ts';
import { watermarkOf } from './trace.ts';

/** How fast guests are that no machine was measured for. Bytes are a second's, of one guest. */
export interface Pace {
  /** What the balloon takes of page cache. */
  readonly reclaimBytes: number;
  readonly deflateBytes: number;
  /** By how much programs can grow. */
  readonly allocateBytes: number;
  /** What is reported as free, and how long after it was freed, in seconds. */
  readonly reportBytes: number;
  readonly reportS: number;
  /** From a decision until the guest's balloon moves, in seconds. */
  readonly orderS: number;
  /** A program that gets no memory for so long is killed, in seconds. */
  readonly oomS: number;
}

export const PACE: Pace = {
  reclaimBytes: 0.3 * GIB,
  deflateBytes: 4 * GIB,
  allocateBytes: Number.POSITIVE_INFINITY,
  reportBytes: 0.5 * GIB,
  reportS: 0,
  orderS: 0,
  oomS: 1,
};

/** Bytes a second. */
const SWAP_RATE = 0.1 * GIB;
const READ_RATE = 0.5 * GIB;
/** Reading ahead brings more than is asked for. */
export const READ_RATE_MIN = 32 * MIB;
const OOM_DEFLATE_RATE = GIB;
/** What the kernel makes free in the background. */
const KSWAPD_RATE = 0.25 * GIB;
/** Direct reclaim, which programs wait for. */
const DIRECT_RECLAIM_RATE = 2 * GIB;
/** Pages of programs' memory that are touched a second, of those that are in swap. */
const TOUCHES = 5000;
/** Until a killed program is back; until then it has half of its memory, and its users wait. */
export const DOWN_S = 30;
export const LEFT_AFTER_KILL = 0.5;
/** A guest that boots has no driver for so long. */
const BOOT_S = 5;
/** Of what is read, the part that is mapped and so counts as a major fault. */
const MAPPED = 0.5;
/** How far a host that swaps its guests slows them down: a share of pages away, and a share of time. */
const HOST_SWAP_STALL = 10;

export class Guests {
  readonly specs: readonly GuestSpec[];
  readonly count: number;
  readonly memory: Float64Array;
  readonly balloon: Float64Array;
  readonly given: Float64Array;
  readonly target: Float64Array;
  /** Programs' memory that is there, in swap, and page cache. */
  readonly programs: Float64Array;
  readonly wanted: Float64Array;
  readonly swapped: Float64Array;
  /** Files that it would keep in its page cache. */
  readonly files: Float64Array;
  readonly cache: Float64Array;
  readonly committed: Float64Array;
  /** What the host holds. */
  readonly resident: Float64Array;
  readonly stallS: Float64Array;
  readonly refaults: Float64Array;
  readonly swapIns: Float64Array;
  readonly swapOuts: Float64Array;
  readonly majorFaults: Float64Array;
  readonly allocationStalls: Float64Array;
  readonly kills: Float64Array;
  /** Bytes by which balloons moved. */
  readonly moved: Float64Array;
  readonly epoch: Float64Array;
  readonly bootedS: Float64Array;
  readonly stuck: Uint8Array;
  readonly frozen: Uint8Array;
  /** 0: honest, 1: claims to be full, 2: claims to be empty. */
  readonly claims: Uint8Array;
  readonly hung: Uint8Array;
  readonly #shortS: Float64Array;
  readonly #downUntilS: Float64Array;
  /** The target at which the driver gave memory back in need: it waits for another one. */
  readonly #releasedAt: Float64Array;
  /** The newest target, when the driver hears of it, and what it has heard. */
  readonly #ordered: Float64Array;
  readonly #dueS: Float64Array;
  readonly #shown: Float64Array;
  /** When what was freed is reported; infinity while there is nothing. */
  readonly #reportAtS: Float64Array;
  readonly #pace: Pace;
  readonly #demand: Demand = { programsBytes: 0, cacheBytes: 0, accesses: 0, committedBytes: 0 };

  constructor(specs: readonly GuestSpec[], pace: Pace = PACE) {
    const array = () => new Float64Array(specs.length);
    const flags = () => new Uint8Array(specs.length);
    this.specs = specs;
    this.count = specs.length;
    this.memory = Float64Array.from(specs, spec => spec.memoryBytes);
    this.balloon = array();
    this.given = array();
    this.target = array();
    this.programs = array();
    this.wanted = array();
    this.swapped = array();
    this.files = array();
    this.cache = array();
    this.committed = array();
    this.resident = array();
    this.stallS = array();
    this.refaults = array();
    this.swapIns = array();
    this.swapOuts = array();
    this.majorFaults = array();
    this.allocationStalls = array();
    this.kills = array();
    this.moved = array();
    this.epoch = array().fill(1);
    this.bootedS = array().fill(-BOOT_S);
    this.stuck = flags();
    this.frozen = flags();
    this.claims = flags();
    this.hung = flags();
    this.#shortS = array();
    this.#downUntilS = array();
    this.#releasedAt = array().fill(-1);
    this.#ordered = array();
    this.#dueS = array();
    this.#shown = array();
    this.#reportAtS = array().fill(Number.POSITIVE_INFINITY);
    this.#pace = pace;
  }

  /** What programs and page cache can have. */
  usable(at: number): number {
    return Math.max(0, this.memory[at] - this.balloon[at] - watermarkOf(this.memory[at]));
  }

  free(at: number): number {
    return Math.max(0, this.usable(at) - this.programs[at] - this.cache[at]);
  }

  /** What the host would hold for it if nothing were taken: programs, files, and what was once touched and not reported. */
  appetite(at: number): number {
    if (!this.specs[at].reporting) return this.memory[at];
    return Math.min(this.memory[at], this.wanted[at] + this.files[at]);
  }

  /** Whether its driver runs. */
  isUp(at: number, atS: number): boolean {
    return atS - this.bootedS[at] >= BOOT_S && this.hung[at] === 0;
  }

  happen(at: number, kind: EventKind, atS: number): void {
    if (kind === 'reboot') this.#reboot(at, atS);
    else if (kind === 'plug') this.memory[at] *= 2;
    else if (kind === 'stuck' || kind === 'unstuck') this.stuck[at] = kind === 'stuck' ? 1 : 0;
    else if (kind === 'freeze' || kind === 'thaw') this.frozen[at] = kind === 'freeze' ? 1 : 0;
    else if (kind === 'hang' || kind === 'resume') this.hung[at] = kind === 'hang' ? 1 : 0;
    else this.claims[at] = kind === 'claim-full' ? 1 : kind === 'claim-empty' ? 2 : 0;
  }

  #reboot(at: number, atS: number): void {
    this.epoch[at]++;
    this.bootedS[at] = atS;
    for (const array of [
      this.balloon,
      this.given,
      this.programs,
      this.swapped,
      this.cache,
      this.majorFaults,
      this.allocationStalls,
      this.swapIns,
      this.swapOuts,
    ])
      array[at] = 0;
    this.#releasedAt[at] = -1;
    this.#shortS[at] = 0;
  }

  /** Lets guest `at` live for `stepS` seconds; `hostAway` is the share of guests' memory that the host has swapped. */
  step(at: number, atS: number, stepS: number, hostAway: number): void {
    if (this.hung[at] === 1) return;
    const spec = this.specs[at];
    spec.demand(atS, this.#demand);
    const { cacheBytes, accesses, committedBytes } = this.#demand;
    const down = this.#downUntilS[at] > atS;
    this.wanted[at] = this.#demand.programsBytes * (down ? LEFT_AFTER_KILL : 1);
    const reached = this.programs[at] + this.swapped[at] + this.#pace.allocateBytes * stepS;
    const wanted = Math.min(this.wanted[at], reached);
    this.files[at] = cacheBytes;
    this.committed[at] = Math.max(committedBytes, this.wanted[at]);
    let stall = down ? 1 : Math.min(1, HOST_SWAP_STALL * hostAway);
    if (this.isUp(at, atS)) this.#moveBalloon(at, atS, stepS);
    stall += this.#giveToPrograms(at, wanted, atS, stepS);
    stall += this.#readFiles(at, cacheBytes, accesses, stepS);
    this.stallS[at] += Math.min(1, stall) * stepS;
    this.#hold(at, atS, stepS);
  }

  /** The target that the driver knows of. */
  #heard(at: number, atS: number): number {
    const target = this.target[at];
    if (this.#ordered[at] !== target) {
      this.#ordered[at] = target;
      this.#dueS[at] = atS + this.#pace.orderS;
    }
    if (atS >= this.#dueS[at]) this.#shown[at] = target;
    return this.#shown[at];
  }

  #moveBalloon(at: number, atS: number, stepS: number): void {
    const before = this.balloon[at];
    const target = this.#heard(at, atS);
    const missing = target - before;
    this.given[at] = Math.min(before, this.memory[at]);
    if (missing < 0) {
      this.balloon[at] = Math.max(target, before - this.#pace.deflateBytes * stepS);
      this.given[at] = this.balloon[at];
      this.#releasedAt[at] = -1;
    } else if (missing > 0 && this.stuck[at] === 0 && this.#releasedAt[at] !== target) {
      this.#inflate(at, missing, stepS);
    }
    this.moved[at] += Math.abs(this.balloon[at] - before);
  }

  /** Free pages first, then page cache, then, where there is swap, programs' memory. */
  #inflate(at: number, missing: number, stepS: number): void {
    const { inflateRate, swapBytes } = this.specs[at];
    let left = Math.min(missing, inflateRate * stepS);
    const fromFree = Math.min(left, this.free(at));
    left -= fromFree;
    const fromCache = Math.min(left, this.cache[at], this.#pace.reclaimBytes * stepS);
    this.cache[at] -= fromCache;
    left -= fromCache;
    const room = Math.max(0, swapBytes - this.swapped[at]);
    const fromPrograms =
      fromFree + fromCache > 0 ? 0 : Math.min(left, room, this.programs[at], SWAP_RATE * stepS);
    this.programs[at] -= fromPrograms;
    this.balloon[at] += fromFree + fromCache + fromPrograms;
  }

  #giveToPrograms(at: number, wanted: number, atS: number, stepS: number): number {
    const { swapBytes, deflateOnOom, pageSeconds } = this.specs[at];
    let stall = 0;
    let missing = wanted - this.usable(at);
    const swapped = Math.max(0, Math.min(missing, swapBytes));
    if (swapped > this.swapped[at]) this.swapOuts[at] += swapped - this.swapped[at];
    this.swapped[at] = swapped;
    missing -= swapped;
    if (missing > 0 && deflateOnOom && this.balloon[at] > 0) {
      const taken = Math.min(missing, this.balloon[at], OOM_DEFLATE_RATE * stepS);
      this.balloon[at] -= taken;
      this.given[at] = Math.min(this.given[at], this.balloon[at]);
      this.moved[at] += taken;
      this.#releasedAt[at] = this.target[at];
      missing -= taken;
      // As long as something comes back, the kernel kills nothing.
      this.#shortS[at] = -stepS;
    }
    const programs = Math.max(0, Math.min(wanted - swapped, this.usable(at)));
    const evicted = Math.max(0, programs + this.cache[at] - this.usable(at));
    this.cache[at] -= Math.min(evicted, this.cache[at]);
    this.programs[at] = programs;
    const direct = evicted - KSWAPD_RATE * stepS;
    if (direct > 0) {
      this.allocationStalls[at] += direct / (32 * PAGE_BYTES);
      stall += direct / DIRECT_RECLAIM_RATE / stepS;
    }
    if (swapped > 0) {
      const touched = TOUCHES * (swapped / Math.max(1, wanted));
      this.swapIns[at] += touched * stepS * PAGE_BYTES;
      this.swapOuts[at] += touched * stepS * PAGE_BYTES;
      this.majorFaults[at] += touched * stepS;
      stall += touched * pageSeconds;
    }
    return stall + this.#perhapsKill(at, missing, atS, stepS);
  }

  #perhapsKill(at: number, missing: number, atS: number, stepS: number): number {
    if (missing < MIB) {
      this.#shortS[at] = 0;
      return 0;
    }
    this.allocationStalls[at] += 100 * stepS;
    this.#shortS[at] += stepS;
    if (this.#shortS[at] < this.#pace.oomS) return 1;
    this.kills[at]++;
    this.#shortS[at] = 0;
    this.#downUntilS[at] = atS + DOWN_S;
    return 1;
  }

  #readFiles(at: number, cacheBytes: number, accesses: number, stepS: number): number {
    if (cacheBytes <= 0) {
      this.cache[at] = 0;
      return 0;
    }
    const room = Math.max(0, this.usable(at) - this.programs[at]);
    const most = Math.min(cacheBytes, room);
    const read = Math.min(READ_RATE, Math.max(READ_RATE_MIN, accesses * PAGE_BYTES)) * stepS;
    this.cache[at] = Math.min(most, this.cache[at] + read);
    const missed = accesses * (1 - this.cache[at] / cacheBytes);
    this.refaults[at] += missed * stepS;
    this.majorFaults[at] += MAPPED * missed * stepS;
    return missed * this.specs[at].pageSeconds;
  }

  /** What was touched stays with the host until it is reported or ballooned. */
  #hold(at: number, atS: number, stepS: number): void {
    const used = this.programs[at] + this.cache[at];
    let held = Math.max(this.resident[at], used);
    if (this.specs[at].reporting) {
      const { reportS, reportBytes } = this.#pace;
      if (held <= used) this.#reportAtS[at] = Number.POSITIVE_INFINITY;
      else this.#reportAtS[at] = Math.min(this.#reportAtS[at], atS + reportS);
      if (atS >= this.#reportAtS[at]) held -= Math.min(held - used, reportBytes * stepS);
    }
    this.resident[at] = Math.min(held, this.memory[at] - this.given[at]);
  }
}
