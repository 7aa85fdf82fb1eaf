/** Figures of the hosts of a fleet for Prometheus: of those whose reports can be gone by, told by the leader. */
import { expect, test } from 'vitest';
import { FLEET_METRICS } from '../../src/fleet/metric-table.ts';
import { type AgentStatus, summaryOf } from '../../src/fleet/status.ts';
import { metricsOf } from '../../src/server/metrics.ts';
import { AGENT_STATUS, GIB, reportOf } from './samples.ts';

const STALE_MS = 10_000;

/** Values of `aerostat_fleet_host_…`, by the rest of the name and the host. */
async function told(status: Partial<AgentStatus>): Promise<Record<string, number>> {
  const { text } = await metricsOf(FLEET_METRICS, { ...AGENT_STATUS, ...status });
  const lines = [...text.matchAll(/^aerostat_fleet_host_(\w+)\{host="(\w+)"\} (\S+)$/gm)];
  return Object.fromEntries(lines.map(([, name, host, value]) => [`${name} ${host}`, Number(value)]));
}

test('a host that reports has all of its figures, as placement reckons them', async () => {
  const report = {
    ...reportOf('host1', { guests: 2 }),
    ...{ memoryBytes: 4 * GIB, reserveBytes: GIB, othersBytes: GIB },
    incoming: [{ order: 'move-1', guest: 'web', from: 'host2', bytes: GIB / 4 }],
  };
  // One needs more than the host holds for it, the other one less.
  Object.assign(report.guests[0], { needBytes: (3 * GIB) / 4 });
  Object.assign(report.guests[1], { needBytes: GIB / 4 });
  const seen = { report, revision: 3, ageMs: 800 };
  expect(await told({ hosts: [summaryOf(seen, STALE_MS, ['host1'])] })).toEqual({
    'age_seconds host1': 0.8,
    'known host1': 1,
    'memory_bytes host1': 4 * GIB,
    'resident_bytes host1': GIB,
    'need_bytes host1': GIB,
    'incoming_bytes host1': GIB / 4,
    'free_bytes host1': (2 - 0.75 - 0.5 - 0.25) * GIB,
    'overcommitted_bytes host1': 0,
    'guests host1': 2,
    'departures host1': 0,
    'draining host1': 1,
  });
  Object.assign(report.guests[0], { sizeBytes: 3 * GIB, needBytes: 3 * GIB });
  expect(await told({ hosts: [summaryOf(seen, STALE_MS, [])] })).toMatchObject({
    'free_bytes host1': 0,
    'overcommitted_bytes host1': 1.25 * GIB,
    'draining host1': 0,
  });
});

test('a host that is silent has its age, and no figure of before', async () => {
  const report = reportOf('host1', { guests: 2 });
  const summary = (ageMs: number | null) => summaryOf({ report, revision: 3, ageMs }, STALE_MS, ['host1']);
  expect(await told({ hosts: [summary(STALE_MS + 1)] })).toEqual({
    'age_seconds host1': (STALE_MS + 1) / 1000,
    'known host1': 0,
  });
  // Found stored: it may be of any age.
  expect(await told({ hosts: [summary(null)] })).toEqual({ 'known host1': 0 });
});

test('only the leader tells of hosts', async () => {
  expect(await told({ role: 'follower' })).toEqual({});
  expect(await told({ role: 'alone' })).toEqual({});
  expect(Object.keys(await told({}))).toContain('known host2');
});
