/**
 * The alert rules and the Grafana dashboard against what is really scraped: they name no metric, label or value that is
 * not there, Prometheus can read every expression of theirs, and no metric is forgotten.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import { startGuestProcess } from '../../src/cli/processes.ts';
import { FLEET_METRICS } from '../../src/fleet/metric-table.ts';
import { missingPrograms, requireProgram } from '../../src/peers/programs.ts';
import { metricsOf, metricsOfAll, metricsText } from '../../src/server/metrics.ts';
import { build } from '../cli/built.ts';
import { AGENT_STATUS } from '../fleet/samples.ts';
import { FakeControl, guestStatus, MIB } from '../server/fake-control.ts';
import { policyStatus } from '../server/fake-policy.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { describePeer } from '../support/peers.ts';

const read = (name: string) =>
  readFileSync(fileURLToPath(new URL(`../../packaging/${name}`, import.meta.url)), 'utf8');

/** What Prometheus or Grafana adds to every series. */
const ADDED_LABELS = ['job', 'instance'];

/** Metrics that neither a rule nor the dashboard shows, and who wants them. */
const FOR_OTHERS = [
  // Parts of what is shown, for a closer look.
  'aerostat_guest_kicks_total',
  'aerostat_guest_list_bytes_total',
  'aerostat_guest_notifications_total',
  'aerostat_guest_runs_total',
  'aerostat_guest_migration_bytes_per_second',
  'aerostat_guest_migration_failed',
  'aerostat_guest_migration_round',
  // Events rather than figures.
  'aerostat_guest_connections_total',
  'aerostat_guest_resets_total',
  // Of the guest's kernel, where the figures above make one ask.
  'aerostat_guest_huge_pages_cut_total',
  'aerostat_guest_hugetlb_allocations_total',
  'aerostat_guest_reclaimed_pages_total',
  'aerostat_guest_scanned_pages_total',
  // Alerts go by how long a balloon stands still; this is for those who trust the daemon's judgement.
  'aerostat_guest_stuck',
  // Of guests whose memory is added to and removed from.
  'aerostat_guest_removed_bytes',
  'aerostat_guest_wished_memory_bytes',
  // Only memory of hugetlbfs has it.
  'aerostat_guest_incomplete_bytes',
  // A paused guest is no fault.
  'aerostat_guest_state',
  // The log says more; a guest on hold is no fault.
  'aerostat_policy_settings_refused',
  'aerostat_guest_policy_steered',
  // Of the daemon.
  'aerostat_data_plane_gc_pause_seconds_max',
  'aerostat_uptime_seconds',
  // Of the host, where the figures above make one ask.
  'aerostat_host_memory_shared_bytes',
  'aerostat_host_swap_bytes',
  // Of the fleet and its hosts, where the figures above make one ask.
  'aerostat_fleet_departures',
  'aerostat_fleet_elections_total',
  'aerostat_fleet_epoch',
  'aerostat_fleet_host_age_seconds',
  'aerostat_fleet_host_departures',
  'aerostat_fleet_host_guests',
  'aerostat_fleet_host_incoming_bytes',
  'aerostat_fleet_host_memory_bytes',
  'aerostat_fleet_host_need_bytes',
  'aerostat_fleet_host_resident_bytes',
  'aerostat_fleet_info',
];

type Labels = Readonly<Record<string, string>>;

interface Series {
  readonly name: string;
  readonly labels: Labels;
  readonly value: number;
}

function seriesOf(text: string): Series[] {
  return text
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'))
    .map(line => {
      const match = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
      if (match === null) expect.fail(`no series: ${line}`);
      const labels = [...(match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)];
      return {
        name: match[1],
        labels: Object.fromEntries(labels.map(([, name, value]) => [name, value])),
        value: Number(match[3]),
      };
    });
}

/** Names as `# TYPE` lines have them. */
const metricsIn = (text: string) => [...text.matchAll(/^# TYPE (\w+) /gm)].map(match => match[1]);

/** A daemon whose guest has inflated, deflated and told its statistics, scraped as Prometheus does. */
async function scrapeDaemon(): Promise<string> {
  const daemon = await DaemonProcess.start(['vm1']);
  try {
    const guest = await startGuestProcess({ socketPath: daemon.socketOf('vm1'), memoryBytes: 64 * MIB });
    await guest.tell({ do: 'touch' });
    await daemon.reach('vm1', 16 * MIB);
    await daemon.reach('vm1', 8 * MIB);
    // The same target, given as what the guest is to keep.
    await daemon.control.change('vm1', { memoryBytes: 56 * MIB });
    await daemon.control.statistics('vm1', { freshMs: 0, timeoutMs: 30_000 });
    const text = await get(join(daemon.directory, 'api.sock'));
    await guest.close();
    return text;
  } finally {
    await daemon.stop();
  }
}

function get(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    httpRequest({ socketPath, path: '/metrics' }, response => {
      let text = '';
      response.setEncoding('utf8').on('data', piece => {
        text += piece;
      });
      response.once('end', () => resolve(text));
    })
      .once('error', reject)
      .end();
  });
}

