/**
 * Orders on their way and guests on theirs: messages that take time, get lost or come twice, reservations, migrations that
 * share links and send again what is written meanwhile. Hosts do what they are told, as long as they can: whether an order
 * was a good one is for checks.ts to say.
 */
import type { Random } from '../../guest/random.ts';
import type { MoveOrder } from '../../placement/types.ts';
import type { Cluster, Copy, FleetMachine } from './cluster.ts';

/** What is left is sent while the guest stands still for so long, at most. */
const DOWNTIME_S = 0.3;
/** Messages between hosts, in milliseconds; of a slow host. */
const DELAY_MS = 400;
const SLOW_DELAY_MS = 3000;
/** Until a leader takes a host that does not answer for one that cannot be reached. */
const NO_ANSWER_MS = 5000;
/** A host refuses an order that goes by a report that it made so long ago. */
const VALID_MS = 20_000;
const TWICE = 0.02;
/** A guest that is back within so long has moved for nothing. */
const PING_PONG_MS = 15 * 60_000;
/** Reports are kept to be named by orders; more than an order can be late. */
const COOL_DOWN_SAID_MS = 30 * 60_000;

interface Message {
  readonly dueMs: number;
  readonly arrive: () => void;
}

interface Migration {
  readonly order: MoveOrder;
  readonly copy: Copy;
  readonly source: FleetMachine;
  readonly destination: FleetMachine;
  remainingBytes: number;
}

type MoveEnd = 'done' | 'failed';

export class Moves {
  readonly #cluster: Cluster;
  readonly #random: Random;
  readonly #ended: (order: MoveOrder, end: MoveEnd, answered: boolean) => void;
  readonly #served = new Set<string>();
  #messages: Message[] = [];
  #migrations: Migration[] = [];
  #atMs = 0;
  sentBytes = 0;
  done = 0;
  failed = 0;
  pingPongs = 0;

  /** `ended`: a move is over; `answered`: the leader that ordered it hears of it. */
  constructor(
    cluster: Cluster,
    random: Random,
    ended: (order: MoveOrder, end: MoveEnd, answered: boolean) => void,
  ) {
    this.#cluster = cluster;
    this.#random = random;
    this.#ended = ended;
  }

  delayMs(host: FleetMachine): number {
    return 50 + this.#random.below(host.trace.slow ? SLOW_DELAY_MS : DELAY_MS);
  }

  send(order: MoveOrder): void {
    const destination = this.#cluster.byName.get(order.to);
    if (destination === undefined) return;
    for (let times = this.#random.chance(TWICE) ? 2 : 1; times > 0; times--)
      this.#post(this.delayMs(destination), () => this.#reserve(order, destination));
  }

  step(atMs: number, elapsedS: number): void {
    this.#atMs = atMs;
    const due = this.#messages.filter(({ dueMs }) => dueMs <= atMs);
    this.#messages = this.#messages.filter(({ dueMs }) => dueMs > atMs);
    for (const { arrive } of due) arrive();
    const counts = new Map<FleetMachine, number>();
    const add = (host: FleetMachine) => counts.set(host, (counts.get(host) ?? 0) + 1);
    for (const { source, destination } of this.#migrations) {
      add(source);
      add(destination);
    }
    const share = (host: FleetMachine): number => host.trace.linkBytesPerSecond / (counts.get(host) ?? 1);
    for (const migration of [...this.#migrations]) {
      this.#copy(migration, Math.min(share(migration.source), share(migration.destination)), elapsedS);
    }
  }

  #post(delayMs: number, arrive: () => void): void {
    this.#messages.push({ dueMs: this.#atMs + delayMs, arrive });
  }

  /** The destination has the order. */
  #reserve(order: MoveOrder, destination: FleetMachine): void {
    if (this.#served.has(order.id)) return;
    if (!reachable(destination)) {
      this.#fail(order, false);
      return;
    }
    this.#served.add(order.id);
    if (!this.#isValid(destination, order.toRevision)) {
      this.#fail(order, true);
      return;
    }
    const { id, guest, from, reserveBytes } = order;
    destination.incoming.set(id, { order: id, guest, from, bytes: reserveBytes });
    const source = this.#cluster.byName.get(from);
    if (source !== undefined) this.#post(this.delayMs(source), () => this.#begin(order, source, destination));
  }

  /** The source has it, and the memory is reserved. */
  #begin(order: MoveOrder, source: FleetMachine, destination: FleetMachine): void {
    const number = this.#cluster.guestByName.get(order.guest);
    const copy = [...source.copies, ...source.ghosts].find(
      ({ guest, incarnation, moving }) =>
        guest === number && incarnation === order.incarnation && moving === null,
    );
    const isReachable = reachable(source) && reachable(destination);
    if (!isReachable || copy === undefined || !this.#isValid(source, order.fromRevision)) {
      destination.incoming.delete(order.id);
      this.#fail(order, isReachable);
      return;
    }
    copy.moving = { order: order.id, to: order.to };
    copy.capBytes = order.reserveBytes;
    const remainingBytes = this.#cluster.resident[copy.guest];
    this.#migrations.push({ order, copy, source, destination, remainingBytes });
  }

