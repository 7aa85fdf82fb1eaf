/** Which figures of a host's agent there are for Prometheus, and where in its status each is found. */
import { type Metrics, one, seconds } from '../server/metric-tables.ts';
import { type AgentStatus, ROLES } from './status.ts';

const gauge = one<AgentStatus>('gauge');
const total = one<AgentStatus>('counter');

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
    help: 'Time since the host saw the report of each host of its fleet change.',
    type: 'gauge',
    values: ({ hosts }) => hosts.map(({ host, ageMs }) => [{ of: host }, seconds(ageMs)]),
  },
];
