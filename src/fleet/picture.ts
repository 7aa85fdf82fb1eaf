/** What was seen of a fleet, as the page shows it. How a host is, is judged as placement judges it. It asks nothing. */
import type { FleetHostState, FleetHostView, FleetMove, FleetPicture } from '../control/fleet.ts';
import { plan } from '../placement/plan.ts';
import type { HostPlacement, HostState, PlacementSettings } from '../placement/types.ts';
import type { AuditRecord } from './audit.ts';
import type { HostSeen } from './hosts-seen.ts';
import type { FleetOrder, Report } from './messages.ts';
import { eventWords, orderWords } from './reasons.ts';
import { fleetView } from './view.ts';

/** Of more guests, those of one host are told: a page asks every second. */
const GUESTS_TOLD_MAX = 500;
/** An event in a line; a decision over many hosts has more sentences than are read. */
const EVENT_WORDS_MAX = 600;

export interface FleetSight {
  readonly fleet: string;
  readonly leader: { readonly host: string; readonly epoch: number } | null;
  readonly draining: readonly string[];
  readonly hosts: readonly HostSeen[];
  /** Orders of guests on their way, by their ids. */
  readonly orders: ReadonlyMap<string, FleetOrder>;
  /** Oldest first. */
  readonly events: readonly AuditRecord[];
  readonly reportsRefused: number;
  readonly seenAgoMs: number | null;
  readonly trouble: string | null;
}

/** @param host whose guests are told in any case */
export function fleetPicture(sight: FleetSight, settings: PlacementSettings, host?: string): FleetPicture {
  const { fleet, leader, draining, hosts, orders, events, reportsRefused, seenAgoMs, trouble } = sight;
  // A leader's memory is not known here: without one nothing is ordered, and how each host is, is judged all the same.
  const { hosts: placed } = plan({ ...fleetView(hosts, draining, 0) }, undefined, settings);
  const guests = hosts.reduce((sum, { report }) => sum + report.guests.length, 0);
  return {
    state: trouble === null ? 'known' : 'silent',
    name: fleet,
    trouble,
    seenAgoMs,
    leader: leader?.host ?? null,
    epoch: leader?.epoch ?? null,
    hosts: hosts.map((seen, at) =>
      hostView(seen, placed[at], {
        leads: seen.report.host === leader?.host,
        told: guests <= GUESTS_TOLD_MAX || seen.report.host === host,
      }),
    ),
    moves: hosts.flatMap(({ report }) => movesFrom(report, orders)),
    events: events
      .map(({ sequence, timeMs, event }) => ({
        sequence,
        timeMs,
        words: shortened(eventWords(event)),
      }))
      .reverse(),
    reportsRefused,
  };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

function hostView(
  { report, ageMs }: HostSeen,
  placed: HostPlacement,
  { leads, told }: { readonly leads: boolean; readonly told: boolean },
): FleetHostView {
  const { guests, incoming } = report;
  return {
    name: report.host,
    state: stateOf(placed.state),
    leads,
    ageMs,
    memoryBytes: report.memoryBytes,
    reserveBytes: report.reserveBytes,
    residentBytes: sum(guests.map(({ residentBytes }) => residentBytes)),
    needBytes: sum(guests.map(({ needBytes }) => needBytes)),
    incomingBytes: sum(incoming.map(({ bytes }) => bytes)),
    shortBytes: placed.shortBytes,
    guestCount: guests.length,
    guests: told
      ? guests.map(
          ({ guest, sizeBytes, residentBytes, needBytes, dirtyBytesPerSecond, obstacle, moving }) => ({
            ...{ name: guest, memoryBytes: sizeBytes },
            ...{ residentBytes, needBytes, dirtyBytesPerSecond, obstacle },
            to: moving?.to ?? null,
          }),
        )
      : null,
  };
}

function stateOf(state: HostState): FleetHostState {
  switch (state) {
    case 'stale':
    case 'missing':
      return 'silent';
    case 'twice':
      return 'implausible';
    default:
      return state;
  }
}

const movesFrom = ({ host, departures }: Report, orders: ReadonlyMap<string, FleetOrder>): FleetMove[] =>
  departures.map(({ order, guest, to, status, sentBytes, remainingBytes }) => {
    const known = orders.get(order);
    const why = known === undefined ? null : orderWords(known);
    return { order, guest, from: host, to, why, status, sentBytes, remainingBytes };
  });

const shortened = (words: string): string =>
  words.length <= EVENT_WORDS_MAX ? words : `${words.slice(0, EVENT_WORDS_MAX)}…`;
