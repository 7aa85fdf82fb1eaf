/** What an agent says of itself and of its fleet, for its own API, metrics and messages. */
import type { HostSeen } from './hosts-seen.ts';
import type { Departure, Refusal, Report } from './messages.ts';

export const ROLES = ['leader', 'follower', 'alone'] as const;
/** `alone`: nothing is heard of the fleet, and nothing is ordered or carried out. */
export type Role = (typeof ROLES)[number];

interface HostSummary {
  readonly host: string;
  /** Since its report was seen to change; null where it was only found stored. */
  readonly ageMs: number | null;
  readonly memoryBytes: number;
  readonly guests: number;
  readonly incoming: number;
  readonly departures: number;
}

export const summaryOf = ({ report, ageMs }: HostSeen): HostSummary => ({
  host: report.host,
  ageMs,
  memoryBytes: report.memoryBytes,
  guests: report.guests.length,
  incoming: report.incoming.length,
  departures: report.departures.length,
});

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
