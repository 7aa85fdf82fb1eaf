/** Fleets for tests of placement, and a leader that plans over them as time goes on. */
import { plan } from '../../src/placement/plan.ts';
import type {
  FleetGuest,
  FleetHost,
  FleetView,
  Placement,
  PlacementMemory,
  PlacementSettings,
} from '../../src/placement/types.ts';

export const GIB = 2 ** 30;
export const PERIOD_MS = 2000;
/** Between two plans in which nothing is ordered. */
const LOOK_MS = 5000;

/** A guest of 8 GiB that needs and has `gib` of them, and writes little. */
export const guestOf = (guest: string, gib: number, more: Partial<FleetGuest> = {}): FleetGuest => ({
  guest,
  incarnation: `${guest}.1`,
  sizeBytes: 8 * GIB,
  residentBytes: gib * GIB,
  needBytes: gib * GIB,
  minBytes: 0.25 * GIB,
  dirtyBytesPerSecond: 0,
  obstacle: null,
  moving: null,
  left: [],
  ...more,
});

/** A host of 20 GiB with a link of 1 GiB a second; its guests may have all of its memory. */
export const hostOf = (
  host: string,
  guests: readonly FleetGuest[],
  more: Partial<FleetHost> = {},
): FleetHost => ({
  host,
  revision: 1,
  ageMs: 500,
  draining: false,
  memoryBytes: 20 * GIB,
  reserveBytes: 0,
  othersBytes: 0,
  linkBytesPerSecond: GIB,
  guests,
  incoming: [],
  ...more,
});

export class TestLeader {
  atMs = 1_000_000;
  memory: PlacementMemory | undefined;
  readonly settings: PlacementSettings;

  constructor(settings: PlacementSettings = {}) {
    // What a host is to have free is no matter of most tests.
    this.settings = { spare: 0, ...settings };
  }

  plan(hosts: readonly FleetHost[], more: Partial<FleetView> = {}): Placement {
    const placement = plan({ atMs: this.atMs, hosts, ...more }, this.memory, this.settings);
    ({ memory: this.memory } = placement);
    this.atMs += PERIOD_MS;
    return placement;
  }

  /** Looks on for `ms`, without an order: as long as hosts are to be short, for example. */
  lookOn(hosts: readonly FleetHost[], ms: number): void {
    const until = this.atMs + ms;
    while (this.atMs < until) {
      const placement = plan({ atMs: this.atMs, hosts }, this.memory, { ...this.settings, movesMax: 0 });
      ({ memory: this.memory } = placement);
      this.atMs += LOOK_MS;
    }
  }

  /** The first plan of a leader that has seen these hosts for a minute. */
  settledPlan(hosts: readonly FleetHost[], more: Partial<FleetView> = {}): Placement {
    this.lookOn(hosts, 60_000);
    return this.plan(hosts, more);
  }
}

/** What becomes of a fleet when an order has been carried out, by the next reports of both hosts. */
export function carriedOut(
  hosts: readonly FleetHost[],
  { guest: name, from, to, left }: Placement['orders'][number],
): FleetHost[] {
  const moved = hosts.flatMap(({ guests }) => guests).find(({ guest }) => guest === name);
  if (moved === undefined) throw new Error(`no guest ${name}`);
  return hosts.map(host => {
    const revision = host.revision + 1;
    if (host.host === from)
      return { ...host, revision, guests: host.guests.filter(({ guest }) => guest !== name) };
    if (host.host !== to) return host;
    const arrived = { ...moved, incarnation: `${moved.incarnation}@${to}`, left };
    return { ...host, revision, guests: [...host.guests, arrived] };
  });
}
