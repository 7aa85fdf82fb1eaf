/**
 * Which figures there are for Prometheus: their names, what they say, and where in the answers of a {@link Control} each is
 * found. Base units, `_total` on what only rises. How they are gathered is metrics.ts's.
 */

import {
  type DaemonStatus,
  type Durations,
  GUEST_STATES,
  type GuestCounters,
  type GuestStatistics,
  type GuestStatus,
  type HostStatus,
} from '../control/contract.ts';
import { isStuck } from '../control/judgement.ts';
import type { MigrationStatus } from '../control/migrations.ts';

interface Metric<Source> {
  readonly name: string;
  readonly help: string;
  readonly type: 'gauge' | 'counter';
  /** Further labels besides the guest, and the value under each; null where it is not known. */
  readonly values: (
    source: Source,
  ) => readonly (readonly [Readonly<Record<string, string>>, number | null])[];
}

export type Metrics<Source> = readonly Metric<Source>[];

export const one =
  <Source>(type: Metric<Source>['type']) =>
  (name: string, help: string, value: (source: Source) => number | null): Metric<Source> => ({
    name,
    help,
    type,
    values: source => [[{}, value(source)]],
  });

export const seconds = (ms: number | null | undefined): number | null => (ms == null ? null : ms / 1000);

const gauge = one<GuestStatus>('gauge');
const total = one<GuestStatus>('counter');

export const GUEST_METRICS: Metrics<GuestStatus> = [
  {
    name: 'aerostat_guest_info',
    help: 'Always 1; the labels say how the guest is served.',
    type: 'gauge',
    values: ({ profile, discard, memoryPlace }) => [
      [{ profile: profile ?? '', discard: discard ?? '', memory: memoryPlace ?? '' }, 1],
    ],
  },
  gauge('aerostat_guest_connected', 'Whether a front-end is connected.', g => Number(g.connected)),
  {
    name: 'aerostat_guest_state',
    help: 'Whether the guest can answer: 1 for the state that it is in.',
    type: 'gauge',
    values: ({ state }) =>
      state === null ? [] : GUEST_STATES.map(each => [{ state: each }, Number(each === state)]),
  },
  gauge('aerostat_guest_memory_bytes', 'Memory that the guest was given.', g => g.memoryBytes),
  gauge('aerostat_guest_target_bytes', 'What the balloon should hold.', g => g.targetBytes),
  gauge(
    'aerostat_guest_wished_memory_bytes',
    'What the guest is to keep, where its target was given as that.',
    g => g.wishedMemoryBytes,
  ),
  gauge(
    'aerostat_guest_shown_target_bytes',
    'What the driver is shown of the target: less while the guest cannot hold it, and during its boot grace.',
    g => g.shownTargetBytes,
  ),
  gauge(
    'aerostat_guest_target_lapsed',
    'Whether the lease of the memory policy that set the target has run out, since the policy is silent.',
    ({ targetOwner }) => (targetOwner === null ? null : Number(targetOwner.lapsed)),
  ),
  gauge('aerostat_guest_stuck', 'Whether the balloon gets no nearer to its target.', g => Number(isStuck(g))),
  gauge('aerostat_guest_actual_bytes', 'What the guest says its balloon holds.', g => g.actualBytes),
  gauge('aerostat_guest_ballooned_bytes', 'Given away by the host’s own account.', g => g.balloonedBytes),
  gauge(
    'aerostat_guest_removed_bytes',
    'What the balloon held in memory that was removed from the guest since; it counts in nothing else.',
    g => g.removedBytes,
  ),
  gauge(
    'aerostat_guest_incomplete_bytes',
    'Given away and kept by the host, until the rest of its huge pages is given away too.',
    g => g.incompleteBytes,
  ),
  gauge('aerostat_guest_pending_bytes', 'Given away, not yet back at the host.', g => g.pendingBytes),
  gauge(
    'aerostat_guest_resident_bytes',
    'What the host holds for the guest: of memory in a file on disk the blocks there, without the page cache.',
    g => g.residentBytes,
  ),
  total('aerostat_guest_discarded_bytes_total', 'Given back for inflation.', g => g.discardedBytes),
  total('aerostat_guest_reported_bytes_total', 'Given back for free page reporting.', g => g.reportedBytes),
];

const ever = one<GuestCounters>('counter');

