/**
 * One policy on one trace, in virtual time: guests live, statistics come, the policy is asked when it wants to be, and
 * what became of everybody is measured. The same trace and policy give the same figures.
 */
import type { Policy } from '../../policy/anchors/anchor.ts';
import { newDecision, sizeRecords } from '../../policy/records.ts';
import { applySettings, reserveOf, settingsOf } from '../../policy/settings.ts';
import type { ForeignStatistics, GuestSample, HostSample, Sample } from '../../policy/types.ts';
import { GIB, MIB } from '../../policy/units.ts';
import { FairParts } from './fairness.ts';
import { Guests, type Pace } from './guests.ts';
import { Recalls } from './recalls.ts';
import { statisticsSaid } from './statistics.ts';
import type { Trace } from './trace.ts';

const STEP_S = 0.25;
const STATISTICS_S = 1;
/** Between a decision and one that is made before its time. */
const WAKE_S = 0.25;
/** Guests answer one after the other. */
const ANSWERS_APART_S = 0.25;
/** What a policy needs to get hold of a host that runs already is not held against it. */
export const WARM_UP_S = 240;
const KILLED_S = 30;
const REVERSAL_BYTES = 64 * MIB;
const SETTLED_SHARE = 0.01;
/** A clock begins somewhere. */
export const START_MS = 10_000_000;

export interface Outcome {
  readonly policy: string;
  readonly trace: string;
  readonly kills: number;
  /** Seconds in which guests' programs stood still, of all guests and of the one that suffered most. */
  readonly stallS: number;
  readonly stallMostS: number;
  readonly refaults: number;
  readonly swapIns: number;
  /** Seconds with less than half of the reserve available, the least that was, and the most that the host swapped. */
  readonly underReserveS: number;
  readonly hostFreeLeast: number;
  readonly hostSwappedMost: number;
  /** For each burst that memory had to be recalled for: seconds until it was usable. */
  readonly recallS: readonly number[];
  /** For each burst: seconds until no target moved by more than a hundredth of its guest any more. */
  readonly settleS: readonly number[];
  readonly reversalsPerHour: number;
  readonly movedBytes: number;
  /** Of what the host needed back: GiB-hours in balloons, and GiB-hours needed. */
  readonly reclaimedGiBh: number;
  readonly neededGiBh: number;
  /** GiB-hours in balloons that the host did not need. */
  readonly unneededGiBh: number;
  /** Jain's index of how far guests' programs got what they wanted, averaged. */
  readonly fairness: number;
  /** By how much the guest that was furthest below its fair part of the budget was, averaged over time, and the most. */
  readonly belowFairMean: number;
  readonly belowFairMost: number;
  readonly reservationS: number | null;
  readonly violations: number;
  readonly decisions: number;
  readonly decideMs: number;
}

type Mutable<Type> = { -readonly [Key in keyof Type]: Type[Key] };

export interface PlayOptions {
  /** Milliseconds of a real clock, for what decisions cost; without it that is 0. */
  readonly now?: () => number;
  readonly onDecision?: (atS: number, targets: readonly number[], guests: Guests) => void;
  /** How fast guests are; as docs/policy.md says unless given. */
  readonly pace?: Pace;
  /** A power of two, so that whole seconds are met exactly; a quarter unless given. */
  readonly stepS?: number;
  /** What is not counted at the beginning. */
  readonly warmUpS?: number;
  /** How much later than at whole seconds statistics come; less than a second. */
  readonly phaseS?: number;
}

