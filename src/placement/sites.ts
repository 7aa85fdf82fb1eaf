/**
 * Hosts as placement reckons with them: what of their reports makes sense, what their guests may have and need, which
 * guests are in doubt, and what is on its way from and to each. It changes as orders are given. Which ones is not
 * decided here.
 */
import { NOT_YET } from './memory.ts';
import type { Settled } from './settings.ts';
import type {
  FleetGuest,
  FleetHost,
  FleetView,
  HostPlacement,
  HostRecord,
  HostState,
  OrderRecord,
  PlacementMemory,
} from './types.ts';

/** A petabyte. No host or link has more, and sums of a fleet's stay exact. */
export const BYTES_MAX = 2 ** 50;

export const isSize = (bytes: number): boolean => bytes >= 0 && bytes <= BYTES_MAX;

export const isPlausible = (guest: FleetGuest): boolean =>
  guest.sizeBytes > 0 &&
  isSize(guest.sizeBytes) &&
  isSize(guest.residentBytes) &&
  isSize(guest.needBytes) &&
  isSize(guest.minBytes) &&
  (guest.dirtyBytesPerSecond === null || isSize(guest.dirtyBytesPerSecond));

const isPlausibleHost = (host: FleetHost): boolean =>
  host.memoryBytes > 0 &&
  isSize(host.memoryBytes) &&
  isSize(host.reserveBytes) &&
  isSize(host.othersBytes) &&
  isSize(host.linkBytesPerSecond);

/** What `guest` needs of its host; nothing is known of one whose figures make no sense. */
export const needOf = ({ needBytes, minBytes, sizeBytes }: FleetGuest): number =>
  Math.min(sizeBytes, Math.max(needBytes, minBytes));

/** What a host has to keep for `guest` when it arrives: what it has comes along, and it is to grow into its need. */
export const reserveFor = (guest: FleetGuest): number =>
  Math.max(needOf(guest), Math.min(guest.residentBytes, guest.sizeBytes));

/** One host, in figures that change as orders are given. */
export class Site {
  readonly host: FleetHost;
  state: HostState = 'steady';
  /** Its report can be gone by. */
  known = false;
  budgetBytes = -1;
  needBytes = -1;
  incomingBytes = 0;
  outgoingBytes = 0;
  leaving = 0;
  arriving = 0;
  /** It has a guest of which nothing can be known. */
  obscure = false;
  shortSinceMs = NOT_YET;

  constructor(host: FleetHost) {
    this.host = host;
  }

  get name(): string {
    return this.host.host;
  }

  get shortBytes(): number {
    return this.known ? Math.max(0, this.needBytes - this.outgoingBytes - this.budgetBytes) : 0;
  }

  /** What has to leave until its needs fit and `spare` of its memory is free. */
  lackBytes(spare: number): number {
    const { needBytes, outgoingBytes, budgetBytes } = this;
    return Math.max(0, needBytes - outgoingBytes - budgetBytes + spare * this.host.memoryBytes);
  }

  /** What it could still take, beside what stays free. Memory of guests that leave counts when they have left. */
  slackBytes(headroom: number): number {
    return this.budgetBytes - this.needBytes - this.incomingBytes - headroom * this.host.memoryBytes;
  }

  get receives(): boolean {
    return this.state === 'steady' && !this.obscure;
  }

  /** What one more migration would have of its link. */
  get linkShare(): number {
    return this.host.linkBytesPerSecond / (this.leaving + this.arriving + 1);
  }

  readSizes(): void {
    const { memoryBytes, reserveBytes, othersBytes, guests } = this.host;
    this.budgetBytes = Math.max(0, memoryBytes - reserveBytes - othersBytes);
    this.needBytes = 0;
    for (const guest of guests) {
      if (isPlausible(guest)) this.needBytes += needOf(guest);
      else this.obscure = true;
    }
  }

  placement(atMs: number): HostPlacement {
    const { ageMs } = this.host;
    return {
      host: this.name,
      state: this.state,
      ageMs: ageMs !== null && ageMs >= 0 && Number.isFinite(ageMs) ? ageMs : -1,
      budgetBytes: this.budgetBytes,
      needBytes: this.needBytes,
      incomingBytes: this.incomingBytes,
      outgoingBytes: this.outgoingBytes,
      shortBytes: this.shortBytes,
      shortMs: this.shortSinceMs === NOT_YET ? 0 : atMs - this.shortSinceMs,
      receives: this.receives,
      leaving: this.leaving,
      arriving: this.arriving,
    };
  }
}

/** Where a guest is reported, and by how many. */
export interface Seat {
  readonly site: Site;
  readonly guest: FleetGuest;
  readonly plausible: boolean;
  /** All hosts that report one of this name, in the order of the view, where it is more than one copy. */
  doubt: string[] | undefined;
  /** Where this very copy is known to have moved to, or a silent host that had another copy. */
  ghostOf: string | undefined;
}

/** All hosts and guests of a view. */
export class Sites {
  readonly all: Site[];
  readonly byName = new Map<string, Site>();
  /** The first report of each guest. */
  readonly seats = new Map<string, Seat>();
  readonly missing: HostPlacement[] = [];
  looks = 0;
  readonly #settings: Settled;

