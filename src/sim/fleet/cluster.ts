/**
 * Hosts and guests of a simulated fleet as they really are, in steps of virtual time: what guests use and get, what they
 * suffer, which copy of which guest runs where. What a leader believes of it is in watch.ts, how guests move in moves.ts.
 */
import type { IncomingGuest } from '../../placement/types.ts';
import { MIB } from '../../policy/units.ts';
import { DOWN_S, LEFT_AFTER_KILL } from '../policy/guests.ts';
import type { FleetTrace, TraceHost } from './trace.ts';

/** One copy of a guest: it runs, or a host that came back believes that it does. */
export interface Copy {
  readonly guest: number;
  readonly incarnation: string;
  /** Hosts that it left, by the clock of the fleet. */
  readonly left: readonly { readonly host: string; readonly atMs: number }[];
  /** The order that moves it away. */
  moving: { readonly order: string; readonly to: string } | null;
  /** It may have no more while it moves. */
  capBytes: number;
}

/** A host as it is, whatever its reports say. */
export class FleetMachine {
  readonly index: number;
  readonly trace: TraceHost;
  copies: Copy[] = [];
  /** Copies that it reports and that run elsewhere by now. */
  ghosts: Copy[] = [];
  readonly incoming = new Map<string, IncomingGuest>();
  alive = true;
  cut = false;
  draining = false;
  revision = 0;
  /** When its reports were made, by revision; the newest few. */
  readonly reportedAtMs = new Map<number, number>();
  /** What its guests need. */
  needBytes = 0;

  constructor(index: number, trace: TraceHost) {
    this.index = index;
    this.trace = trace;
  }

  get name(): string {
    return this.trace.name;
  }

  get budgetBytes(): number {
    const { memoryBytes, reserveBytes, othersBytes } = this.trace;
    return memoryBytes - reserveBytes - othersBytes;
  }
}

/** Peaks of use are forgotten with a half-life of about a minute. */
const PEAK_KEPT = 0.99;
/** What a guest needs beside what it uses, as the policy has it. */
const NEED = 1.1;
const NEED_MIN = 128 * MIB;
/** Page cache that a guest would have, in parts of its memory. */
const CACHE = 0.3;
/** A guest that lacks more than this part of what it uses, for so long, has a program killed. */
const LACK = 0.02;
const OOM_S = 10;

export class Cluster {
  readonly trace: FleetTrace;
  readonly hosts: FleetMachine[];
  readonly byName = new Map<string, FleetMachine>();
  readonly guestByName = new Map<string, number>();
  readonly need: Float64Array;
  readonly resident: Float64Array;
  readonly #use: Float64Array;
  readonly #peak: Float64Array;
  readonly #lackS: Float64Array;
  readonly #downUntilS: Float64Array;
  overcommittedHostS = 0;
  kills = 0;
  #incarnations = 0;

  constructor(trace: FleetTrace) {
    this.trace = trace;
    const array = () => new Float64Array(trace.guests.length);
    [this.need, this.resident, this.#use, this.#peak, this.#lackS, this.#downUntilS] = [
      array(),
      array(),
      array(),
      array(),
      array(),
      array(),
    ];
    this.hosts = trace.hosts.map((host, index) => new FleetMachine(index, host));
    for (const host of this.hosts) this.byName.set(host.name, host);
    for (const [at, { home, name }] of trace.guests.entries()) {
      this.guestByName.set(name, at);
      this.start(at, this.hosts[home]);
    }
  }

  /** A new copy of `guest` runs on `host`. */
  start(guest: number, host: FleetMachine, left: Copy['left'] = []): void {
    const incarnation = `${++this.#incarnations}`;
    host.copies.push({ guest, incarnation, left, moving: null, capBytes: Number.POSITIVE_INFINITY });
  }

  step(atS: number, elapsedS: number): void {
    this.#want(atS);
    for (const host of this.hosts) if (host.alive) this.#share(host, atS, elapsedS);
  }

  #want(atS: number): void {
    const { guests } = this.trace;
    for (let at = 0; at < guests.length; at++) {
      const { use, sizeBytes, minBytes } = guests[at];
      const down = this.#downUntilS[at] > atS ? LEFT_AFTER_KILL : 1;
      const used = use(atS) * down;
      this.#use[at] = used;
      this.#peak[at] = Math.max(used, this.#peak[at] * PEAK_KEPT);
      this.need[at] = Math.min(sizeBytes, Math.max(minBytes, NEED_MIN + NEED * this.#peak[at]));
    }
  }

  /** Balloons give every guest its need and a part of what is left, or all of them less where it does not suffice. */
  #share(host: FleetMachine, atS: number, elapsedS: number): void {
    const { guests } = this.trace;
    let [need, size] = [0, 0];
    for (const { guest } of host.copies) {
      need += this.need[guest];
      size += guests[guest].sizeBytes;
    }
    host.needBytes = need;
    let reserved = 0;
    for (const { bytes } of host.incoming.values()) reserved += bytes;
    const budget = host.budgetBytes - reserved;
    if (need > host.budgetBytes) this.overcommittedHostS += elapsedS;
    const surplus = Math.max(0, budget - need) / size;
    const part = need > budget ? Math.max(0, budget / need) : 1;
    let worst = -1;
    let lack = 0;
    for (const { guest, capBytes } of host.copies) {
      const { sizeBytes } = guests[guest];
      const has = Math.min(capBytes, this.need[guest] * part + surplus * sizeBytes);
      const used = this.#use[guest];
      this.resident[guest] = Math.min(sizeBytes, has, used + CACHE * sizeBytes);
      const lacks = used - has;
      if (lacks <= LACK * used) {
        this.#lackS[guest] = 0;
        continue;
      }
      this.#lackS[guest] += elapsedS;
      if (this.#lackS[guest] >= OOM_S && lacks > lack) [worst, lack] = [guest, lacks];
    }
    if (worst < 0) return;
    // One at a time: what it frees may do for the others.
    this.kills++;
    this.#downUntilS[worst] = atS + DOWN_S;
    this.#lackS[worst] = 0;
    this.#peak[worst] *= LEFT_AFTER_KILL;
  }

  /** Guests of which two copies run. */
  runningTwice(): string[] {
    const twice: string[] = [];
    const seen = new Uint8Array(this.trace.guests.length);
    for (const { copies, alive } of this.hosts) {
      if (!alive) continue;
      for (const { guest } of copies) {
        if (seen[guest] === 1) twice.push(this.trace.guests[guest].name);
        seen[guest] = 1;
      }
    }
    return twice;
  }
}
