/**
 * A machine moves between two processes over TCP: its guest works before, meanwhile and afterwards, and checks every
 * page that it wrote. The other free page channels, and that both memories are alike at the stop, page by page, are
 * digest.test.ts's.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import type { MigrationOrder, MigrationStatus } from '../../src/control/migrations.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { zstd, zstdOfNode } from '../../src/migration/stream/compression.ts';
import { build } from '../cli/built.ts';
import { MachineProcess } from './processes.ts';

const MIB = 2 ** 20;

const machines: MachineProcess[] = [];

beforeAll(build);

afterEach(async () => {
  await Promise.all(machines.splice(0).map(machine => machine.close()));
});

async function pair(words: readonly string[], ...placeWords: string[]) {
  const [source, place] = await Promise.all([
    MachineProcess.vm('--memory', '192M', '--whole', '--target', '16M', ...words),
    MachineProcess.place(...placeWords),
  ]);
  machines.push(source, place.machine);
  return { source, destination: place.machine, to: `tcp:${place.address}` };
}

async function move(source: MachineProcess, order: MigrationOrder): Promise<MigrationStatus> {
  // On a busy host a stop takes what it takes; limits are calling-off.test.ts's.
  await source.control.migrate('vm', { downtimeMsMax: 30_000, ...order });
  let status: MigrationStatus | null = null;
  await expect
    .poll(
      async () => {
        status = (await source.control.migration('vm')).migration;
        return status?.report !== null || status?.error !== null;
      },
      { timeout: 60_000, interval: 20 },
    )
    .toBe(true);
  return status as unknown as MigrationStatus;
}

test.each([
  ['none', 'virtio'],
  ['hint', 'virtio'],
] as const)('by channel %s (%s) everything arrives, and the guest goes on', async (channel, profile) => {
  const { source, destination, to } = await pair(['--profile', profile]);
  await source.tell({ do: 'use', bytes: 16 * MIB });
  await source.tell({ do: 'settle' });
  // What was written once and freed is with the host still, and the guest does not need it.
  await source.tell({ do: 'touch' });
  await source.tell({ do: 'start', workload: 'churn', bytes: 24 * MIB });
  const { report, error } = await move(source, { to, channel });
  expect(error).toBeNull();
  // Its states were sent ahead, and where it stood still is told: the steps add up to the downtime.
  const pause = report?.pause ?? [];
  expect(pause.map(({ step }) => step)).toEqual(
    expect.arrayContaining(['stop', 'load/guest', 'load', 'run']),
  );
  const steps = pause.filter(({ step }) => !step.includes('/'));
  expect(steps.reduce((sum, { ms }) => sum + ms, 0)).toBeCloseTo(report?.downtimeMs ?? 0, 3);
  await destination.event('ready');
  const arrived = await destination.tell({ do: 'status' });
  expect(arrived).toMatchObject({ profile, driver: 'running', targetBytes: 16 * MIB, workloads: ['churn'] });
  expect((await destination.tell({ do: 'verify' })).checkedBytes).toBeGreaterThan(16 * MIB);
  expect(report?.balloonPages).toBeGreaterThan(0);
  if (channel === 'none') expect(report?.freePages).toBe(0);
  else expect(report?.freePages).toBeGreaterThan(0);
  await expect
    .poll(async () => (await destination.tell({ do: 'status' })).vmstat.pagesAllocated, { timeout: 60_000 })
    .toBeGreaterThan(arrived.vmstat.pagesAllocated);
  // Its balloon is steered from there.
  await destination.control.change('vm', { targetBytes: 24 * MIB });
  await destination.tell({ do: 'settle' });
  await destination.tell({ do: 'verify' });
  expect(await source.ended).toBe(0);
});

test('several connections, and a machine that moves on', async () => {
  const { source, destination, to } = await pair(['--workload', 'build', '--rate', '64M']);
  expect((await move(source, { to, connections: 4, bandwidthBytesPerSecond: 2e8 })).error).toBeNull();
  const further = await MachineProcess.place();
  machines.push(further.machine);
  const { error } = await move(destination, { to: `tcp:${further.address}` });
  expect(error).toBeNull();
  expect((await further.machine.tell({ do: 'verify' })).checkedBytes).toBeGreaterThan(0);
  expect(await source.ended).toBe(0);
  expect(await destination.ended).toBe(0);
});

describe('a machine that is to be compressed on its way', () => {
  test.runIf(zstd !== undefined)('arrives, over several connections and in fewer bytes', async () => {
    // Not `--whole`: what fills a page to its end does not become shorter.
    const [source, { machine: destination, address }] = await Promise.all([
      MachineProcess.vm('--memory', '192M', '--workload', 'churn'),
      MachineProcess.place(),
    ]);
    machines.push(source, destination);
    await source.tell({ do: 'use', bytes: 16 * MIB });
    const { report, error } = await move(source, { to: `tcp:${address}`, connections: 3, compress: true });
    expect(error).toBeNull();
    const { bytes = 0, pages = 0 } = report ?? {};
    expect(pages * PAGE_SIZE).toBeGreaterThan(16 * MIB);
    expect(bytes).toBeLessThan((pages * PAGE_SIZE) / 2);
    expect((await destination.tell({ do: 'verify' })).checkedBytes).toBeGreaterThan(16 * MIB);
    expect(await source.ended).toBe(0);
  });

  // Where Node has its own, no host is without it.
  describe.skipIf(zstdOfNode() !== undefined)('stays, and is told what to install,', () => {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    beforeAll(() => {
      // A library that is none, and is found first.
      writeFileSync(join(directory, 'libzstd.so.1'), '');
    });
    afterEach(() => vi.unstubAllEnvs());
    afterAll(() => rmSync(directory, { recursive: true }));
    const withoutZstd = () => vi.stubEnv('LD_LIBRARY_PATH', directory);

    test('where its host has no zstd', async () => {
      withoutZstd();
      const { source, destination, to } = await pair([]);
      const { error } = await move(source, { to, compress: true });
      expect(error?.message).toMatch(/cannot be compressed here.*install libzstd/);
      expect(destination.over).toBe(false);
      await source.tell({ do: 'verify' });
      expect((await move(source, { to })).error).toBeNull();
      await destination.tell({ do: 'verify' });
    });

    test.runIf(zstd !== undefined)('where its destination has none', async () => {
      const source = await MachineProcess.vm('--memory', '64M');
      machines.push(source);
      withoutZstd();
      const { machine, address } = await MachineProcess.place();
      machines.push(machine);
      const { error } = await move(source, { to: `tcp:${address}`, compress: true });
      expect(error?.message).toMatch(/the destination cannot unpack.*there, install libzstd/);
      await source.tell({ do: 'verify' });
    });
  });
});

test('a machine that is called back goes on where it was', async () => {
  const { source, destination, to } = await pair(['--workload', 'churn']);
  await source.control.migrate('vm', { to, bandwidthBytesPerSecond: 1e6 });
  await source.control.cancelMigration('vm');
  await expect
    .poll(async () => (await source.control.migration('vm')).migration?.state.status, { timeout: 60_000 })
    .toBe('cancelled');
  expect(await destination.ended).toBe(1);
  expect(destination.complaint).toContain('called back');
  await source.tell({ do: 'verify' });
});

test('a machine that is too large, or that no place awaits, stays', async () => {
  const { source, to } = await pair(['--workload', 'churn'], '--memory-max', '64M');
  const refused = await move(source, { to });
  expect(refused.error?.message).toMatch(/takes 64 MiB at most/);
  const unheard = await move(source, { to: 'tcp:127.0.0.1:1' });
  expect(unheard.error?.message).toMatch(/no process listens.*aerostat receive/);
  await source.tell({ do: 'verify' });
  await expect(source.control.migrate('vm', { to, channel: 'chunks' })).rejects.toThrow(
    /no free page channel/,
  );
});

test('in post-copy the guest runs there while its memory comes, which both sides show, and cannot be called back or ended by one signal', async () => {
  const { source, destination, to } = await pair([]);
  await source.tell({ do: 'use', bytes: 96 * MIB });
  await source.control.migrate('vm', { to, postcopyAfterRound: 0, bandwidthBytesPerSecond: 2.5e7 });
  await destination.event('ready');
  const state = async () => (await source.control.migration('vm')).migration?.state;
  // The destination runs the guest before the source has heard of it.
  await expect.poll(async () => (await state())?.status, { timeout: 10_000 }).toBe('post-copy');
  expect((await state())?.postcopy).toMatchObject({ broken: null, recoveries: 0 });
  await expect(source.control.cancelMigration('vm')).rejects.toThrow(/handed over/);
  await expect(source.control.migrate('vm', { to, recover: true })).rejects.toThrow(/not in post-copy/);
  const there = await destination.control.migration('vm');
  expect(there.obstacle).toMatch(/on their way here/);
  expect(there.migration?.state.remainingBytes).toBeGreaterThan(0);
  await expect(destination.control.migrate('vm', { to })).rejects.toThrow(/on their way here/);
  // What has not come yet is with the source alone, which a signal does not end before.
  source.signal('SIGTERM');
  expect((await destination.tell({ do: 'verify' })).checkedBytes).toBeGreaterThanOrEqual(96 * MIB);
  expect(await source.ended).toBe(0);
  expect((await destination.control.migration('vm')).obstacle).toBeNull();
  await destination.control.change('vm', { targetBytes: 24 * MIB });
  await destination.tell({ do: 'settle' });
}, 60_000);
