/**
 * One plan over a fleet: a view, what is remembered and the settings go in; orders to move guests, their reasons and the
 * new memory come out. It reads no clock, does no I/O and has no chance of its own, so the same input gives the same
 * output. The parts are in files of their own: sites (what hosts report), ledger (orders in flight), cost, relief (who
 * leaves), receivers (where to).
 */
import { Ledger } from './ledger.ts';
import { memoryAt, NOT_YET, newPlacementMemory } from './memory.ts';
import { orderId } from './order-id.ts';
import { type Destination, Receivers } from './receivers.ts';
import { cheapestFirst, type Leaver, leaverOf, reliefOf } from './relief.ts';
import { type Settled, settled } from './settings.ts';
import { reserveFor, type Seat, type Site, Sites } from './sites.ts';
import type {
  Because,
  FleetGuest,
  FleetState,
  FleetView,
  LeftHost,
  MoveOrder,
  MoveWish,
  OrderRecord,
  Placement,
  PlacementMemory,
  PlacementSettings,
  Stay,
  StayingGuest,
} from './types.ts';

/** Plans. Nothing that it is given is changed. */
export function plan(
  view: FleetView,
  memory: PlacementMemory = newPlacementMemory(),
  settings: PlacementSettings = {},
): Placement {
  return new Planning(view, memoryAt(memory, view.atMs), settled(settings)).run();
}

class Planning {
  readonly #view: FleetView;
  readonly #memory: PlacementMemory;
  readonly #settings: Settled;
  readonly #sites: Sites;
  readonly #ledger: Ledger;
  readonly #receivers: Receivers;
  readonly #orders: MoveOrder[] = [];
  readonly #staying: StayingGuest[] = [];

  constructor(view: FleetView, memory: PlacementMemory, settings: Settled) {
    this.#view = view;
    this.#memory = memory;
    this.#settings = settings;
    this.#sites = new Sites(view, memory, settings);
    this.#ledger = new Ledger(view, memory, settings, this.#sites);
    for (const order of this.#ledger.orders) this.#sites.count(order);
    this.#receivers = new Receivers(this.#sites, settings);
  }

  run(): Placement {
    const { atMs } = this.#view;
    const state = this.#state();
    if (state === 'moves') {
      for (const wish of this.#view.wishes ?? []) this.#grant(wish);
      for (const site of this.#shortHosts()) this.#relieve(site);
      for (const site of this.#drainingHosts()) this.#drain(site);
    }
    const hosts = this.#sites.all.map(site => site.placement(atMs));
    return {
      atMs,
      state,
      unknownHosts: this.#sites.unknown,
      orders: this.#orders,
      hosts: [...hosts, ...this.#sites.missing],
      staying: this.#staying,
      ends: this.#ledger.ends,
      memory: {
        version: 1,
        sinceMs: this.#memory.sinceMs,
        atMs,
        hosts: this.#sites.records(this.#memory, atMs),
        orders: this.#ledger.orders,
        moves: this.#ledger.moves,
        failures: this.#ledger.failures,
      },
      looks: this.#sites.looks,
    };
  }

  #state(): FleetState {
    const { unknown, all, missing } = this.#sites;
    if (this.#view.atMs - this.#memory.sinceMs < this.#settings.settleMs) return 'settling';
    return unknown > 0 && 2 * unknown >= all.length + missing.length ? 'partition' : 'moves';
  }

  #grant({ guest: name, to }: MoveWish): void {
    const seat = this.#sites.seats.get(name);
    const site = this.#sites.byName.get(to);
    if (seat === undefined || site === undefined) {
      this.#staying.push({ guest: name, host: seat?.site.name ?? '', why: 'missing', detail: to, bytes: -1 });
      return;
    }
    if (seat.site === site) {
      this.#stay(seat, 'there', { detail: to });
      return;
    }
    const why = this.#hindrance(seat);
    if (why !== undefined) {
      this.#stay(seat, why);
      return;
    }
    if (this.#isFull(seat.site, this.#settings.leavesMax)) {
      this.#stay(seat, 'bound', { detail: to });
      return;
    }
    const left = this.#leftBy(seat);
    const place = this.#receivers.judge(seat.guest, seat.site, site, left);
    if (typeof place === 'string') this.#stay(seat, place, { detail: to });
    else this.#order(seat, place, left, { kind: 'wish' });
  }

  /** Those that were short long enough, the worst first. */
  #shortHosts(): Site[] {
    const { atMs } = this.#view;
    const isDue = (site: Site): boolean =>
      site.shortSinceMs !== NOT_YET && atMs - site.shortSinceMs >= this.#settings.patienceMs;
    const share = (site: Site): number => site.shortBytes / site.host.memoryBytes;
    return this.#sites.all
      .filter(site => site.state === 'short' && site.shortBytes > 0 && isDue(site))
      .sort((a, b) => share(b) - share(a) || (a.name < b.name ? -1 : 1));
  }

  #drainingHosts(): Site[] {
    return this.#sites.all
      .filter(({ state }) => state === 'draining')
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Orders guests away until the others fit. */
  #relieve(site: Site): void {
    let hindered: { readonly seat: Seat; readonly why: Stay } | undefined;
    const leavers: Leaver[] = [];
    for (const { seat, leaver, why } of this.#leaversOf(site)) {
      if (leaver !== undefined) leavers.push(leaver);
      else if (why !== undefined) hindered ??= { seat, why };
    }
    const { shortBytes, host } = site;
    const { spare } = this.#settings;
    for (const { guest } of reliefOf(leavers, site.lackBytes(spare))) {
      if (site.lackBytes(spare) <= 0) return;
      const seat = this.#sites.seats.get(guest.guest);
      if (seat === undefined) continue;
      if (this.#isFull(site, this.#settings.leavesMax)) {
        hindered = { seat, why: 'bound' };
        break;
      }
      const left = this.#leftBy(seat);
      const place = this.#receivers.placeFor(guest, site, left);
      const because: Because = { kind: 'short', shortBytes, budgetBytes: site.budgetBytes };
      if (typeof place !== 'string') this.#order(seat, place, left, because);
      else if (hindered === undefined || hindered.why !== 'room') hindered = { seat, why: place };
    }
    if (site.shortBytes > 0 && hindered !== undefined && host.guests.length > 0) {
      this.#stay(hindered.seat, hindered.why, { host: site.name });
    }
  }

  /** Orders all guests away, so many at a time, and says of each other one why it stays. */
  #drain(site: Site): void {
    const leavers: Leaver[] = [];
    for (const { seat, leaver, why } of this.#leaversOf(site)) {
      if (leaver !== undefined) leavers.push(leaver);
      else if (why !== undefined) this.#stay(seat, why, { host: site.name });
    }
    for (const { guest } of cheapestFirst(leavers)) {
      const seat = this.#sites.seats.get(guest.guest);
      if (seat === undefined) continue;
      if (this.#isFull(site, this.#settings.drainsMax)) {
        this.#stay(seat, this.#isFleetFull() ? 'bound' : 'next');
        continue;
      }
      const left = this.#leftBy(seat);
      const place = this.#receivers.placeFor(guest, site, left);
      if (typeof place === 'string') this.#stay(seat, place);
      else this.#order(seat, place, left, { kind: 'drain' });
    }
  }

  /** The guests of a host, each with what its move costs or why it does not move. */
  *#leaversOf(site: Site): Generator<{ seat: Seat; leaver?: Leaver | undefined; why?: Stay | undefined }> {
    for (const { guest: name } of site.host.guests) {
      this.#sites.looks++;
      const seat = this.#sites.seats.get(name);
      if (seat === undefined) continue;
      const why = this.#hindrance(seat);
      if (why !== undefined) {
        yield { seat, why };
        continue;
      }
      const leaver = leaverOf(seat.guest, site);
      yield leaver === undefined ? { seat, why: 'dirty' } : { seat, leaver };
    }
  }