class PolicyRun<Memory> {
  readonly guests: Guests;
  readonly #trace: Trace;
  readonly #policy: Policy<Memory>;
  readonly #options: PlayOptions;
  #memory: Memory;
  readonly #host: Mutable<HostSample>;
  readonly #samples: Mutable<GuestSample>[];
  readonly #sample: Mutable<Sample>;
  readonly #floors: Float64Array;
  readonly #reserve: number;
  readonly #stepS: number;
  readonly #warmUpS: number;
  readonly #phaseSteps: number;
  #hostAway = 0;
  #startedBytes = 0;
  #reservedBytes = 0;
  #reservationS: number | null = null;
  #clockMs = START_MS;
  // What is counted.
  #underReserveS = 0;
  #hostFreeLeast = Number.POSITIVE_INFINITY;
  #hostSwappedMost = 0;
  #reclaimed = 0;
  #needed = 0;
  #unneeded = 0;
  #fairness = 0;
  #fairnessCount = 0;
  readonly #fairParts: FairParts;
  #reversals = 0;
  #violations = 0;
  #decisions = 0;
  #decidedS = Number.NEGATIVE_INFINITY;
  #decideMs = 0;
  #lastMoveS = 0;
  readonly #settle: number[] = [];
  readonly #recalls: Recalls;
  readonly #direction: Int8Array;
  readonly #turnedAt: Float64Array;
  #base: { kills: number; stall: Float64Array; refaults: number; swapIns: number; moved: number } | undefined;

