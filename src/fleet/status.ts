/** What an agent says of itself and of its fleet, for its own API, metrics and messages. */
import { isPlausible, needOf, reserveFor } from '../placement/sites.ts';
import type { HostSeen } from './hosts-seen.ts';
import type { Departure, Refusal, Report } from './messages.ts';

export const ROLES = ['leader', 'follower', 'alone'] as const;
/** `alone`: nothing is heard of the fleet, and nothing is ordered or carried out. */
export type Role = (typeof ROLES)[number];

export interface HostSummary {
  readonly host: string;
  /** Since its report was seen to change; null where it was only found stored. */
  readonly ageMs: number | null;
  readonly memoryBytes: number;
  readonly guests: number;
  readonly incoming: number;
  readonly departures: number;
  /** Null where its report stands still: what it said is not how it is. */
  readonly now: HostFigures | null;
}

/** How a host is, as placement reckons. */
interface HostFigures {
  /** What it holds for its guests. */
  readonly residentBytes: number;
  readonly needBytes: number;
  /** Kept for guests on their way to it. */
  readonly incomingBytes: number;
  /** What it could still take. */
  readonly freeBytes: number;
  /** By how much the needs of its guests are above what they may have. */
  readonly overcommittedBytes: number;
  /** Null where the host that tells does not lead, and so does not know. */
  readonly draining: boolean | null;
}

export const summaryOf = (
  { report, ageMs }: HostSeen,
  staleMs: number,
  draining: readonly string[] | null,
): HostSummary => ({
  host: report.host,
  ageMs,
  memoryBytes: report.memoryBytes,
  guests: report.guests.length,
  incoming: report.incoming.length,
  departures: report.departures.length,
  now:
    ageMs === null || ageMs > staleMs
      ? null
      : { ...figuresOf(report), draining: draining?.includes(report.host) ?? null },
});

function figuresOf(report: Report): Omit<HostFigures, 'draining'> {
  const guests = report.guests.filter(isPlausible);
  const budgetBytes = Math.max(0, report.memoryBytes - report.reserveBytes - report.othersBytes);
  const incomingBytes = sum(report.incoming.map(({ bytes }) => bytes));
  const needBytes = sum(guests.map(needOf));
  return {
    residentBytes: sum(guests.map(({ residentBytes }) => residentBytes)),
    needBytes,
    incomingBytes,
    freeBytes: Math.max(0, budgetBytes - sum(guests.map(reserveFor)) - incomingBytes),
    overcommittedBytes: Math.max(0, needBytes - budgetBytes),
  };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

export interface AgentStatus {
  readonly fleet: string;
  readonly host: string;
  readonly agent: string;
  readonly nats: {
    readonly state: 'connecting' | 'connected' | 'disconnected';
    readonly server: string | null;
    /** Since the host's own report was stored last; null when it never was. */
    readonly storedAgoMs: number | null;
    /** Why the last one was not; null when it was. */
    readonly error: string | null;
  };
  readonly role: Role;
  readonly leader: string | null;
  readonly epoch: number;
  readonly elections: number;
  /** Orders that it gave as the leader. */
  readonly ordersGiven: number;
  /** Orders that it took as a source or destination, and those that it refused. */
  readonly ordersTaken: number;
  readonly ordersRefused: number;
  /** Messages of others that it did not understand. */
  readonly messagesRefused: Readonly<Record<Refusal, number>>;
  readonly guests: number;
  readonly incoming: Report['incoming'];
  readonly departures: readonly Departure[];
  readonly hosts: readonly HostSummary[];
}
