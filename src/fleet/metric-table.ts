/** Which figures of a host's agent there are for Prometheus, and where in its status each is found. */
import { type Metrics, one, seconds } from '../server/metric-tables.ts';
import { type AgentStatus, type HostSummary, ROLES } from './status.ts';

const gauge = one<AgentStatus>('gauge');
const total = one<AgentStatus>('counter');

/** By the leader alone: told by every host, there would be as many series as hosts squared. */
const ofHosts =
  (value: (host: HostSummary) => number | null): Metrics<AgentStatus>[number]['values'] =>
  ({ role, hosts }) =>
    role === 'leader' ? hosts.map(host => [{ host: host.host }, value(host)]) : [];

type KnownHost = HostSummary & { readonly now: NonNullable<HostSummary['now']> };

/** A figure of a host as it is now; a host that is silent has none. */
const ofHost = (
  name: string,
  help: string,
  value: (host: KnownHost) => number | null,
): Metrics<AgentStatus>[number] => ({
  name: `aerostat_fleet_host_${name}`,
  help,
  type: 'gauge',
  values: ofHosts(host => (host.now === null ? null : value({ ...host, now: host.now }))),
});

export const FLEET_METRICS: Metrics<AgentStatus> = [
  {
    name: 'aerostat_fleet_info',
    help: 'Always 1; the labels say of which fleet the host is, and how it is called there.',
    type: 'gauge',
    values: ({ fleet, host }) => [[{ fleet, host }, 1]],
  },
  {
    name: 'aerostat_fleet_role',
    help: 'What the host is to its fleet: 1 for the role that it has.',
    type: 'gauge',
    values: ({ role }) => ROLES.map(each => [{ role: each }, Number(each === role)]),
  },
  gauge('aerostat_fleet_connected', 'Whether the host is connected to a server of NATS.', s =>
    Number(s.nats.state === 'connected'),
  ),
  gauge(
    'aerostat_fleet_report_age_seconds',
    "Time since the host's report was stored last: the fleet knows nothing newer of it.",
    s => seconds(s.nats.storedAgoMs),
  ),
  gauge('aerostat_fleet_epoch', 'The highest leader that the host has heard of.', s => s.epoch),
  total('aerostat_fleet_elections_total', 'How often the host became the leader.', s => s.elections),
  total('aerostat_fleet_orders_given_total', 'Orders that the host gave as the leader.', s => s.ordersGiven),
  total(
    'aerostat_fleet_orders_taken_total',
    'Orders that the host took, as a source or a destination.',
    s => s.ordersTaken,
  ),
  total('aerostat_fleet_orders_refused_total', 'Orders that the host refused.', s => s.ordersRefused),
  {
    name: 'aerostat_fleet_messages_refused_total',
    help: 'Messages of others that the host did not take, by the reason.',
    type: 'counter',
    values: ({ messagesRefused }) =>
      Object.entries(messagesRefused).map(([reason, count]) => [{ reason }, count]),
  },
  gauge('aerostat_fleet_guests', 'Guests of the host that the fleet may move.', s => s.guests),
  gauge('aerostat_fleet_incoming_bytes', 'Memory that is kept for guests on their way to the host.', s =>
    s.incoming.reduce((sum, { bytes }) => sum + bytes, 0),
  ),
  gauge('aerostat_fleet_departures', 'Guests on their way from the host.', s => s.departures.length),
  {
    name: 'aerostat_fleet_host_age_seconds',
    help: 'Time since the leader saw the report of each host of its fleet change.',
    type: 'gauge',
    values: ofHosts(({ ageMs }) => seconds(ageMs)),
  },
  {
    name: 'aerostat_fleet_host_known',
    help: 'Whether the report of the host can be gone by; of one that is silent there are no figures but its age.',
    type: 'gauge',
    values: ofHosts(({ now }) => Number(now !== null)),
  },
  ofHost('memory_bytes', 'What guests and reserve of the host may have together.', h => h.memoryBytes),
  ofHost('resident_bytes', 'What the host holds for its guests.', h => h.now.residentBytes),
  ofHost('need_bytes', 'What the guests of the host need.', h => h.now.needBytes),
  ofHost('incoming_bytes', 'Kept for guests on their way to the host.', h => h.now.incomingBytes),
  ofHost('free_bytes', 'What the host could still take.', h => h.now.freeBytes),
  ofHost(
    'overcommitted_bytes',
    'By how much the needs of the guests are above what they may have.',
    h => h.now.overcommittedBytes,
  ),
  ofHost('guests', 'Guests of the host.', h => h.guests),
  ofHost('departures', 'Guests on their way from the host.', h => h.departures),
  ofHost('draining', 'Whether the host is to be empty.', h =>
    h.now.draining === null ? null : Number(h.now.draining),
  ),
];
