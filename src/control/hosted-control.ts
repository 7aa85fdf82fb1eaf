/**
 * Guests elsewhere, looked after by this process in place of a daemon: what a daemon says of itself and of its host is
 * said of this process and of this machine.
 */
import type { Control, DaemonStatus, GuestControl } from './contract.ts';
import { readHost } from './host.ts';
import { migrationsOf } from './migrations.ts';

/** The same control where it is a daemon's already. */
export function hostedControl(guests: GuestControl, version: string): Control {
  if ('daemon' in guests && 'host' in guests) return guests as Control;
  return {
    migrations: migrationsOf(guests),
    daemon: async () => statusOfThisProcess(version),
    host: () => readHost(),
    guests: () => guests.guests(),
    guest: name => guests.guest(name),
    change: (name, changes) => guests.change(name, changes),
    statistics: (name, options) => guests.statistics(name, options),
    samples: () => guests.samples(),
    map: (name, options) => guests.map(name, options),
    hint: (name, action) => guests.hint(name, action),
    request: (name, request, options) => guests.request(name, request, options),
    subscribe: listener => guests.subscribe(listener),
  };
}

/** Once: the clock may be set later, and when this process began does not change by it. */
const STARTED_AT_MS = Math.round(Date.now() - process.uptime() * 1000);

function statusOfThisProcess(version: string): DaemonStatus {
  const cpu = process.cpuUsage();
  return {
    version,
    pid: process.pid,
    startedAtMs: STARTED_AT_MS,
    uptimeMs: process.uptime() * 1000,
    residentBytes: process.memoryUsage.rss(),
    cpuUserMs: cpu.user / 1000,
    cpuSystemMs: cpu.system / 1000,
    // It has no data plane that could pause.
    gcPauseMaxMs: 0,
  };
}
