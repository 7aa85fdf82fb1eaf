/**
 * Machines that are written into files and restored: the guest runs on here, and the one of the file is as the guest was
 * at the stop. The format of the file, and what of it is refused, are test/snapshot/file.test.ts's.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import type { MigrationStatus } from '../../src/control/migrations.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import type { VmControl } from '../../src/vm/vm-control.ts';
import { start } from '../cli/terminal.ts';
import { IncomingVm, OpenSnapshot, restoreSnapshot, vmControl } from './built.ts';
import { clock } from './journey.ts';
import { BALLOON, busyVm, closeAll, expectAlive, expectNothingHeld, MIB, open } from './machines.ts';
import { MachineProcess } from './processes.ts';

const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
const processes: MachineProcess[] = [];

afterEach(async () => {
  await Promise.all(processes.splice(0).map(machine => machine.close()));
  await closeAll();
  for (const name of readdirSync(directory)) rmSync(join(directory, name));
});

afterAll(() => rmSync(directory, { recursive: true }));

async function over(control: Pick<VmControl, 'migration'>): Promise<MigrationStatus> {
  let status: MigrationStatus | null = null;
  const isOver = async () => {
    status = (await control.migration('vm')).migration;
    return status?.report != null || status?.error != null;
  };
  await expect.poll(isOver, { timeout: 60_000, interval: 10 }).toBe(true);
  return status as unknown as MigrationStatus;
}

async function snapshotOf(control: VmControl, file: string) {
  await control.migrate('vm', { to: `file:${file}` });
  const { error, report } = await over(control);
  expect(error).toBeNull();
  if (report === null) throw new Error('no report');
  return report;
}

async function restored(file: string) {
  const snapshot = await OpenSnapshot.open(file);
  const place = open(await IncomingVm.open({ name: snapshot.header.name }));
  await restoreSnapshot(snapshot.header, snapshot, {
    path: file,
    machine: place,
    ramOf: () => place.ram,
    memoryBytesMax: 128 * MIB,
    clock,
  });
  await snapshot.close();
  return place.vm;
}

describe('a machine that is written while its guest works, with a balloon and with hints,', () => {
  test('runs on here and runs from the file, each with all that it wrote', async () => {
    const vm = await busyVm();
    const control = vmControl(vm, { writesFiles: true });
    const file = join(directory, 'vm.aero');
    const report = await snapshotOf(control, file);
    expect(report.freePages).toBeGreaterThan((16 * MIB) / PAGE_SIZE);
    expect(report.balloonPages).toBe(BALLOON / PAGE_SIZE);
    expect(report.downtimeMs).toBeLessThan(report.totalMs);
    // What is free, ballooned or untouched is not in it.
    expect(statSync(file).size).toBeLessThan(report.pages * (PAGE_SIZE + 64) + 8 * MIB);
    expect(statSync(file).size).toBeLessThan(96 * MIB);
    await expectAlive(vm);
    await expectNothingHeld(vm);
    const twin = await restored(file);
    await expectAlive(twin);
    await expectNothingHeld(twin);
  });

  test('also over packed rings, and where its ABI answers requests', async () => {
    const vm = await busyVm({ profile: 'page-bitmap', rings: 'packed' });
    const file = join(directory, 'vm.aero');
    await snapshotOf(vmControl(vm, { writesFiles: true }), file);
    await expectAlive(await restored(file));
  });
});

const parts = () => readdirSync(directory).filter(name => name.endsWith('.part'));
const bytesOfParts = () => parts().reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);

describe('a machine as a process', () => {
  test('is written by a command, called off by Ctrl-C, killed in the middle, and restored', async () => {
    const machine = await MachineProcess.vm(
      '--memory',
      '64M',
      '--whole',
      '--target',
      '8M',
      '--workload',
      'churn',
    );
    processes.push(machine);
    await machine.tell({ do: 'use', bytes: 8 * MIB });
    const api = ['--api', join(machine.directory, 'api.sock')];
    const file = join(directory, 'vm.aero');
    const first = start(['snapshot', 'vm', file, ...api, '--json']);
    expect(await first.ended, first.stderr.text).toBe(0);
    const { summary } = JSON.parse(first.stdout.text);
    expect(summary.balloonPages).toBe((8 * MIB) / PAGE_SIZE);
    const before = readFileSync(file);

    // Slow enough to be in the middle of it.
    const second = start(['snapshot', 'vm', file, ...api, '--bandwidth', '1M']);
    await expect.poll(bytesOfParts, { timeout: 60_000 }).toBeGreaterThan(0);
    second.interrupt();
    expect(await second.ended).toBe(130);
    await expect.poll(parts, { timeout: 60_000 }).toEqual([]);
    expect((await over(machine.control as VmControl)).error?.code).toBe('AEROSTAT_SNAPSHOT_CANCELLED');
    expect((await machine.tell({ do: 'verify' })).checkedBytes).toBeGreaterThan(8 * MIB);

    // A file that is none of ours is not replaced.
    const notes = join(directory, 'notes.txt');
    writeFileSync(notes, 'dear diary');
    const wrong = start(['snapshot', notes, ...api]);
    expect(await wrong.ended).toBe(1);
    expect(wrong.stderr.text).toMatch(/the guest runs on: .*notes.txt is there, and is no snapshot/);

    start(['snapshot', file, ...api, '--bandwidth', '1M']).ended.catch(() => {});
    await expect.poll(bytesOfParts, { timeout: 60_000 }).toBeGreaterThan(0);
    machine.signal('SIGKILL');
    await machine.ended;
    // Under its name is what was there before.
    expect(readFileSync(file).equals(before)).toBe(true);

    const twin = await MachineProcess.restored(file);
    processes.push(twin);
    expect(await twin.tell({ do: 'status' })).toMatchObject({
      driver: 'running',
      targetBytes: 8 * MIB,
      actualBytes: 8 * MIB,
      workloads: ['churn'],
    });
    expect((await twin.tell({ do: 'verify' })).checkedBytes).toBeGreaterThan(8 * MIB);

    // What was left by the machine that was killed goes with the next snapshot of that name, and a signal that can be
    // heard leaves nothing beside the file.
    const left = parts();
    expect(left).toHaveLength(1);
    await twin.control.migrate('vm', { to: `file:${file}`, bandwidthBytesPerSecond: 1e5 });
    const next = () =>
      parts().filter(name => !left.includes(name) && statSync(join(directory, name)).size > 0);
    await expect.poll(next, { timeout: 60_000 }).toHaveLength(1);
    expect(parts()).toEqual(next());
    twin.signal('SIGTERM');
    await twin.ended;
    expect(parts()).toEqual([]);
    expect(readFileSync(file).equals(before)).toBe(true);
  });
});
