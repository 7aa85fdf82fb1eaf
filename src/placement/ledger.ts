/**
 * Orders in flight, followed by what hosts report: done, failed, found in reports by a leader that did not give them. And
 * what is left of them: which hosts a guest left lately, which guests had orders that failed.
 */
import type { Settled } from './settings.ts';
import { BYTES_MAX, isPlausible, isSize, reserveFor, type Sites } from './sites.ts';
import type {
  FailureRecord,
  FleetGuest,
  FleetView,
  LeftHost,
  MoveRecord,
  OrderEnd,
  OrderRecord,
  PlacementMemory,
} from './types.ts';

/** After so many failures a guest rests no longer than before. */
const FAILURES_MAX = 6;
/** A guest that moved more often within a cool-down has further ones forgotten. */
const LEFT_MAX = 8;

export class Ledger {
  readonly orders: OrderRecord[] = [];
  readonly ends: OrderEnd[] = [];
  readonly moves: MoveRecord[];
  readonly #failures: Map<string, FailureRecord>;
  readonly #movesOf = new Map<string, MoveRecord[]>();
  readonly #underWay = new Set<string>();
  readonly #failedOrders: ReadonlySet<string>;
  readonly #settings: Settled;
  readonly #atMs: number;

  constructor(view: FleetView, memory: PlacementMemory, settings: Settled, sites: Sites) {
    this.#settings = settings;
    this.#atMs = view.atMs;
    this.#failedOrders = new Set(view.failed);
    this.moves = memory.moves.filter(({ atMs }) => view.atMs - atMs <= settings.coolDownMs);
    this.#failures = new Map(
      memory.failures
        .filter(failure => view.atMs - failure.atMs <= 2 * this.#restMs(failure))
        .map(failure => [failure.guest, failure]),
    );
    const reported = new Reported(view, sites);
    for (const order of memory.orders) this.#follow(order, sites, reported);
    const known = new Set(memory.orders.map(keyOf));
    for (const order of reported.orders(view.atMs)) {
      if (known.has(keyOf(order))) continue;
      this.orders.push(order);
      this.ends.push({ order, end: 'found' });
    }
    for (const order of this.orders) this.#underWay.add(order.guest);
    for (const move of this.moves) {
      const moves = this.#movesOf.get(move.guest);
      if (moves === undefined) this.#movesOf.set(move.guest, [move]);
      else moves.push(move);
    }
  }

  get failures(): FailureRecord[] {
    return [...this.#failures.values()];
  }

  #follow(order: OrderRecord, sites: Sites, reported: Reported): void {
    const [settings, now] = [this.#settings, this.#atMs];
    const { guest, from, to } = order;
    const at = (host: string): boolean => sites.isKnown(host) && sites.reports(host, guest);
    const isShown = reported.shows(order.id);
    const seenMs = isShown ? now : order.seenMs;
    const silentMs = now - seenMs;
    if (at(to) && (!at(from) || silentMs > settings.pickUpMs)) {
      this.ends.push({ order, end: 'done' });
      this.#failures.delete(guest);
      this.moves.push({ guest, from, to, incarnation: order.incarnation, atMs: now });
      return;
    }
    // A report that shows neither end of it says that it failed, and so does the guest that is still where it was. Where
    // its destination is silent, the guest may be there.
    const isDenied = at(from) || sites.isKnown(to);
    const isHeard = !isShown && this.#failedOrders.has(order.id);
    if (isHeard || silentMs > (isDenied ? settings.pickUpMs : settings.missedMs)) {
      this.ends.push({ order, end: 'failed' });
      const before = this.#failures.get(guest);
      const count = Math.min(FAILURES_MAX, (before?.count ?? 0) + 1);
      this.#failures.set(guest, { guest, count, atMs: now });
      return;
    }
    this.orders.push({ ...order, seenMs });
  }

  #restMs({ count }: FailureRecord): number {
    return this.#settings.pickUpMs * 2 ** (count - 1);
  }

  add(order: OrderRecord): void {
    this.orders.push(order);
    this.#underWay.add(order.guest);
  }

  isUnderWay(guest: string): boolean {
    return this.#underWay.has(guest);
  }

  rests(guest: string): boolean {
    const failure = this.#failures.get(guest);
    return failure !== undefined && this.#atMs - failure.atMs < this.#restMs(failure);
  }

  /** Hosts that `guest` left within its cool-down, as this leader saw it and as its host says. */
  leftBy(guest: FleetGuest, ageMs: number): LeftHost[] {
    const left: LeftHost[] = (this.#movesOf.get(guest.guest) ?? []).map(({ from, atMs }) => ({
      host: from,
      agoMs: this.#atMs - atMs,
    }));
    for (const { host, agoMs } of guest.left) {
      // What makes no sense counts as a moment ago: that can only keep the guest where it is.
      const ago = agoMs >= 0 ? agoMs + ageMs : 0;
      if (ago <= this.#settings.coolDownMs) left.push({ host, agoMs: ago });
    }
    const latest = new Map<string, number>();
    for (const { host, agoMs } of left) latest.set(host, Math.min(agoMs, latest.get(host) ?? agoMs));
    return [...latest]
      .map(([host, agoMs]) => ({ host, agoMs }))
      .sort((a, b) => a.agoMs - b.agoMs || (a.host < b.host ? -1 : 1))
      .slice(0, LEFT_MAX);
  }
}

type Shown = Omit<OrderRecord, 'atMs' | 'seenMs'>;

/** Reports of nonsense may have one id for several guests or hosts: all of them count. */
const keyOf = ({ id, guest, from, to }: Shown): string => JSON.stringify([id, guest, from, to]);

/** What reports show of orders: reservations at destinations, and guests that are leaving. */
class Reported {
  readonly #orders = new Map<string, Shown>();
  /** Orders that a report which can be gone by shows. */
  readonly #shown = new Set<string>();

  constructor(view: FleetView, sites: Sites) {
    for (const { host: to, incoming } of view.hosts) {
      for (const { order: id, guest, from, bytes } of incoming) {
        // What is left of an order whose guest runs here already.
        if (sites.reports(to, guest)) continue;
        // Nonsense keeps all that there is.
        const reserveBytes = isSize(bytes) ? bytes : BYTES_MAX;
        this.#add(
          { id, guest, incarnation: '', from, to, reserveBytes, because: 'found' },
          sites.isKnown(to),
        );
      }
    }
    for (const { host: from, guests } of view.hosts) {
      for (const guest of guests) {
        if (guest.moving === null) continue;
        const { order: id, to } = guest.moving;
        const reserveBytes = isPlausible(guest) ? reserveFor(guest) : BYTES_MAX;
        const { guest: name, incarnation } = guest;
        this.#add(
          { id, guest: name, incarnation, from, to, reserveBytes, because: 'found' },
          sites.isKnown(from),
        );
      }
    }
  }

  #add(order: Shown, isKnown: boolean): void {
    if (isKnown) this.#shown.add(order.id);
    const key = keyOf(order);
    const before = this.#orders.get(key);
    // The host that keeps the memory knows how much it is.
    this.#orders.set(key, before === undefined ? order : { ...order, reserveBytes: before.reserveBytes });
  }

  shows(id: string): boolean {
    return this.#shown.has(id);
  }

  orders(atMs: number): OrderRecord[] {
    return [...this.#orders.values()].map(order => ({ ...order, atMs, seenMs: atMs }));
  }
}
