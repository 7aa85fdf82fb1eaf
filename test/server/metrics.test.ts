import { describe, expect, test } from 'vitest';
import { createApi } from '../../src/server/api.ts';
import { FakeControl, GIB, guestStatus } from './fake-control.ts';
import { policyStatus } from './fake-policy.ts';

async function scrape(control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'))) {
  const { app } = createApi(control, { version: '0' });
  const response = await app.request('/metrics');
  expect(response.status).toBe(200);
  return { text: await response.text(), type: response.headers.get('content-type') };
}

const valuesOf = (text: string, name: string) =>
  Object.fromEntries(
    text
      .split('\n')
      .filter(line => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
      .map(line => [
        line.slice(name.length, line.lastIndexOf(' ')),
        Number(line.slice(line.lastIndexOf(' ') + 1)),
      ]),
  );

describe('GET /metrics', () => {
  test('speaks the text format of Prometheus', async () => {
    expect((await scrape()).type).toBe('text/plain; version=0.0.4; charset=utf-8');
  });

  test('has one series a guest, in base units', async () => {
    const { text } = await scrape();
    expect(valuesOf(text, 'aerostat_guest_memory_bytes')).toEqual({
      '{guest="vm1"}': 4 * GIB,
      '{guest="vm2"}': 4 * GIB,
    });
    // Without labels, as every client library of Prometheus has it: others' dashboards rely on that.
    expect(valuesOf(text, 'process_cpu_seconds_total')).toEqual({ '': 1.75 });
    expect(valuesOf(text, 'aerostat_data_plane_gc_pause_seconds_max')).toEqual({ '': 0.0015 });
    expect(valuesOf(text, 'aerostat_guest_statistics_age_seconds')).toMatchObject({ '{guest="vm1"}': 1.5 });
  });

  test('tells buffers apart by queue, and errors by kind', async () => {
    const { text } = await scrape(new FakeControl(guestStatus('vm1')));
    expect(valuesOf(text, 'aerostat_guest_buffers_total')).toEqual({
      '{guest="vm1",queue="inflate"}': 8,
      '{guest="vm1",queue="deflate"}': 2,
      '{guest="vm1",queue="stats"}': 5,
      '{guest="vm1",queue="hint"}': 1,
      '{guest="vm1",queue="reporting"}': 4,
    });
    expect(Object.keys(valuesOf(text, 'aerostat_guest_errors_total'))).toHaveLength(6);
  });

  test('shows latencies as histograms: buckets that rise, and their last is the count', async () => {
    const { text } = await scrape();
    expect(text).toMatch(/^# TYPE aerostat_guest_acknowledge_seconds histogram$/m);
    for (const [name, count, sum] of [
      ['acknowledge', 10, 0.00125],
      ['discard', 12, 0.0015],
    ] as const) {
      const buckets = Object.entries(valuesOf(text, `aerostat_guest_${name}_seconds_bucket`));
      const ofVm1 = buckets.filter(([labels]) => labels.includes('guest="vm1"'));
      const bounds = ofVm1.map(([labels]) =>
        Number(/le="(.*?)"/.exec(labels)?.[1].replace('+Inf', 'Infinity')),
      );
      const values = ofVm1.map(([, value]) => value);
      expect(bounds).toEqual([...bounds].sort((a, b) => a - b));
      // Half a second is what an alert goes by.
      expect(bounds.slice(-3)).toEqual([0.5, 1, Number.POSITIVE_INFINITY]);
      expect(values).toEqual([...values].sort((a, b) => a - b));
      expect(values.at(-1)).toBe(count);
      expect(valuesOf(text, `aerostat_guest_${name}_seconds_count`)).toMatchObject({
        '{guest="vm1"}': count,
      });
      expect(valuesOf(text, `aerostat_guest_${name}_seconds_sum`)).toMatchObject({ '{guest="vm1"}': sum });
    }
  });

  test('follows a migration, and knows how the last one went', async () => {
    const control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'));
    const { state } = await control.migrate('vm1', { to: 'tcp:host2:4444' });
    const before = (await scrape(control)).text;
    expect(valuesOf(before, 'aerostat_guest_migrating')).toEqual({ '{guest="vm1"}': 1 });
    expect(valuesOf(before, 'aerostat_guest_migration_failed')).toEqual({ '{guest="vm1"}': 0 });
    expect(valuesOf(before, 'aerostat_guest_migration_remaining_bytes')).toEqual({
      '{guest="vm1"}': state.remainingBytes,
    });
    expect(valuesOf(before, 'aerostat_guest_migration_expected_downtime_seconds')).toEqual({
      '{guest="vm1"}': 0.054,
    });
    expect(valuesOf(before, 'aerostat_guest_migration_downtime_seconds')).toEqual({});
    control.moving.set('vm1', { to: 'x', state, report: null, error: { code: 'AEROSTAT_X', message: 'no' } });
    const after = (await scrape(control)).text;
    expect(valuesOf(after, 'aerostat_guest_migrating')).toEqual({ '{guest="vm1"}': 0 });
    expect(valuesOf(after, 'aerostat_guest_migration_failed')).toEqual({ '{guest="vm1"}': 1 });
  });

  test('tells of a memory policy what it divides, of each guest what it needs, and when it decided last', async () => {
    const control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'));
    expect(valuesOf((await scrape(control)).text, 'aerostat_policy_state')).toMatchObject({
      '{state="off"}': 1,
      '{state="silent"}': 0,
    });
    expect((await scrape(control)).text).not.toMatch(/aerostat_policy_(decision|budget|over)/);
    const running = policyStatus(['vm1', 'vm2']);
    const { budget } = running;
    if (budget === null) throw new Error('the fake has a budget');
    control.memoryPolicy.status = running;
    control.memoryPolicy.alter('vm2', { harms: 2, decision: null });
    const { text } = await scrape(control);
    const parts = valuesOf(text, 'aerostat_policy_budget_bytes');
    expect(parts).toMatchObject({
      '{part="reserve"}': budget.reserveBytes,
      '{part="need"}': budget.needBytes - budget.floorsBytes,
      '{part="surplus"}': budget.surplusBytes,
    });
    expect(Object.values(parts).reduce((sum, bytes) => sum + bytes, 0)).toBe(budget.totalBytes);
    expect(valuesOf(text, 'aerostat_policy_overcommitted_bytes')).toEqual({ '': 0 });
    expect(valuesOf(text, 'aerostat_policy_decision_age_seconds')).toEqual({ '': 0.7 });
    expect(valuesOf(text, 'aerostat_policy_decisions_total')).toEqual({ '': 1234 });
    expect(valuesOf(text, 'aerostat_guest_policy_need_bytes')).toEqual({ '{guest="vm1"}': 1.75 * GIB });
    expect(valuesOf(text, 'aerostat_guest_policy_harms_total')).toMatchObject({ '{guest="vm2"}': 2 });
    const needBytes = budget.budgetBytes + GIB;
    control.memoryPolicy.status = { ...running, budget: { ...budget, needBytes, overcommitted: true } };
    const over = valuesOf((await scrape(control)).text, 'aerostat_policy_overcommitted_bytes');
    expect(over).toEqual({ '': GIB });
  });

  test('leaves out what is not known instead of calling it 0', async () => {
    const control = new FakeControl(guestStatus('vm1', { memoryBytes: null, residentBytes: null }));
    control.sample = null;
    const { text } = await scrape(control);
    expect(valuesOf(text, 'aerostat_guest_memory_bytes')).toEqual({});
    expect(text).not.toMatch(/^aerostat_guest_statistics_/m);
    expect(valuesOf(text, 'aerostat_guest_connected')).toEqual({ '{guest="vm1"}': 1 });
  });

  test('forgets a guest that is gone', async () => {
    const control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'));
    const { app } = createApi(control, { version: '0' });
    await app.request('/metrics');
    control.known.delete('vm2');
    expect(await (await app.request('/metrics')).text()).not.toContain('vm2');
  });

  test('works with no guest at all', async () => {
    const { text } = await scrape(new FakeControl());
    expect(text).toMatch(/^aerostat_build_info\{version="0\.1\.0"\} 1$/m);
  });

  test('follows the conventions: help and type for each, totals on counters and nowhere else', async () => {
    const { text } = await scrape();
    const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(match => [match[1], match[2]]));
    const helps = new Set([...text.matchAll(/^# HELP (\S+) \S.*\.$/gm)].map(match => match[1]));
    expect(types.size).toBeGreaterThan(30);
    for (const [name, type] of types) {
      expect(helps, name).toContain(name);
      expect(name).toMatch(/^(aerostat|process)_[a-z_]+$/);
      expect(name.endsWith('_total'), name).toBe(type === 'counter');
      expect(name, 'base units only').not.toMatch(/(_ms|milliseconds|kilobytes|_mb)(_|$)/);
    }
  });
});