/** Of a guest on our own device; others' devices do not tell. */
export const COUNTER_METRICS: Metrics<GuestCounters> = [
  {
    name: 'aerostat_guest_buffers_total',
    help: 'Buffers taken, by queue.',
    type: 'counter',
    values: counters => [
      [{ queue: 'inflate' }, counters.inflateBuffers],
      [{ queue: 'deflate' }, counters.deflateBuffers],
      [{ queue: 'stats' }, counters.statsBuffers],
      [{ queue: 'hint' }, counters.hintBuffers],
      [{ queue: 'reporting' }, counters.reportingBuffers],
    ],
  },
  {
    name: 'aerostat_guest_pages_total',
    help: 'Pages of 4 KiB named in page lists, by what was said of them.',
    type: 'counter',
    values: counters => [
      [{ operation: 'inflate' }, counters.pages],
      [{ operation: 'deflate' }, counters.deflatedPages],
      [{ operation: 'report' }, counters.reportedPages],
      [{ operation: 'hint' }, counters.hintedPages],
    ],
  },
  ever('aerostat_guest_kept_pages_total', 'Pages deflated before they were discarded.', c => c.keptPages),
  ever('aerostat_guest_list_bytes_total', 'Bytes of page lists decoded.', c => c.listBytes),
  ever('aerostat_guest_runs_total', 'Runs that pages were joined into.', c => c.runs),
  ever('aerostat_guest_punches_total', 'Calls that gave memory back.', c => c.punches),
  ever(
    'aerostat_guest_huge_pages_cut_total',
    'Transparent huge pages of which a part was given back.',
    c => c.hugePagesCut,
  ),
  ever('aerostat_guest_kicks_total', 'Kicks received from the guest.', c => c.kicks),
  ever('aerostat_guest_notifications_total', 'Interrupts sent to the guest.', c => c.notifications),
  ever('aerostat_guest_resets_total', 'Resets of the device.', c => c.resets),
  ever('aerostat_guest_connections_total', 'Front-ends that connected.', c => c.connections),
  {
    name: 'aerostat_guest_errors_total',
    help: 'What was refused or failed, by kind.',
    type: 'counter',
    values: counters => [
      [{ kind: 'bad_buffer' }, counters.badBuffers],
      [{ kind: 'bad_page' }, counters.badPages],
      [{ kind: 'unknown_page' }, counters.unknownPages],
      [{ kind: 'bad_request' }, counters.badRequests],
      [{ kind: 'broken_ring' }, counters.brokenRings],
      [{ kind: 'discard_failed' }, counters.punchFailures],
    ],
  },
];

interface Latency {
  readonly name: string;
  readonly help: string;
  readonly durations: (counters: GuestCounters) => Durations;
}

export const LATENCIES: readonly Latency[] = [
  {
    name: 'aerostat_guest_acknowledge_seconds',
    help: 'From taking a buffer of the inflate or deflate queue to its return.',
    durations: counters => counters.acknowledgeTimes,
  },
  {
    name: 'aerostat_guest_discard_seconds',
    help: 'Time of a call that gave a run of memory back.',
    durations: counters => counters.discardTimes,
  },
];

export interface Sampled extends GuestStatistics {
  readonly ageMs: number | null;
}

const says = one<Sampled>('gauge');
const counts = one<Sampled>('counter');

export const STATISTICS_METRICS: Metrics<Sampled> = [
  says('aerostat_guest_statistics_age_seconds', 'Age of the guest’s statistics.', s => seconds(s.ageMs)),
  says('aerostat_guest_statistics_total_bytes', 'Memory, as the guest counts.', s => s.totalBytes),
  says('aerostat_guest_statistics_free_bytes', 'Memory that is not used at all.', s => s.freeBytes),
  says('aerostat_guest_statistics_available_bytes', 'Memory for new programs.', s => s.availableBytes),
  says('aerostat_guest_statistics_cache_bytes', 'Memory used for cached files.', s => s.cacheBytes),
  counts('aerostat_guest_swap_in_bytes_total', 'Swapped in by the guest.', s => s.swapInBytes),
  counts('aerostat_guest_swap_out_bytes_total', 'Swapped out by the guest.', s => s.swapOutBytes),
  {
    name: 'aerostat_guest_page_faults_total',
    help: 'Page faults in the guest, by kind.',
    type: 'counter',
    values: s => [
      [{ kind: 'major' }, s.majorFaults],
      [{ kind: 'minor' }, s.minorFaults],
    ],
  },
  {
    name: 'aerostat_guest_hugetlb_allocations_total',
    help: 'Allocations of huge pages in the guest, by outcome.',
    type: 'counter',
    values: s => [
      [{ outcome: 'success' }, s.hugetlbAllocations],
      [{ outcome: 'failure' }, s.hugetlbFailures],
    ],
  },
  counts('aerostat_guest_oom_kills_total', 'Programs killed for want of memory.', s => s.oomKills),
  counts('aerostat_guest_allocation_stalls_total', 'Allocations that had to wait.', s => s.allocationStalls),
  {
    name: 'aerostat_guest_scanned_pages_total',
    help: 'Pages scanned for reclaim in the guest, in the background or by an allocation that waits.',
    type: 'counter',
    values: s => [
      [{ mode: 'async' }, s.asyncScannedPages],
      [{ mode: 'direct' }, s.directScannedPages],
    ],
  },
  {
    name: 'aerostat_guest_reclaimed_pages_total',
    help: 'Pages reclaimed in the guest, in the background or by an allocation that waits.',
    type: 'counter',
    values: s => [
      [{ mode: 'async' }, s.asyncReclaimedPages],
      [{ mode: 'direct' }, s.directReclaimedPages],
    ],
  },
];

