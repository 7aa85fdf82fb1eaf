/** Reports and orders as hosts of a fleet would write them. */
import type { Report } from '../../src/fleet/messages.ts';
import { VERSION } from '../../src/fleet/messages.ts';
import type { AgentStatus } from '../../src/fleet/status.ts';
import type { MoveOrder } from '../../src/placement/types.ts';

export const GIB = 1024 ** 3;

export function reportOf(
  host: string,
  { guests = 0, names }: { guests?: number; names?: readonly string[] } = {},
): Report {
  const all = names ?? Array.from({ length: guests }, (_, at) => `${host}-guest${at}`);
  return {
    version: VERSION,
    host,
    agent: `agent-${host}`,
    periodMs: 1000,
    program: '0.1.0',
    epoch: 0,
    memoryBytes: 8 * GIB,
    reserveBytes: 0,
    othersBytes: 0,
    linkBytesPerSecond: 1.25e9,
    guests: all.map(guest => ({
      guest,
      incarnation: `${host}-1`,
      sizeBytes: GIB,
      residentBytes: GIB / 2,
      needBytes: GIB / 2,
      minBytes: 0,
      dirtyBytesPerSecond: null,
      obstacle: null,
      moving: null,
      left: [],
    })),
    incoming: [],
    departures: [],
    outcomes: [],
    refusals: 0,
    atMs: 1_700_000_000_000,
  };
}

export const orderOf = (guest: string, more: Partial<MoveOrder> = {}) =>
  ({
    id: `move-${guest}`,
    guest,
    incarnation: 'host1-1',
    from: 'host1',
    to: 'host2',
    fromRevision: 1,
    toRevision: 2,
    reserveBytes: GIB,
    sendBytes: GIB / 2,
    sendMs: 400,
    left: [{ host: 'host1', agoMs: 0 }],
    because: { kind: 'drain' } as const,
    ...more,
  }) as MoveOrder & { left: { host: string; agoMs: number }[] };

/** An agent that leads a fleet of two hosts. */
export const AGENT_STATUS: AgentStatus = {
  fleet: 'default',
  host: 'host1',
  agent: 'agent-host1',
  nats: { state: 'connected', server: 'nats1:4222', storedAgoMs: 300, error: null },
  role: 'leader',
  leader: 'host1',
  epoch: 7,
  elections: 1,
  ordersGiven: 3,
  ordersTaken: 2,
  ordersRefused: 1,
  messagesRefused: { 'too-large': 0, newer: 1, nonsense: 2 },
  guests: 4,
  incoming: [{ order: 'move-1', guest: 'web', from: 'host2', bytes: GIB }],
  departures: [],
  hosts: [
    {
      ...{ host: 'host1', ageMs: 300, memoryBytes: 8 * GIB, guests: 4, incoming: 1, departures: 0 },
      now: {
        ...{ residentBytes: 3 * GIB, needBytes: 5 * GIB, incomingBytes: GIB, freeBytes: 2 * GIB },
        ...{ overcommittedBytes: 0, draining: true },
      },
    },
    {
      ...{ host: 'host2', ageMs: 90_000, memoryBytes: 8 * GIB, guests: 7, incoming: 0, departures: 1 },
      now: null,
    },
    {
      ...{ host: 'host3', ageMs: null, memoryBytes: 8 * GIB, guests: 7, incoming: 0, departures: 1 },
      now: null,
    },
  ],
};
