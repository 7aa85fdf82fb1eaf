/** The alert rules, each of which fires when it should and not when all is well, and the Grafana dashboard as a whole. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { missingPrograms, requireProgram } from '../../src/peers/programs.ts';
import { describePeer } from '../support/peers.ts';

const path = (name: string) => fileURLToPath(new URL(`../../packaging/${name}`, import.meta.url));
const rules = readFileSync(path('prometheus/aerostat.rules.yml'), 'utf8');
const dashboard = readFileSync(path('grafana/aerostat.json'), 'utf8');

const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(match => match[1]);

const MIB = 2 ** 20;
const GUEST = 'guest="vm1"';

/**
 * For each alert: series that make it fire, and series that come close and must not. `AxN` holds A for N minutes more,
 * `A+BxN` rises by B every minute. It is looked at after `atMinutes`.
 */
const CASES: Readonly<
  Record<
    string,
    {
      atMinutes: number;
      fires: Readonly<Record<string, string>>;
      /** Other ways to make it fire. */
      firesToo?: readonly Readonly<Record<string, string>>[];
      quiet: Readonly<Record<string, string>>;
    }
  >
> = {
  AerostatGuestOffTarget: {
    atMinutes: 15,
    fires: {
      [`aerostat_guest_target_bytes{${GUEST}}`]: `${512 * MIB}x20`,
      [`aerostat_guest_actual_bytes{${GUEST}}`]: `${256 * MIB}x20`,
      [`aerostat_guest_connected{${GUEST}}`]: '1x20',
    },
    quiet: {
      [`aerostat_guest_target_bytes{${GUEST}}`]: `${512 * MIB}x20`,
      [`aerostat_guest_actual_bytes{${GUEST}}`]: `${MIB}+${MIB}x20`,
      [`aerostat_guest_connected{${GUEST}}`]: '1x20',
    },
  },
  AerostatGuestInNeed: {
    atMinutes: 5,
    fires: {
      [`aerostat_guest_statistics_available_bytes{${GUEST}}`]: `${4 * MIB}x20`,
      [`aerostat_guest_statistics_total_bytes{${GUEST}}`]: `${128 * MIB}x20`,
      [`aerostat_guest_statistics_age_seconds{${GUEST}}`]: '5x20',
      [`aerostat_guest_connected{${GUEST}}`]: '1x20',
    },
    quiet: {
      [`aerostat_guest_statistics_available_bytes{${GUEST}}`]: `${8 * MIB}x20`,
      [`aerostat_guest_statistics_total_bytes{${GUEST}}`]: `${128 * MIB}x20`,
      [`aerostat_guest_statistics_age_seconds{${GUEST}}`]: '5x20',
      [`aerostat_guest_connected{${GUEST}}`]: '1x20',
    },
  },
  AerostatFleetHostSilent: {
    atMinutes: 10,
    fires: { 'aerostat_fleet_host_known{host="h1"}': '1x3 0x10' },
    quiet: { 'aerostat_fleet_host_known{host="h1"}': '1x3 0x1 1x10' },
  },
  AerostatFleetHostOvercommitted: {
    atMinutes: 15,
    fires: { 'aerostat_fleet_host_overcommitted_bytes{host="h1"}': `${MIB}x20` },
    quiet: { 'aerostat_fleet_host_overcommitted_bytes{host="h1"}': `${MIB}x6 0x1 ${MIB}x10` },
  },
  AerostatGuestKillsPrograms: {
    atMinutes: 10,
    fires: { [`aerostat_guest_oom_kills_total{${GUEST}}`]: '0x5 3x10' },
    quiet: { [`aerostat_guest_oom_kills_total{${GUEST}}`]: '3x20' },
  },
  AerostatDiscardsFail: {
    atMinutes: 5,
    fires: { [`aerostat_guest_errors_total{${GUEST},kind="discard_failed"}`]: '0x2 1x10' },
    quiet: { [`aerostat_guest_errors_total{${GUEST},kind="discard_failed"}`]: '7x20' },
  },
  AerostatAcknowledgementsLate: {
    atMinutes: 5,
    // A single one, after many that came in time.
    fires: {
      [`aerostat_guest_acknowledge_seconds_bucket{${GUEST},le="0.5"}`]: '100+10x20',
      [`aerostat_guest_acknowledge_seconds_bucket{${GUEST},le="1"}`]: '100+10x2 131+10x17',
      [`aerostat_guest_acknowledge_seconds_count{${GUEST}}`]: '100+10x2 131+10x17',
    },
    // Those that were late long ago.
    quiet: {
      [`aerostat_guest_acknowledge_seconds_bucket{${GUEST},le="0.25"}`]: '50+5x20',
      [`aerostat_guest_acknowledge_seconds_bucket{${GUEST},le="0.5"}`]: '100+10x20',
      [`aerostat_guest_acknowledge_seconds_count{${GUEST}}`]: '107+10x20',
    },
  },
  AerostatPendingStays: {
    atMinutes: 5,
    fires: { [`aerostat_guest_pending_bytes{${GUEST}}`]: `${100 * MIB}x20` },
    quiet: { [`aerostat_guest_pending_bytes{${GUEST}}`]: `${100 * MIB} 0 ${100 * MIB} 0 ${100 * MIB} 0` },
  },
  AerostatStatisticsStale: {
    atMinutes: 6,
    fires: {
      [`aerostat_guest_statistics_age_seconds{${GUEST}}`]: '0+60x20',
      [`aerostat_guest_connected{${GUEST}}`]: '1x20',
    },
    quiet: {
      [`aerostat_guest_statistics_age_seconds{${GUEST}}`]: '0+60x20',
      [`aerostat_guest_connected{${GUEST}}`]: '0x20',
    },
  },
  AerostatGuestSendsNonsense: {
    atMinutes: 10,
    fires: { [`aerostat_guest_errors_total{${GUEST},kind="bad_buffer"}`]: '0+5x20' },
    quiet: { [`aerostat_guest_errors_total{${GUEST},kind="bad_buffer"}`]: '0x8 2x12' },
  },
  AerostatHostInNeed: {
    atMinutes: 5,
    fires: { 'aerostat_host_memory_pressure_ratio{waiting="full",over="60s"}': '0.3x20' },
    quiet: {
      'aerostat_host_memory_pressure_ratio{waiting="some",over="60s"}': '0.5x20',
      'aerostat_host_memory_pressure_ratio{waiting="full",over="60s"}': '0.01x20',
    },
  },
  AerostatPolicyOvercommitted: {
    atMinutes: 5,
    fires: { aerostat_policy_overcommitted_bytes: `${64 * MIB}x20` },
    quiet: { aerostat_policy_overcommitted_bytes: `0 ${64 * MIB} 0 0 ${64 * MIB} 0 0` },
  },
  AerostatPolicyGuestStuck: {
    atMinutes: 8,
    fires: { [`aerostat_guest_policy_stuck{${GUEST}}`]: '1x20' },
    quiet: { [`aerostat_guest_policy_stuck{${GUEST}}`]: '1x3 0 1x16' },
  },
  AerostatPolicySilent: {
    atMinutes: 5,
    fires: {
      'aerostat_policy_state{state="silent"}': '0x2 1x17',
      'aerostat_policy_state{state="running"}': '1x2 0x17',
    },
    // The program that says how it is does not notice.
    firesToo: [
      {
        'aerostat_policy_state{state="running"}': '1x20',
        aerostat_policy_decision_age_seconds: '1x2 4.5x17',
        aerostat_policy_period_seconds: '2x20',
      },
      // It was killed, and says nothing at all; the daemon of its guests does.
      {
        [`aerostat_guest_target_lapsed{${GUEST}}`]: '0x2 1x17',
        'aerostat_guest_target_lapsed{guest="vm2"}': '0x20',
      },
    ],
    quiet: {
      'aerostat_policy_state{state="silent"}': '0x20',
      aerostat_policy_decision_age_seconds: '3.5x20',
      [`aerostat_guest_target_lapsed{${GUEST}}`]: '0x20',
      aerostat_policy_period_seconds: '2x20',
    },
  },
  AerostatFleetSilent: {
    atMinutes: 5,
    fires: { aerostat_fleet_report_age_seconds: '1x2 90x17', aerostat_fleet_connected: '1x20' },
    firesToo: [{ aerostat_fleet_report_age_seconds: '1x20', aerostat_fleet_connected: '1x2 0x17' }],
    quiet: { aerostat_fleet_report_age_seconds: '1 90 1 1 90 1 1 1', aerostat_fleet_connected: '1x20' },
  },
  AerostatFleetWithoutLeader: {
    atMinutes: 5,
    fires: {
      'aerostat_fleet_role{role="leader",instance="a"}': '1x2 0x17',
      'aerostat_fleet_role{role="leader",instance="b"}': '0x20',
    },
    quiet: {
      'aerostat_fleet_role{role="leader",instance="a"}': '1x2 0x17',
      'aerostat_fleet_role{role="leader",instance="b"}': '0x3 1x16',
    },
  },
  AerostatPolicyHarm: {
    atMinutes: 10,
    fires: { [`aerostat_guest_policy_harms_total{${GUEST}}`]: '2x5 3x10' },
    firesToo: [
      {
        [`aerostat_guest_policy_harms_total{${GUEST}}`]: '2x20',
        [`aerostat_guest_policy_oom_kills_total{${GUEST}}`]: '0x5 1x10',
      },
    ],
    quiet: {
      [`aerostat_guest_policy_harms_total{${GUEST}}`]: '2x20',
      [`aerostat_guest_policy_oom_kills_total{${GUEST}}`]: '5x20',
    },
  },
  AerostatDaemonGone: {
    atMinutes: 12,
    // One of twenty dies. Before, there was one rule, absent(aerostat_build_info), and the other nineteen kept it silent.
    fires: twenty(3),
    firesToo: [
      {
        'aerostat_daemon_up{daemon="/run/aerostat/vm1/api.sock"}': '1x20',
        'aerostat_daemon_up{daemon="/run/aerostat/vm2/api.sock"}': '1x5 0x15',
      },
    ],
    // Another program's target that is down is not ours to tell of.
    quiet: { ...twenty(), 'up{job="other",instance="host9:9100"}': '0x20' },
  },
  AerostatNoDaemon: {
    atMinutes: 5,
    fires: { 'up{job="aerostat"}': '0x20' },
    quiet: { 'aerostat_build_info{version="0.1.0"}': '1x20' },
  },
};