  #isValid(host: FleetMachine, revision: number): boolean {
    const madeMs = host.reportedAtMs.get(revision);
    return madeMs !== undefined && this.#atMs - madeMs <= VALID_MS;
  }

  #copy(migration: Migration, rate: number, elapsedS: number): void {
    const { order, copy, source, destination } = migration;
    if (!reachable(source) || !reachable(destination)) {
      this.#forget(migration);
      copy.moving = null;
      copy.capBytes = Number.POSITIVE_INFINITY;
      this.#fail(order, false);
      return;
    }
    const { dirtyBytesPerSecond } = this.#cluster.trace.guests[copy.guest];
    const dirty = dirtyBytesPerSecond ?? rate / 3;
    // As pre-copy goes: each byte that is sent has a part written anew.
    const net = rate - Math.min(dirty, 0.95 * rate);
    const takenS = Math.min(elapsedS, Math.max(0, migration.remainingBytes - DOWNTIME_S * rate) / net);
    migration.remainingBytes -= takenS * net;
    this.sentBytes += takenS * rate;
    if (migration.remainingBytes > DOWNTIME_S * rate + 1) return;
    this.sentBytes += migration.remainingBytes;
    this.#arrive(migration);
  }

  #arrive(migration: Migration): void {
    const { order, copy, source, destination } = migration;
    this.#forget(migration);
    const atMs = this.#atMs;
    const before = order.left.map(({ host, agoMs }) => ({ host, atMs: atMs - agoMs }));
    if (copy.left.some(({ host, atMs: leftMs }) => host === order.to && atMs - leftMs < PING_PONG_MS))
      this.pingPongs++;
    const left = new Map([...copy.left, ...before].map(one => [one.host, one.atMs]));
    left.set(source.name, atMs);
    source.copies = source.copies.filter(one => one !== copy);
    source.ghosts = source.ghosts.filter(one => one !== copy);
    const recent = [...left].filter(([, leftMs]) => atMs - leftMs < COOL_DOWN_SAID_MS);
    this.#cluster.start(
      copy.guest,
      destination,
      recent.map(([host, leftMs]) => ({ host, atMs: leftMs })),
    );
    this.done++;
    this.#ended(order, 'done', true);
  }

  #forget(migration: Migration): void {
    migration.destination.incoming.delete(migration.order.id);
    this.#migrations = this.#migrations.filter(one => one !== migration);
  }

  /** One that answers is heard soon; one that does not is given up after a while. */
  #fail(order: MoveOrder, answers: boolean): void {
    this.failed++;
    this.#ended(order, 'failed', false);
    this.#post(answers ? DELAY_MS : NO_ANSWER_MS, () => this.#ended(order, 'failed', true));
  }
}

const reachable = ({ alive, cut }: FleetMachine): boolean => alive && !cut;
