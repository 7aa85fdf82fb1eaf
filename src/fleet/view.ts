/** Reports of hosts as placement reads them. */
import type { FleetView } from '../placement/types.ts';
import type { HostSeen } from './hosts-seen.ts';

export const fleetView = (
  seen: readonly HostSeen[],
  draining: readonly string[],
  atMs: number,
): Pick<FleetView, 'atMs' | 'hosts'> => ({
  atMs,
  hosts: seen.map(({ report, revision, ageMs }) => ({
    host: report.host,
    revision,
    ageMs,
    draining: draining.includes(report.host),
    memoryBytes: report.memoryBytes,
    reserveBytes: report.reserveBytes,
    othersBytes: report.othersBytes,
    linkBytesPerSecond: report.linkBytesPerSecond,
    guests: report.guests,
    incoming: report.incoming,
  })),
});