/** Twenty daemons that are scraped, of which one may die after five minutes: what it said of itself ends, and `up` is 0. */
function twenty(dying?: number): Record<string, string> {
  const series: Record<string, string> = {};
  for (let index = 0; index < 20; index++) {
    const labels = `job="aerostat",instance="host${index}:9774"`;
    series[`aerostat_build_info{${labels},version="0.1.0"}`] = index === dying ? '1x4 stale _x15' : '1x20';
    series[`up{${labels}}`] = index === dying ? '1x4 0x15' : '1x20';
  }
  return series;
}

/** A file for `promtool test rules`; JSON is YAML. */
function testFile(
  alert: string,
  series: Readonly<Record<string, string>>,
  atMinutes: number,
  fires: boolean,
) {
  return JSON.stringify({
    rule_files: [path('prometheus/aerostat.rules.yml')],
    evaluation_interval: '30s',
    tests: [
      {
        interval: '1m',
        input_series: Object.entries(series).map(([name, values]) => ({ series: name, values })),
        promql_expr_test: [
          {
            expr: `count(ALERTS{alertname="${alert}",alertstate="firing"}) or vector(0)`,
            eval_time: `${atMinutes}m`,
            exp_samples: [{ labels: '{}', value: fires ? 1 : 0 }],
          },
        ],
      },
    ],
  });
}