/** What a daemon does not have: migrations are those of machines, and of machines that moved. */
async function scrapeMigrations(): Promise<string> {
  const control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'));
  const status = await control.migrate('vm1', { to: 'tcp:host2:4444' });
  const report = { ...REPORT, downtimeMs: 54 };
  control.moving.set('vm2', { ...status, report });
  return (await metricsText(control)).text;
}

/** What a daemon does not have whose guests no policy looks after. */
async function scrapePolicy(): Promise<string> {
  const control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'));
  control.memoryPolicy.status = policyStatus(['vm1', 'vm2']);
  return (await metricsText(control)).text;
}

const linesAbout = (text: string, what: string): string =>
  text
    .split('\n')
    .filter(line => line.includes(what))
    .join('\n');

const REPORT = {
  totalMs: 900,
  downtimeMs: null,
  rounds: 3,
  bytes: 64 * MIB,
  pages: 16_384,
  zeroPages: 0,
  resentPages: 0,
  freePages: 0,
  balloonPages: 0,
  unbackedPages: 0,
  hintRaces: 0,
} as const;

const rules = read('prometheus/aerostat.rules.yml');
const dashboard = JSON.parse(read('grafana/aerostat.json')) as {
  readonly panels: readonly {
    readonly title: string;
    readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
  }[];
  readonly templating: { readonly list: readonly { readonly query?: unknown }[] };
};
const targets = dashboard.panels.flatMap(({ title, targets = [] }) =>
  targets.map(target => ({ title, ...target })),
);
const queries = dashboard.templating.list.flatMap(({ query }) =>
  typeof query === 'object' && query !== null && 'query' in query ? [String(query.query)] : [],
);
/** The expressions of the rules: what follows `expr:`, on its line or indented below it. */
const ruleExpressions = [...rules.matchAll(/^( *)expr: (?:\|\n((?:\1 +.*\n)+)|(.*)\n)/gm)].map(
  ([, , block, line]) => (block ?? line).trim(),
);
const expressions = [...targets.map(({ expr }) => expr), ...queries, ...ruleExpressions];

const METRIC = /\b(?:aerostat|process)_\w+/g;

/** What an exporter says of the daemons that it looks at. */
async function exportedSeries(): Promise<Series[]> {
  const control = new FakeControl(guestStatus('vm1'));
  const measured = [{ labels: { daemon: '/run/aerostat/vm1/api.sock' }, control }];
  const { text } = await metricsOfAll(measured, await control.host());
  return seriesOf(text).filter(({ name }) => name === 'aerostat_daemon_up');
}

let daemonText: string;
let migrationsText: string;
let policyText: string;
let fleetText: string;
let series: Series[];

beforeAll(async () => {
  build();
  daemonText = await scrapeDaemon();
  migrationsText = await scrapeMigrations();
  policyText = await scrapePolicy();
  fleetText = (await metricsOf(FLEET_METRICS, AGENT_STATUS)).text;
  series = seriesOf(
    [daemonText, linesAbout(migrationsText, 'migrat'), linesAbout(policyText, 'policy')].join('\n'),
  );
  series.push(...(await exportedSeries()));
  series.push(...seriesOf(fleetText));
});

test('there are as many expressions as there are rules, panels and variables to have them', () => {
  expect(ruleExpressions).toHaveLength([...rules.matchAll(/^ *- alert:/gm)].length);
  expect(targets.length).toBeGreaterThan(25);
  expect(queries).toHaveLength(2);
});

test('a real daemon has every metric but those of migrations and policies, and none by another name', () => {
  const source = read('../src/server/metric-tables.ts') + read('../src/server/policy-metric-tables.ts');
  const written = [...new Set([...source.matchAll(/'((?:aerostat|process)_\w+)'/g)].map(([, name]) => name))];
  const scraped = metricsIn(daemonText);
  expect(scraped.filter(name => !written.includes(name))).toEqual([]);
  const missing = written.filter(name => !scraped.includes(name));
  // A kernel without pressure stall information has nothing to say of it.
  const untold = existsSync('/proc/pressure/memory') ? /migrat|policy/ : /migrat|policy|pressure/;
  expect(missing.filter(name => name.search(untold) < 0)).toEqual([]);
  const elsewhere = [...metricsIn(migrationsText), ...metricsIn(policyText)];
  expect(missing.filter(name => /migrat|policy/.test(name) && !elsewhere.includes(name))).toEqual([]);
});

test('every metric that a rule or the dashboard names is scraped', () => {
  const scraped = new Set(series.map(({ name }) => name));
  const used = new Set(expressions.join('\n').match(METRIC));
  expect(used.size).toBeGreaterThan(30);
  expect([...used].filter(name => !scraped.has(name))).toEqual([]);
  // What else the files say of metrics, in words.
  const said = new Set([...rules.matchAll(METRIC)].map(([name]) => name));
  expect([...said].filter(name => !scraped.has(name))).toEqual([]);
});

