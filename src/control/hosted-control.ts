/**
 * Guests elsewhere, looked after by this process in place of a daemon: what a daemon says of itself and of its host is
 * said of this process and of this machine.
 */
import type { DaemonStatus, GuestStatus } from './contract.ts';
import { handlerOf } from './handlers.ts';
import { readHost } from './host.ts';
import { noFleet } from './no-fleet.ts';
import { noHostPolicy } from './no-policy.ts';
import { noUpgrade } from './no-upgrade.ts';
import {
  type Control,
  GUEST_OPERATIONS,
  type GuestOperation,
  type GuestSource,
  handlersOf,
} from './operations.ts';

export function hostedControl(guests: GuestSource, version: string): Control {
  return {
    ...handlersOf<GuestOperation, GuestStatus>(GUEST_OPERATIONS, operation => handlerOf(guests, operation)),
    guests: () => guests.guests(),
    samples: () => guests.samples(),
    renewLeases: args => guests.renewLeases(args),
    subscribe: listener => guests.subscribe(listener),
    ...noHostPolicy,
    ...noUpgrade,
    ...noFleet,
    daemon: async () => statusOfThisProcess(version),
    host: () => readHost(),
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
    descriptors: null,
    kept: null,
  };
}