test('every alert has a case, says how serious it is, and what to do', () => {
  expect(Object.keys(CASES).sort()).toEqual([...alerts].sort());
  for (const rule of rules.split('- alert: ').slice(1)) {
    expect(rule).toMatch(/severity: (warning|critical)/);
    expect(rule).toMatch(/summary: .+/);
    expect(rule).toMatch(/description: >-/);
  }
});

test('the dashboard is a whole one', () => {
  const { panels, templating, uid } = JSON.parse(dashboard);
  expect(uid).toBe('aerostat');
  const ids = panels.map(({ id }: { id: number }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  expect(templating.list.map(({ name }: { name: string }) => name)).toEqual(['datasource', 'job', 'guest']);
});

describePeer('the alert rules', missingPrograms('promtool'), () => {
  const promtool = (...words: string[]) => {
    const { status, stdout, stderr } = spawnSync(requireProgram('promtool'), words, { encoding: 'utf8' });
    return { status, text: stdout + stderr };
  };

  function check(alert: string, series: Readonly<Record<string, string>>, atMinutes: number, fires: boolean) {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    try {
      const file = join(directory, 'test.yml');
      writeFileSync(file, testFile(alert, series, atMinutes, fires));
      expect(promtool('test', 'rules', file)).toMatchObject({ status: 0 });
    } finally {
      rmSync(directory, { recursive: true });
    }
  }

  test('are rules that Prometheus takes', () => {
    expect(promtool('check', 'rules', path('prometheus/aerostat.rules.yml'))).toMatchObject({ status: 0 });
  });

  test.each(alerts)('%s fires, and not when all is well', alert => {
    const { atMinutes, fires, firesToo = [], quiet } = CASES[alert];
    check(alert, fires, atMinutes, true);
    for (const other of firesToo) check(alert, other, atMinutes, true);
    check(alert, quiet, atMinutes, false);
  });
});