test('every metric is shown, or is for others', () => {
  const used = new Set(
    (expressions.join('\n').match(METRIC) ?? []).map(name => name.replace(/_(bucket|sum|count)$/, '')),
  );
  const texts = [daemonText, migrationsText, policyText, fleetText];
  const all = new Set(texts.flatMap(metricsIn));
  expect([...all].filter(name => !used.has(name)).sort()).toEqual([...FOR_OTHERS].sort());
});

test('every label that a selector compares is there, with the values that it asks for', () => {
  let compared = 0;
  for (const [, name, selector] of expressions
    .join('\n')
    .matchAll(/\b((?:aerostat|process)_\w+)\{([^}]*)\}/g)) {
    const own = series.filter(one => one.name === name);
    for (const [, label, operator, value] of selector.matchAll(/(\w+)(=~|!~|!=|=)"([^"]*)"/g)) {
      if (ADDED_LABELS.includes(label)) continue;
      const values = new Set(own.map(({ labels }) => labels[label]));
      expect(values, `${name} has no label ${label}`).not.toContain(undefined);
      if (value.startsWith('$')) continue;
      compared++;
      const asked = operator.endsWith('~') ? value.split('|') : [value];
      expect([...values], `${name}: ${label}`).toEqual(expect.arrayContaining(asked));
    }
  }
  expect(compared).toBeGreaterThan(2);
});

test('every label that is grouped by, or written in a legend or a message, is there', () => {
  const known = new Set([...ADDED_LABELS, ...series.flatMap(({ labels }) => Object.keys(labels))]);
  const grouped = [...expressions.join('\n').matchAll(/\b(?:by|on|without|ignoring) *\(([^)]*)\)/g)].flatMap(
    ([, list]) => list.split(',').map(label => label.trim()),
  );
  const messages = [...rules.matchAll(/\$labels\.(\w+)/g)].map(([, label]) => label);
  expect([...grouped, ...messages].filter(label => !known.has(label))).toEqual([]);
  for (const { title, expr, legendFormat } of targets) {
    const own = series.filter(({ name }) => expr.includes(name)).flatMap(({ labels }) => Object.keys(labels));
    for (const [, label] of (legendFormat ?? '').matchAll(/\{\{ *(\w+) *\}\}/g)) {
      expect([...ADDED_LABELS, ...own], `${title}: ${legendFormat}`).toContain(label);
    }
  }
});

describePeer('Prometheus', missingPrograms('promtool'), () => {
  /** What Grafana puts in for its variables. */
  const plain = (expr: string) =>
    expr.replaceAll('$__rate_interval', '5m').replaceAll(/\$(?:job|guest)\b/g, '.*');

  /** Lets promtool evaluate expressions ten minutes into these series. */
  function evaluate(input: Readonly<Record<string, string>>, expected: readonly object[]) {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    try {
      const file = join(directory, 'test.yml');
      const input_series = Object.entries(input).map(([series, values]) => ({ series, values }));
      const one = { interval: '1m', input_series, promql_expr_test: expected };
      writeFileSync(file, JSON.stringify({ evaluation_interval: '1m', tests: [one] }));
      const { status, stdout, stderr } = spawnSync(requireProgram('promtool'), ['test', 'rules', file], {
        encoding: 'utf8',
      });
      expect({ status, text: status === 0 ? '' : stdout + stderr }).toEqual({ status: 0, text: '' });
    } finally {
      rmSync(directory, { recursive: true });
    }
  }

  test('takes what a real daemon says, and its linter has nothing against it', () => {
    for (const input of [daemonText, migrationsText, policyText, fleetText]) {
      const { status, stdout, stderr } = spawnSync(requireProgram('promtool'), ['check', 'metrics'], {
        input,
        encoding: 'utf8',
      });
      expect({ status, text: stdout + stderr }).toEqual({ status: 0, text: '' });
    }
  });

  test('can read every expression of the dashboard', () => {
    evaluate(
      {},
      targets.map(({ expr }) => ({ expr: plain(expr), eval_time: '10m', exp_samples: [] })),
    );
  });

  test('works the medians of the dashboard out of the buckets', async () => {
    const { text } = await metricsText(new FakeControl(guestStatus('vm1')));
    const rising = seriesOf(text)
      .filter(({ name }) => name.endsWith('_bucket'))
      .map(({ name, labels: { guest, le }, value }) => [
        `${name}{job="j",guest="${guest}",le="${le}"}`,
        `0+${value}x20`,
      ]);
    const median = (title: string, seconds: number) => ({
      expr: `abs((${plain(targets.find(target => target.title === title)?.expr ?? '')}) - ${seconds}) < bool 1e-9`,
      eval_time: '10m',
      exp_samples: [{ labels: '{guest="vm1"}', value: 1 }],
    });
    // The fifth of ten lies in the middle of the four between 10 and 25 us, the sixth of twelve in the middle of those
    // between 50 and 100.
    evaluate(Object.fromEntries(rising), [
      median('Acknowledging a buffer', 0.000_017_5),
      median('A discard', 0.000_075),
    ]);
  });
});
