/** One fleet through its trace under one planner: what it costs, and which rules were broken. */
import { Random } from '../../guest/random.ts';
import { explainOrder } from '../../placement/explain.ts';
import type { MoveOrder } from '../../placement/types.ts';
import { GIB } from '../../policy/units.ts';
import { FleetChecks } from './checks.ts';
import { Cluster, type Copy, type FleetMachine } from './cluster.ts';
import { Moves } from './moves.ts';
import type { Planner } from './planners.ts';
import type { FleetEvent, FleetTrace } from './trace.ts';
import { Leader, ReportStore } from './watch.ts';

const STEP_S = 2;
const PLAN_S = 4;
/** Guests of a host that is dead for so long are started elsewhere by its operators. */
const RESTART_S = 60;
/** So long a host that is back reports what it had. */
const GHOSTS_S = 60;
/** Lines of orders that a failure is told with. */
const TRACE_LINES = 40;

export interface FleetOutcome {
  readonly overcommittedHostS: number;
  readonly kills: number;
  readonly moves: number;
  readonly failedMoves: number;
  readonly sentBytes: number;
  readonly pingPongs: number;
  readonly rulesBroken: number;
  /** The first rules that were broken, and the last orders before that. */
  readonly broken: readonly string[];
  readonly trace: readonly string[];
}

export function liveFleet(trace: FleetTrace, planner: Planner, seed: number): FleetOutcome {
  return new FleetRun(trace, planner, new Random(seed).split('run')).live();
}

class FleetRun {
  readonly #trace: FleetTrace;
  readonly #planner: Planner;
  readonly #random: Random;
  readonly #cluster: Cluster;
  readonly #moves: Moves;
  readonly #store: ReportStore;
  readonly #checks: FleetChecks;
  readonly #lines: string[] = [];
  #leader: Leader | undefined;
  #later: { readonly atS: number; readonly happen: () => void }[] = [];
  #atS = 0;

  constructor(trace: FleetTrace, planner: Planner, random: Random) {
    this.#trace = trace;
    this.#planner = planner;
    this.#random = random;
    this.#cluster = new Cluster(trace);
    this.#checks = new FleetChecks(this.#cluster);
    this.#moves = new Moves(this.#cluster, random.split('moves'), (order, end, answered) => {
      if (answered && end === 'failed') this.#leader?.failed.push(order.id);
      else this.#checks.ended(order, end, 1000 * this.#atS);
    });
    const reports = random.split('reports');
    this.#store = new ReportStore(this.#cluster, host => 50 + reports.below(host.trace.slow ? 5000 : 500));
  }

  live(): FleetOutcome {
    const { seconds, events } = this.#trace;
    this.#lead();
    for (const event of events) this.#at(event.atS, () => this.#happen(event));
    for (; this.#atS < seconds; this.#atS += STEP_S) this.#step();
    const { overcommittedHostS, kills } = this.#cluster;
    const { done, failed, sentBytes, pingPongs } = this.#moves;
    const { rulesBroken, broken } = this.#checks;
    return {
      overcommittedHostS,
      kills,
      moves: done,
      failedMoves: failed,
      sentBytes,
      pingPongs,
      rulesBroken,
      broken,
      trace: this.#lines,
    };
  }

  #step(): void {
    const atMs = 1000 * this.#atS;
    const due = this.#later.filter(({ atS }) => atS <= this.#atS);
    this.#later = this.#later.filter(({ atS }) => atS > this.#atS);
    for (const { happen } of due) happen();
    this.#cluster.step(this.#atS, STEP_S);
    this.#moves.step(atMs, STEP_S);
    this.#store.step(atMs, 1000 * STEP_S);
    this.#leader?.look(atMs);
    if (this.#atS % PLAN_S === 0) this.#plan(atMs);
    this.#checks.step(atMs);
  }

  #plan(atMs: number): void {
    const leader = this.#leader;
    if (leader === undefined) return;
    const view = leader.view(atMs);
    const { orders, memory } = this.#planner(view, leader.memory);
    leader.memory = memory;
    if (orders.length === 0) return;
    this.#checks.orders(orders, view, atMs);
    for (const order of orders) {
      this.#note(order);
      this.#moves.send(order);
    }
  }

  #note(order: MoveOrder): void {
    if (this.#checks.rulesBroken > 0 && this.#lines.length > 0) return;
    this.#lines.push(`${this.#atS} s: ${explainOrder(order, bytes => `${(bytes / GIB).toFixed(2)} GiB`)}`);
    if (this.#lines.length > TRACE_LINES) this.#lines.shift();
  }

  #at(atS: number, happen: () => void): void {
    this.#later.push({ atS, happen });
  }

  #lead(): void {
    this.#leader = new Leader(this.#store, 1000 * this.#atS, this.#random.below(1_000_000_000));
  }

  #happen({ kind, hosts: indices, lastsS }: FleetEvent): void {
    const hosts = indices.map(index => this.#cluster.hosts[index]);
    const end = this.#atS + lastsS;
    switch (kind) {
      case 'leader':
        this.#leader = undefined;
        this.#at(end, () => this.#lead());
        return;
      case 'crash':
        for (const host of hosts) if (host.alive) this.#crash(host, end);
        return;
      case 'cut':
        for (const host of hosts) host.cut = true;
        this.#at(end, () => {
          for (const host of hosts) host.cut = false;
        });
        return;
      case 'drain':
        for (const host of hosts) host.draining = true;
        this.#at(end, () => {
          for (const host of hosts) host.draining = false;
        });
    }
  }

  /** A host loses power. Its guests are started on hosts that can be reached; when it is back it believes at first to have them still. */
  #crash(host: FleetMachine, backS: number): void {
    const lost = host.copies;
    host.alive = false;
    host.copies = [];
    host.ghosts = [];
    host.incoming.clear();
    this.#at(this.#atS + RESTART_S, () => {
      const alive = this.#cluster.hosts.filter(one => one.alive && !one.cut && !one.draining);
      for (const { guest } of lost) {
        this.#checks.startedAnew(this.#trace.guests[guest].name);
        this.#cluster.start(guest, alive[this.#random.below(alive.length)]);
      }
    });
    this.#at(backS, () => {
      host.alive = true;
      host.draining = true;
      host.ghosts = lost.map((copy): Copy => ({ ...copy, moving: null }));
    });
    this.#at(backS + GHOSTS_S, () => {
      host.ghosts = [];
      host.draining = false;
    });
  }
}