const moves = one<MigrationStatus>('gauge');

/** Of a guest's migration, under way or the last one. */
export const MIGRATION_METRICS: Metrics<MigrationStatus> = [
  moves('aerostat_guest_migrating', 'Whether a migration of the guest is under way.', m =>
    Number(m.report === null && m.error === null),
  ),
  moves('aerostat_guest_migration_failed', 'Whether the last migration failed or was given up.', m =>
    Number(m.error !== null),
  ),
  moves('aerostat_guest_migration_round', 'Round that the migration is at.', m => m.state.round),
  moves('aerostat_guest_migration_remaining_bytes', 'Memory still to send.', m => m.state.remainingBytes),
  moves(
    'aerostat_guest_migration_bytes_per_second',
    'Bandwidth, as the migration measures it.',
    m => m.state.bytesPerSecond,
  ),
  moves('aerostat_guest_migration_expected_downtime_seconds', 'Downtime, were it to end now.', m =>
    seconds(m.state.expectedDowntimeMs),
  ),
  moves('aerostat_guest_migration_downtime_seconds', 'How long the guest stood still when it moved.', m =>
    seconds(m.report?.downtimeMs),
  ),
];

const is = one<DaemonStatus>('gauge');

export const DAEMON_METRICS: Metrics<DaemonStatus> = [
  {
    name: 'aerostat_build_info',
    help: 'Always 1; the label says which version runs.',
    type: 'gauge',
    values: ({ version }) => [[{ version }, 1]],
  },
  {
    name: 'process_cpu_seconds_total',
    help: 'Processor time used, by the daemon and by the kernel for it.',
    type: 'counter',
    values: d => [[{}, (d.cpuUserMs + d.cpuSystemMs) / 1000]],
  },
  is('process_resident_memory_bytes', 'Memory that the daemon itself holds.', d => d.residentBytes),
  is('process_start_time_seconds', 'When the daemon started, since the epoch.', d => d.startedAtMs / 1000),
  is('aerostat_uptime_seconds', 'Time since the daemon started.', d => d.uptimeMs / 1000),
  is(
    'aerostat_data_plane_gc_pause_seconds_max',
    'Longest pause of a data-plane thread for garbage collection.',
    d => d.gcPauseMaxMs / 1000,
  ),
];

const host = one<HostStatus>('gauge');
const share = (percent: number | undefined): number | null => (percent === undefined ? null : percent / 100);

/** As `top` shows them, of the machine that the figures are gathered on. */
export const HOST_METRICS: Metrics<HostStatus> = [
  host('aerostat_host_memory_bytes', 'Memory of the host.', h => h.totalBytes),
  host(
    'aerostat_host_memory_available_bytes',
    'What programs of the host can still get without swapping.',
    h => h.availableBytes,
  ),
  host(
    'aerostat_host_memory_shared_bytes',
    'Memory of the host in shared files, where that of guests is.',
    h => h.sharedBytes,
  ),
  host('aerostat_host_swap_bytes', 'Swap space of the host.', h => h.swapTotalBytes),
  host('aerostat_host_swap_free_bytes', 'Swap space of the host that is free.', h => h.swapFreeBytes),
  {
    name: 'aerostat_host_memory_pressure_ratio',
    help: 'Share of time in which programs of the host waited for memory: some of them, or all that could have run.',
    type: 'gauge',
    values: ({ pressure }) => [
      [{ waiting: 'some', over: '10s' }, share(pressure?.some10Percent)],
      [{ waiting: 'some', over: '60s' }, share(pressure?.some60Percent)],
      [{ waiting: 'full', over: '10s' }, share(pressure?.full10Percent)],
      [{ waiting: 'full', over: '60s' }, share(pressure?.full60Percent)],
    ],
  },
];

const up = one<{ readonly up: boolean }>('gauge');

export const UP_METRICS: Metrics<{ readonly up: boolean }> = [
  up('aerostat_daemon_up', 'Whether the daemon answers.', ({ up }) => Number(up)),
];