  /** What stands against moving a guest, wherever it would go. */
  #hindrance(seat: Seat): Stay | undefined {
    const { guest, doubt, ghostOf, plausible, site } = seat;
    if (doubt !== undefined || ghostOf !== undefined) return 'doubtful';
    if (!site.known) return 'stale';
    if (!plausible) return 'implausible';
    if (guest.moving !== null || this.#ledger.isUnderWay(guest.guest)) return 'moving';
    if (guest.obstacle !== null) return 'obstacle';
    return this.#ledger.rests(guest.guest) ? 'rest' : undefined;
  }

  #isFleetFull(): boolean {
    return this.#ledger.orders.length >= this.#settings.movesMax;
  }

  #isFull(site: Site, max: number): boolean {
    return site.leaving >= max || this.#isFleetFull();
  }

  #leftBy({ guest, site }: Seat): LeftHost[] {
    return this.#ledger.leftBy(guest, site.host.ageMs ?? 0);
  }

  #stay(
    { guest, site, doubt, ghostOf, plausible }: Seat,
    why: Stay,
    { host = site.name, detail }: { readonly host?: string; readonly detail?: string } = {},
  ): void {
    const own =
      why === 'obstacle' ? guest.obstacle : why === 'doubtful' ? (doubt?.join(', ') ?? ghostOf) : '';
    const bytes = plausible ? reserveFor(guest) : -1;
    this.#staying.push({ guest: guest.guest, host, why, detail: detail ?? own ?? '', bytes });
  }

  #order(seat: Seat, { site: to, cost }: Destination, left: readonly LeftHost[], because: Because): void {
    const { guest, site: from } = seat;
    const order: MoveOrder = {
      id: orderId(guest.guest, guest.incarnation, from.name, from.host.revision, to.name),
      guest: guest.guest,
      incarnation: guest.incarnation,
      from: from.name,
      to: to.name,
      fromRevision: from.host.revision,
      toRevision: to.host.revision,
      reserveBytes: reserveFor(guest),
      sendBytes: cost.sendBytes,
      sendMs: cost.sendMs,
      left: [{ host: from.name, agoMs: 0 }, ...left.filter(({ host }) => host !== from.name)],
      because,
    };
    this.#orders.push(order);
    const record = recordOf(order, guest, this.#view.atMs);
    this.#ledger.add(record);
    this.#sites.count(record);
    this.#receivers.changed(to);
  }
}

const recordOf = (order: MoveOrder, { incarnation }: FleetGuest, atMs: number): OrderRecord => ({
  id: order.id,
  guest: order.guest,
  incarnation,
  from: order.from,
  to: order.to,
  reserveBytes: order.reserveBytes,
  atMs,
  seenMs: atMs,
  because: order.because.kind,
});
