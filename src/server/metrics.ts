/**
 * The figures of a {@link Control}, or of several, in Prometheus' text format, gathered anew at each scrape: base units,
 * `_total` on what only rises, one label for the guest. Nothing is kept between scrapes, so a guest that went
 * away is gone from the next one.
 *
 * prom-client's own process metrics are not used: they wake the process a hundred times a second to measure
 * its event loop, and an idle daemon is to use no processor.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Counter, Gauge, type Histogram, Registry } from 'prom-client';
import {
  type DaemonStatus,
  DURATION_BOUNDS_MS,
  type Durations,
  type GuestCounters,
  type GuestStatus,
  type HostStatus,
} from '../control/contract.ts';
import type { MigrationStatus } from '../control/migrations.ts';
import type { Control } from '../control/operations.ts';
import type { PolicyStatus } from '../control/policy.ts';
import {
  COUNTER_METRICS,
  DAEMON_METRICS,
  GUEST_METRICS,
  HOST_METRICS,
  LATENCIES,
  type Metrics,
  MIGRATION_METRICS,
  type Sampled,
  STATISTICS_METRICS,
  UP_METRICS,
} from './metric-tables.ts';

import { GUEST_POLICY_METRICS, POLICY_METRICS, RUNNING_POLICY_METRICS } from './policy-metric-tables.ts';

type Labels = Readonly<Record<string, string>>;

function gather<Source>(
  registry: Registry,
  metrics: Metrics<Source>,
  sources: readonly Labelled<Source>[],
): void {
  for (const { name, help, type, values } of metrics) {
    const samples = sources.flatMap(({ labels, source }) =>
      values(source).flatMap(([further, value]) =>
        value === null ? [] : [{ labels: { ...labels, ...further }, value }],
      ),
    );
    // prom-client would say 0 of a metric without labels, and what is not known is not 0.
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
function gatherLatencies(registry: Registry, sources: readonly Labelled<GuestCounters>[]): void {
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

/** A daemon whose figures are wanted, and what tells its series from those of others. */
export interface MeasuredDaemon {
  readonly labels: Labels;
  readonly control: Control;
}

interface Labelled<Source> {
  readonly labels: Labels;
  readonly source: Source;
}

/** All that there is to say of one daemon; of one that does not answer, only that. */
interface Figures {
  readonly up: Labelled<{ readonly up: boolean }>;
  readonly daemon: readonly Labelled<DaemonStatus>[];
  readonly guests: readonly Labelled<GuestStatus>[];
  readonly samples: readonly Labelled<Sampled>[];
  readonly migrations: readonly Labelled<MigrationStatus>[];
  /** Of a daemon that is too old to have one, none. */
  readonly policies: readonly Labelled<PolicyStatus>[];
}

async function figuresOf({ labels, control }: MeasuredDaemon): Promise<Figures> {
  const ofGuest = <Source>(name: string, source: Source): Labelled<Source> => ({
    labels: { ...labels, guest: name },
    source,
  });
  const [daemon, guests, samples, policy] = await Promise.all([
    control.daemon(),
    control.guests(),
    control.samples(),
    control.policy().catch(() => null),
  ]);
  const migrations = await Promise.all(
    guests.map(async ({ name }) => {
      const status = await control.migration(name).then(
        ({ migration }) => migration,
        () => null,
      );
      return status === null ? [] : [ofGuest(name, status)];
    }),
  );
  return {
    up: { labels, source: { up: true } },
    daemon: [{ labels, source: daemon }],
    guests: guests.map(guest => ofGuest(guest.name, guest)),
    // The newest of all guests that keep any, without asking one.
    samples: Object.entries(samples).map(([name, { statistics, ageMs }]) =>
      ofGuest(name, { ...statistics, ageMs }),
    ),
    migrations: migrations.flat(),
    policies: policy === null ? [] : [{ labels, source: policy }],
  };
}

const silent = ({ labels }: MeasuredDaemon): Figures => ({
  up: { labels, source: { up: false } },
  daemon: [],
  guests: [],
  samples: [],
  migrations: [],
  policies: [],
});

interface MetricsText {
  readonly type: string;
  readonly text: string;
}

/** Of one daemon, and of the machine that it runs on. */
export async function metricsText(control: Control): Promise<MetricsText> {
  const [figures, host] = await Promise.all([figuresOf({ labels: {}, control }), control.host()]);
  return textOf([figures], host);
}

/** Prometheus waits ten seconds for all: one daemon that hangs must not cost the figures of the others. */
const PATIENCE_MS = 4000;

/** Of several daemons, told apart by their labels; one that does not answer is told of as down. */
export async function metricsOfAll(
  measured: readonly MeasuredDaemon[],
  host: HostStatus,
  patienceMs = PATIENCE_MS,
): Promise<MetricsText> {
  const answers = measured.map(one => {
    const figures = figuresOf(one).catch(() => silent(one));
    const late = new AbortController();
    const enough = sleep(patienceMs, silent(one), { signal: late.signal }).catch(() => silent(one));
    return Promise.race([figures, enough]).finally(() => late.abort());
  });
  return textOf(await Promise.all(answers), host);
}

async function textOf(figures: readonly Figures[], hostStatus: HostStatus): Promise<MetricsText> {
  const registry = new Registry();
  const guests = figures.flatMap(one => one.guests);
  gather(
    registry,
    UP_METRICS,
    figures.map(one => one.up),
  );
  gather(registry, HOST_METRICS, [{ labels: {}, source: hostStatus }]);
  gather(
    registry,
    DAEMON_METRICS,
    figures.flatMap(one => one.daemon),
  );
  gather(registry, GUEST_METRICS, guests);
  const counted = guests.flatMap(({ labels, source: { counters } }) =>
    counters === null ? [] : [{ labels, source: counters }],
  );
  gather(registry, COUNTER_METRICS, counted);
  gatherLatencies(registry, counted);
  gather(
    registry,
    STATISTICS_METRICS,
    figures.flatMap(one => one.samples),
  );
  gather(
    registry,
    MIGRATION_METRICS,
    figures.flatMap(one => one.migrations),
  );
  gatherPolicies(
    registry,
    figures.flatMap(one => one.policies),
  );
  return { type: registry.contentType, text: await registry.metrics() };
}

/** Of something that is no daemon: its figures, by a table of its own. */
export async function metricsOf<Source>(metrics: Metrics<Source>, source: Source): Promise<MetricsText> {
  const registry = new Registry();
  gather(registry, metrics, [{ labels: {}, source }]);
  return { type: registry.contentType, text: await registry.metrics() };
}

function gatherPolicies(registry: Registry, policies: readonly Labelled<PolicyStatus>[]): void {
  const running = policies.filter(({ source: { state } }) => state !== 'off');
  gather(registry, POLICY_METRICS, policies);
  gather(registry, RUNNING_POLICY_METRICS, running);
  gather(
    registry,
    GUEST_POLICY_METRICS,
    running.flatMap(({ labels, source: { guests } }) =>
      guests.map(guest => ({ labels: { ...labels, guest: guest.name }, source: guest })),
    ),
  );
}