  constructor(view: FleetView, memory: PlacementMemory, settings: Settled) {
    this.#settings = settings;
    this.all = view.hosts.map(host => new Site(host));
    for (const site of this.all) this.#name(site);
    const known = new Map(memory.hosts.map(record => [record.host, record]));
    for (const site of this.all) this.#judge(site, known.get(site.name), view.atMs);
    for (const site of this.all) this.#seat(site);
    this.#markGhosts(memory);
    for (const record of memory.hosts) {
      if (this.byName.has(record.host) || view.atMs - record.seenMs > settings.missedMs) continue;
      this.missing.push(missingHost(record.host));
      this.#markMissed(record, memory);
    }
  }

  /** Hosts of which nothing is known now. */
  get unknown(): number {
    const out = this.all.filter(({ state }) => state === 'stale' || state === 'unseen').length;
    return out + this.missing.length;
  }

  #name(site: Site): void {
    this.looks++;
    const other = this.byName.get(site.name);
    if (other === undefined) {
      this.byName.set(site.name, site);
      return;
    }
    site.state = 'twice';
    other.state = 'twice';
  }

  #judge(site: Site, record: HostRecord | undefined, atMs: number): void {
    const { host } = site;
    if (site.state === 'twice') return;
    if (host.ageMs === null) site.state = 'unseen';
    else if (!(host.ageMs >= 0 && host.ageMs <= this.#settings.staleMs)) site.state = 'stale';
    else if (!isPlausibleHost(host)) site.state = 'implausible';
    else {
      site.known = true;
      site.readSizes();
      if (host.draining) site.state = host.guests.length === 0 ? 'empty' : 'draining';
      else if (site.needBytes > site.budgetBytes) site.state = 'short';
      if (site.needBytes > site.budgetBytes) {
        site.shortSinceMs = record === undefined || record.shortMs === NOT_YET ? atMs : record.shortMs;
      }
    }
  }

  #seat(site: Site): void {
    for (const guest of site.host.guests) {
      this.looks++;
      const seat = this.seats.get(guest.guest);
      if (seat === undefined) {
        this.seats.set(guest.guest, {
          site,
          guest,
          plausible: isPlausible(guest),
          doubt: undefined,
          ghostOf: undefined,
        });
        continue;
      }
      seat.doubt ??= [seat.site.name];
      seat.doubt.push(site.name);
    }
  }

  /** A copy that was seen to have moved away, and is reported again: its host has an old view of itself. */
  #markGhosts(memory: PlacementMemory): void {
    for (const { guest, from, to, incarnation } of memory.moves) {
      const seat = this.seats.get(guest);
      if (seat === undefined || incarnation === '') continue;
      if (seat.site.name === from && seat.guest.incarnation === incarnation) seat.ghostOf = to;
    }
  }

  /** A host that is silent may still run what it had; who has moved away from it since is known not to be there. */
  #markMissed({ host, guests }: HostRecord, memory: PlacementMemory): void {
    const moved = memory.moves.filter(({ from }) => from === host);
    for (const { guest, incarnation } of guests) {
      this.looks++;
      const seat = this.seats.get(guest);
      if (seat === undefined) continue;
      const hasLeft = moved.some(move => move.guest === guest && move.incarnation === incarnation);
      if (!hasLeft) seat.ghostOf ??= host;
    }
  }

  /** Whether `host` reports that `guest` runs there, however old its report is. */
  reports(host: string, guest: string): boolean {
    const seat = this.seats.get(guest);
    return seat?.site.name === host || (seat?.doubt?.includes(host) ?? false);
  }

  isKnown(host: string): boolean {
    return this.byName.get(host)?.known ?? false;
  }

  /** Counts an order at both of its ends. */
  count({ guest, from, to, reserveBytes }: OrderRecord): void {
    const [source, destination] = [this.byName.get(from), this.byName.get(to)];
    if (source !== undefined && this.reports(from, guest)) {
      source.leaving++;
      for (const one of source.host.guests)
        if (one.guest === guest && isPlausible(one)) source.outgoingBytes += needOf(one);
    }
    // Once it runs there, it counts as a guest of the host.
    if (destination !== undefined && !this.reports(to, guest)) {
      destination.arriving++;
      destination.incomingBytes += reserveBytes;
    }
  }

  records(memory: PlacementMemory, atMs: number): HostRecord[] {
    const before = new Map(memory.hosts.map(record => [record.host, record]));
    const records: HostRecord[] = [];
    for (const site of this.byName.values()) {
      const record = before.get(site.name);
      const { name: host, known } = site;
      if (known) records.push({ host, seenMs: atMs, shortMs: site.shortSinceMs, guests: [] });
      else {
        const guests = site.host.guests.map(({ guest, incarnation }) => ({ guest, incarnation }));
        records.push({ host, seenMs: record?.seenMs ?? atMs, shortMs: NOT_YET, guests });
      }
    }
    for (const { host } of this.missing) {
      const record = before.get(host);
      if (record !== undefined) records.push({ ...record, shortMs: NOT_YET });
    }
    return records;
  }
}

const missingHost = (host: string): HostPlacement => ({
  host,
  state: 'missing',
  ageMs: -1,
  budgetBytes: -1,
  needBytes: -1,
  incomingBytes: 0,
  outgoingBytes: 0,
  shortBytes: 0,
  shortMs: 0,
  receives: false,
  leaving: 0,
  arriving: 0,
});
