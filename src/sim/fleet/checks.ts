/**
 * What must be true of a simulated fleet, at every step and of every order. It goes by what has really happened and by the
 * view that the leader had, and by nothing that placement remembers or reckons.
 */
import type { FleetHost, FleetView, MoveOrder } from '../../placement/types.ts';
import type { Cluster } from './cluster.ts';

/** The rules in force: as the settings of placement have them. */
const STALE_MS = 10_000;
const COOL_DOWN_MS = 15 * 60_000;
const MOVES_MAX = 64;
const ARRIVES_MAX = 4;
/** An order whose guest arrived and is not reported there by then is none any more. */
const UNSEEN_MS = 60_000;
/** Reports that say how long ago something was have been on their way. */
const TOLERANCE_MS = 10_000;

interface Flight {
  readonly order: MoveOrder;
  doneMs: number | undefined;
}

export class FleetChecks {
  readonly #cluster: Cluster;
  readonly #flights = new Map<string, Flight>();
  readonly #ids = new Set<string>();
  /** When each guest left which host, by moves. */
  readonly #left = new Map<string, Map<string, number>>();
  readonly #twice = new Set<string>();
  readonly broken: string[] = [];
  rulesBroken = 0;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  #demand(isTrue: boolean, atMs: number, rule: string, what: string): void {
    if (isTrue) return;
    this.rulesBroken++;
    if (this.broken.length < 10) this.broken.push(`${rule} (at ${Math.round(atMs / 1000)} s: ${what})`);
  }

  /** At every step. */
  step(atMs: number): void {
    for (const guest of this.#cluster.runningTwice()) {
      this.#demand(this.#twice.has(guest), atMs, 'a guest runs twice', guest);
      this.#twice.add(guest);
    }
  }

  /** All orders of one plan. */
  orders(orders: readonly MoveOrder[], view: FleetView, atMs: number): void {
    const byName = new Map(view.hosts.map(host => [host.host, host]));
    const listed = (host: string, guest: string): boolean =>
      byName.get(host)?.guests.some(one => one.guest === guest) ?? false;
    for (const [id, { order, doneMs }] of this.#flights) {
      if (doneMs !== undefined && (listed(order.to, order.guest) || atMs - doneMs > UNSEEN_MS))
        this.#flights.delete(id);
    }
    for (const order of orders) this.#order(order, byName, listed, atMs);
  }

  #order(
    order: MoveOrder,
    byName: ReadonlyMap<string, FleetHost>,
    listed: (host: string, guest: string) => boolean,
    atMs: number,
  ): void {
    const { id, guest, from, to, reserveBytes } = order;
    const words = `${guest} from ${from} to ${to}`;
    const say = (isTrue: boolean, rule: string) => this.#demand(isTrue, atMs, rule, words);
    const flights = [...this.#flights.values()];
    say(
      !this.#ids.has(id) && !flights.some(flight => flight.order.guest === guest),
      'an order is given twice',
    );
    const isFresh = (host: FleetHost | undefined): host is FleetHost =>
      host !== undefined && host.ageMs !== null && host.ageMs <= STALE_MS;
    const [source, destination] = [byName.get(from), byName.get(to)];
    say(isFresh(source) && isFresh(destination), 'an order goes by stale data');
    const leftMs = this.#left.get(guest)?.get(to);
    say(
      leftMs === undefined || atMs - leftMs > COOL_DOWN_MS - TOLERANCE_MS,
      'a guest goes back within its cool-down',
    );
    const own = flights.filter(flight => flight.doneMs === undefined);
    say(own.length < MOVES_MAX, 'too many moves are under way');
    const arriving = flights.filter(flight => flight.order.to === to && !listed(to, flight.order.guest));
    say(arriving.length < ARRIVES_MAX, 'too many guests are on their way to one host');
    if (destination !== undefined) {
      const need = needOf(destination);
      const budget = destination.memoryBytes - destination.reserveBytes - destination.othersBytes;
      const reserved = arriving.reduce((sum, flight) => sum + flight.order.reserveBytes, 0);
      say(need + reserved + reserveBytes <= budget, 'a reservation is exceeded');
      say(!destination.draining && need <= budget, 'a host receives that is short or drained');
    }
    const copies = [...byName.values()].filter(host => listed(host.host, guest));
    say(copies.length === 1, 'a guest in doubt is moved');
    this.#ids.add(id);
    this.#flights.set(id, { order, doneMs: undefined });
  }

  ended({ id, guest, from }: MoveOrder, end: 'done' | 'failed', atMs: number): void {
    if (end === 'failed') {
      this.#flights.delete(id);
      return;
    }
    const flight = this.#flights.get(id);
    if (flight !== undefined) flight.doneMs = atMs;
    const left = this.#left.get(guest) ?? new Map<string, number>();
    this.#left.set(guest, left.set(from, atMs));
  }

  /** A guest that is started anew has left no host. */
  startedAnew(guest: string): void {
    this.#left.delete(guest);
  }
}

const needOf = ({ guests }: FleetHost): number =>
  guests.reduce(
    (sum, { needBytes, minBytes, sizeBytes }) => sum + Math.min(sizeBytes, Math.max(needBytes, minBytes)),
    0,
  );