  constructor(trace: Trace, policy: Policy<Memory>, options: PlayOptions = {}) {
    this.#trace = trace;
    this.#policy = policy;
    this.#options = options;
    this.#memory = policy.begin();
    this.guests = new Guests(trace.guests, options.pace);
    this.#stepS = options.stepS ?? STEP_S;
    this.#warmUpS = options.warmUpS ?? WARM_UP_S;
    this.#phaseSteps = Math.round((options.phaseS ?? 0) / this.#stepS);
    const { count } = this.guests;
    this.#host = { totalBytes: trace.totalBytes, availableBytes: 0, freeBytes: 0, reservedBytes: 0 };
    this.#reserve = reserveOf(trace.settings, this.#host);
    this.#samples = trace.guests.map(({ name, memoryBytes }) => ({
      name,
      memoryBytes,
      targetBytes: 0,
      actualBytes: 0,
      givenBytes: 0,
      residentBytes: 0,
      epoch: 1,
      statistics: null,
      foreign: { committedBytes: 0, stallMs: 0 },
    }));
    this.#sample = { atMs: START_MS, host: this.#host, guests: this.#samples };
    this.#floors = new Float64Array(count);
    this.#fairParts = new FairParts(trace, this.guests);
    this.#recalls = new Recalls(trace);
    this.#direction = new Int8Array(count);
    this.#turnedAt = new Float64Array(count);
  }

  run(): Outcome {
    const { seconds } = this.#trace;
    let next = 0;
    for (let step = 0; step * this.#stepS < seconds; step++) {
      const atS = step * this.#stepS;
      if (atS === this.#warmUpS) this.#begin();
      while (next < this.#trace.events.length && this.#trace.events[next].atS <= atS) {
        const { guest, kind } = this.#trace.events[next++];
        this.guests.happen(guest, kind, atS);
      }
      this.#advance(atS);
      this.#steer(atS, step);
      if (atS >= this.#warmUpS) this.#count(atS);
    }
    return this.#outcome();
  }

  #advance(atS: number): void {
    const { guests } = this;
    this.#clockMs += this.#stepS * 1000;
    for (const { atS: at, byMs } of this.#trace.clockSteps ?? []) if (at === atS) this.#clockMs += byMs;
    let held = 0;
    for (let at = 0; at < guests.count; at++) {
      guests.step(at, atS, this.#stepS, this.#hostAway);
      held += guests.resident[at];
    }
    this.#hostNow(atS, held);
  }

  #hostNow(atS: number, held: number): void {
    const { totalBytes, others, reservation } = this.#trace;
    const { usedBytes, cacheBytes } = others(atS);
    const available = totalBytes - usedBytes - this.#startedBytes - held;
    this.#host.availableBytes = Math.max(0, available);
    this.#host.freeBytes = Math.max(0, available - cacheBytes);
    this.#hostAway = held > 0 ? Math.max(0, -available) / held : 0;
    if (reservation !== undefined && atS >= reservation.atS && this.#reservationS === null) {
      this.#reservedBytes = reservation.bytes;
      if (available >= reservation.bytes + this.#reserve / 2) {
        this.#reservationS = atS - reservation.atS;
        // It starts, and uses what was kept for it.
        this.#startedBytes = reservation.bytes;
        this.#reservedBytes = 0;
        this.#host.availableBytes -= reservation.bytes;
      }
    }
    this.#host.reservedBytes = this.#reservedBytes;
    if (atS < this.#warmUpS) return;
    this.#hostFreeLeast = Math.min(this.#hostFreeLeast, available);
    this.#hostSwappedMost = Math.max(this.#hostSwappedMost, -available);
    if (available < this.#reserve / 2) this.#underReserveS += this.#stepS;
  }

  #steer(atS: number, step: number): void {
    this.#read(atS, step);
    const { killedAtS } = this.#trace;
    if (killedAtS !== undefined && atS >= killedAtS && atS < killedAtS + KILLED_S) {
      this.#memory = this.#policy.begin();
      return;
    }
    const periods = (step * this.#stepS * 1000) / this.#policy.periodMs;
    const mayWake = atS - this.#decidedS >= WAKE_S;
    if (Number.isInteger(periods) || (mayWake && this.#policy.wakes?.(this.#sample, this.#memory) === true)) {
      this.#decidedS = atS;
      this.#decide(atS);
    }
  }

  #read(atS: number, step: number): void {
    const { guests } = this;
    this.#sample.atMs = this.#clockMs;
    const every = STATISTICS_S / this.#stepS;
    const apart = Math.max(1, Math.round(ANSWERS_APART_S / this.#stepS));
    for (let at = 0; at < guests.count; at++) {
      const sample = this.#samples[at];
      sample.memoryBytes = guests.memory[at];
      sample.targetBytes = guests.target[at];
      sample.actualBytes = guests.balloon[at];
      sample.givenBytes = guests.given[at];
      sample.residentBytes = guests.resident[at];
      if (sample.epoch !== guests.epoch[at]) {
        sample.epoch = guests.epoch[at];
        sample.statistics = null;
      }
      const foreign = sample.foreign as Mutable<ForeignStatistics>;
      foreign.committedBytes = guests.committed[at];
      foreign.stallMs = guests.stallS[at] * 1000;
      if (
        step % every !== (at * apart + this.#phaseSteps) % every ||
        guests.frozen[at] === 1 ||
        !guests.isUp(at, atS)
      )
        continue;
      if (guests.specs[at].statistics) sample.statistics = statisticsSaid(guests, at, step);
    }
  }

  #decide(atS: number): void {
    const { now } = this.#options;
    const before = now?.() ?? 0;
    const { targets, memory } = this.#policy.decide(this.#sample, this.#trace.settings, this.#memory);
    this.#decideMs += (now?.() ?? 0) - before;
    this.#memory = memory;
    this.#decisions++;
    for (const [at, target] of targets.entries()) if (target >= 0) this.#aim(at, target, atS);
    this.#options.onDecision?.(atS, targets, this.guests);
  }

  #aim(at: number, target: number, atS: number): void {
    const { guests } = this;
    const bounded = Math.min(Math.max(0, target), guests.memory[at]);
    const change = bounded - guests.target[at];
    guests.target[at] = bounded;
    if (Math.abs(change) > SETTLED_SHARE * guests.memory[at]) this.#lastMoveS = atS;
    if (guests.memory[at] - bounded < this.#floorOf(at) - 2 * MIB && change > 0) this.#violations++;
    const turned = bounded - this.#turnedAt[at];
    const direction = Math.sign(turned);
    if (direction === this.#direction[at]) this.#turnedAt[at] = bounded;
    else if (Math.abs(turned) > REVERSAL_BYTES) {
      if (this.#direction[at] !== 0 && atS >= this.#warmUpS) this.#reversals++;
      this.#direction[at] = direction;
      this.#turnedAt[at] = bounded;
    }
  }

  #floorOf(at: number): number {
    if (this.#floors[at] === 0) {
      const decision = newDecision();
      sizeRecords(decision, 1);
      const [guest] = decision.guests;
      guest.memoryBytes = this.#trace.guests[at].memoryBytes;
      applySettings(guest, settingsOf(this.#trace.settings, this.#trace.guests[at].name));
      this.#floors[at] = guest.floorBytes;
    }
    return this.#floors[at];
  }

  #begin(): void {
    const { guests } = this;
    const total = (array: Float64Array) => array.reduce((sum, value) => sum + value, 0);
    this.#base = {
      kills: total(guests.kills),
      stall: guests.stallS.slice(),
      refaults: total(guests.refaults),
      swapIns: total(guests.swapIns),
      moved: total(guests.moved),
    };
  }

  #count(atS: number): void {
    const { guests } = this;
    const { totalBytes, others } = this.#trace;
    let balloons = 0;
    let all = 0;
    let sum = 0;
    let squares = 0;
    for (let at = 0; at < guests.count; at++) {
      balloons += guests.given[at];
      all += guests.appetite(at);
      const got = guests.wanted[at] > 0 ? Math.min(1, guests.usable(at) / guests.wanted[at]) : 1;
      sum += got;
      squares += got * got;
    }
    const budget =
      totalBytes - this.#reserve - others(atS).usedBytes - this.#reservedBytes - this.#startedBytes;
    const needed = Math.max(0, all - budget);
    const part = this.#stepS / 3600 / GIB;
    this.#needed += needed * part;
    this.#reclaimed += Math.min(balloons, needed) * part;
    this.#unneeded += Math.max(0, balloons - needed) * part;
    this.#fairness += squares > 0 ? (sum * sum) / (guests.count * squares) : 1;
    this.#fairnessCount++;
    if (Number.isInteger(atS)) this.#fairParts.count(Math.max(0, budget), at => this.#floorOf(at));
    this.#followBursts(atS);
  }

  #followBursts(atS: number): void {
    const { memory, balloon } = this.guests;
    for (const { untilS, atS: fromS } of this.#trace.bursts) {
      if (atS === untilS - 1) this.#settle.push(Math.max(0, this.#lastMoveS - fromS));
    }
    this.#recalls.follow(
      atS,
      at => memory[at] - balloon[at],
      at => memory[at],
    );
  }

  #outcome(): Outcome {
    const { guests } = this;
    const total = (array: Float64Array) => array.reduce((sum, value) => sum + value, 0);
    const base = this.#base ?? {
      kills: 0,
      stall: new Float64Array(guests.count),
      refaults: 0,
      swapIns: 0,
      moved: 0,
    };
    const stalls = guests.stallS.map((value, at) => value - base.stall[at]);
    const guestHours = (guests.count * (this.#trace.seconds - this.#warmUpS)) / 3600;
    return {
      policy: this.#policy.name,
      trace: this.#trace.name,
      kills: total(guests.kills) - base.kills,
      stallS: total(stalls),
      stallMostS: Math.max(...stalls),
      refaults: total(guests.refaults) - base.refaults,
      swapIns: total(guests.swapIns) - base.swapIns,
      underReserveS: this.#underReserveS,
      hostFreeLeast: this.#hostFreeLeast,
      hostSwappedMost: Math.max(0, this.#hostSwappedMost),
      recallS: this.#recalls.seconds,
      settleS: this.#settle,
      reversalsPerHour: this.#reversals / guestHours,
      movedBytes: total(guests.moved) - base.moved,
      reclaimedGiBh: this.#reclaimed,
      neededGiBh: this.#needed,
      unneededGiBh: this.#unneeded,
      fairness: this.#fairness / Math.max(1, this.#fairnessCount),
      belowFairMean: this.#fairParts.mean,
      belowFairMost: this.#fairParts.most,
      reservationS: this.#reservationS,
      violations: this.#violations,
      decisions: this.#decisions,
      decideMs: this.#decideMs,
    };
  }
}

export const runPolicy = <Memory>(trace: Trace, policy: Policy<Memory>, options?: PlayOptions): Outcome =>
  new PolicyRun(trace, policy, options).run();
