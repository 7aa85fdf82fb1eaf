/**
 * The figures of a {@link Control} in Prometheus' text format, gathered anew at each scrape: base units,
 * `_total` on what only rises, one label for the guest. Nothing is kept between scrapes, so a guest that went
 * away is gone from the next one.
 *
 * prom-client's own process metrics are not used: they wake the process a hundred times a second to measure
 * its event loop, and an idle daemon is to use no processor.
 */
import { Counter, Gauge, type Histogram, Registry } from 'prom-client';
import {
  type Control,
  type DaemonStatus,
  DURATION_BOUNDS_MS,
  type Durations,
  type GuestCounters,
  type GuestStatistics,
  type GuestStatus,
} from '../control/contract.ts';
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

type Metrics<Source> = readonly Metric<Source>[];

const one =
  <Source>(type: Metric<Source>['type']) =>
  (name: string, help: string, value: (source: Source) => number | null): Metric<Source> => ({
    name,
    help,
    type,
    values: source => [[{}, value(source)]],
  });

const seconds = (ms: number | null | undefined): number | null => (ms == null ? null : ms / 1000);

const gauge = one<GuestStatus>('gauge');
const total = one<GuestStatus>('counter');

const GUEST: Metrics<GuestStatus> = [
  {
    name: 'aerostat_guest_info',
    help: 'Always 1; the labels say how the guest is served.',
    type: 'gauge',
    values: ({ profile, discard }) => [[{ profile: profile ?? '', discard: discard ?? '' }, 1]],
  },
  gauge('aerostat_guest_connected', 'Whether a front-end is connected.', g => Number(g.connected)),
  gauge('aerostat_guest_memory_bytes', 'Memory that the guest was given.', g => g.memoryBytes),
  gauge('aerostat_guest_target_bytes', 'What the balloon should hold.', g => g.targetBytes),
  gauge('aerostat_guest_actual_bytes', 'What the guest says its balloon holds.', g => g.actualBytes),
  gauge('aerostat_guest_ballooned_bytes', 'Given away by the host’s own account.', g => g.balloonedBytes),
  gauge('aerostat_guest_pending_bytes', 'Given away, not yet back at the host.', g => g.pendingBytes),
  gauge('aerostat_guest_resident_bytes', 'What the host holds for the guest.', g => g.residentBytes),
  total('aerostat_guest_discarded_bytes_total', 'Given back for inflation.', g => g.discardedBytes),
  total('aerostat_guest_reported_bytes_total', 'Given back for free page reporting.', g => g.reportedBytes),
];

const ever = one<GuestCounters>('counter');

/** Of a guest on our own device; others' devices do not tell. */
const COUNTERS: Metrics<GuestCounters> = [
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

const LATENCIES: readonly Latency[] = [
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

interface Sampled extends GuestStatistics {
  readonly ageMs: number | null;
}

const says = one<Sampled>('gauge');
const counts = one<Sampled>('counter');

const STATISTICS: Metrics<Sampled> = [
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
const MIGRATION: Metrics<MigrationStatus> = [
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

const DAEMON: Metrics<DaemonStatus> = [
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
  is('aerostat_uptime_seconds', 'Time since the daemon started.', d => d.uptimeMs / 1000),
  is(
    'aerostat_data_plane_gc_pause_seconds_max',
    'Longest pause of a data-plane thread for garbage collection.',
    d => d.gcPauseMaxMs / 1000,
  ),
];

function gather<Source>(
  registry: Registry,
  metrics: Metrics<Source>,
  sources: readonly { labels: Readonly<Record<string, string>>; source: Source }[],
): void {
  for (const { name, help, type, values } of metrics) {
    const samples = sources.flatMap(({ labels, source }) =>
      values(source).flatMap(([further, value]) =>
        value === null ? [] : [{ labels: { ...labels, ...further }, value }],
      ),
    );
    // prom-client would say 0 of a metric without labels, and what nobody knows is not 0.
    if (samples.length === 0) continue;
    const options = { name, help, labelNames: Object.keys(samples[0].labels), registers: [registry] };
    const metric = type === 'gauge' ? new Gauge(options) : new Counter(options);
    for (const { labels, value } of samples) metric.inc(labels, value);
  }
}

interface HistogramSample {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  /** Further labels, the same object for all series that have them: they are written out only once. */
  readonly sharedLabels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** The series of one guest. Each bucket counts all that were no longer than its bound, those of the lower ones too. */
function* histogramSamples(
  name: string,
  sharedLabels: Readonly<Record<string, string>>,
  { counts, sumMs }: Durations,
): Generator<HistogramSample> {
  let total = 0;
  for (const [index, count] of counts.entries()) {
    total += count;
    const le = index < DURATION_BOUNDS_MS.length ? DURATION_BOUNDS_MS[index] / 1000 : '+Inf';
    yield { metricName: `${name}_bucket`, labels: { le }, sharedLabels, value: total };
  }
  yield { metricName: `${name}_sum`, labels: {}, sharedLabels, value: sumMs / 1000 };
  yield { metricName: `${name}_count`, labels: {}, sharedLabels, value: total };
}

/** prom-client's own histograms are shown one value at a time; ours were counted elsewhere. */
function gatherLatencies(
  registry: Registry,
  sources: readonly { labels: Readonly<Record<string, string>>; source: GuestCounters }[],
): void {
  if (sources.length === 0) return;
  for (const { name, help, durations } of LATENCIES) {
    const values = sources.flatMap(({ labels, source }) => [
      ...histogramSamples(name, labels, durations(source)),
    ]);
    // All that a registry asks of a metric.
    const metric = { name, get: async () => ({ name, help, type: 'histogram', values }) };
    registry.registerMetric(metric as unknown as Histogram);
  }
}

/** The newest statistics of all guests that keep any, without asking one. */
async function newestStatistics(control: Control) {
  const samples = Object.entries(await control.samples());
  return samples.map(([guest, { statistics, ageMs }]) => ({
    labels: { guest },
    source: { ...statistics, ageMs },
  }));
}

/** What `ask` says of each guest; those of which there is nothing to say are left out. */
async function askForEach<Source extends object>(
  guests: readonly GuestStatus[],
  ask: (name: string) => Promise<Source | null>,
) {
  const answers = guests.map(async ({ name }) => {
    const source = await ask(name).catch(() => null);
    return source === null ? [] : [{ labels: { guest: name }, source }];
  });
  return (await Promise.all(answers)).flat();
}

export async function metricsText(control: Control): Promise<{ type: string; text: string }> {
  const [daemon, guests] = await Promise.all([control.daemon(), control.guests()]);
  const [samples, migrations] = await Promise.all([
    newestStatistics(control),
    askForEach(guests, name => control.migrations.status(name)),
  ]);
  const registry = new Registry();
  gather(registry, DAEMON, [{ labels: {}, source: daemon }]);
  gather(
    registry,
    GUEST,
    guests.map(guest => ({ labels: { guest: guest.name }, source: guest })),
  );
  const counted = guests.flatMap(({ name, counters }) =>
    counters === null ? [] : [{ labels: { guest: name }, source: counters }],
  );
  gather(registry, COUNTERS, counted);
  gatherLatencies(registry, counted);
  gather(registry, STATISTICS, samples);
  gather(registry, MIGRATION, migrations);
  return { type: registry.contentType, text: await registry.metrics() };
}
