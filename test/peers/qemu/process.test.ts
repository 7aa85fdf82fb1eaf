import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { processesOfGroup } from '../../../src/peers/process-group.ts';
import { QemuProcessError, QmpConnectionError } from '../../../src/peers/qemu/errors.ts';
import { QemuProcess } from '../../../src/peers/qemu/process.ts';
import { connectQmp } from '../../../src/peers/qemu/qmp.ts';
import * as commands from '../../../src/peers/qemu/qmp-commands.ts';
import { openDescriptorCount } from '../../../src/sys/fd.ts';
import { cleanUp, describeWithQemu } from './peer.ts';

const MIB = 2 ** 20;

describeWithQemu('a QEMU process', () => {
  const finally_ = cleanUp();

  async function start(...args: string[]): Promise<QemuProcess> {
    const qemu = await QemuProcess.start({ machine: 'q35', memoryBytes: 64 * MIB, args: ['-S', ...args] });
    finally_(() => qemu.kill());
    return qemu;
  }

  it('answers on its monitor', async () => {
    const { qmp } = await start();
    expect(await commands.queryStatus(qmp)).toEqual({ status: 'prelaunch', running: false });
    expect(await commands.queryMemorySize(qmp)).toBe(64 * MIB);
    expect(await commands.queryMigration(qmp)).toEqual({});
    await expect(qmp.execute('make-coffee')).rejects.toMatchObject({ errorClass: 'CommandNotFound' });
  });

  it('finds the balloon device, with and without a name', async () => {
    const named = await start('-device', 'virtio-balloon-pci,id=air');
    expect(await commands.findBalloon(named.qmp)).toBe('/machine/peripheral/air');
    const nameless = await start('-device', 'virtio-balloon-pci');
    expect(await commands.findBalloon(nameless.qmp)).toMatch(/^\/machine\/peripheral-anon\/device\[\d+\]$/);
    const without = await start();
    expect(await commands.findBalloon(without.qmp)).toBeUndefined();
    expect(await commands.queryBalloon(without.qmp)).toBeNull();
  });

  it('sets the interval of statistics, and reads none from a guest that has no driver', async () => {
    const { qmp } = await start('-device', 'virtio-balloon-pci,id=air');
    const path = '/machine/peripheral/air';
    await commands.setGuestStatsInterval(qmp, path, 3);
    expect(await commands.guestStatsInterval(qmp, path)).toBe(3);
    expect(await commands.queryGuestStats(qmp, path)).toEqual({ values: new Map(), updatedMs: null });
    expect(await commands.queryVirtioStatus(qmp, path)).toEqual({
      features: [],
      driverReady: false,
      broken: false,
    });
  });

  it('tells its events', async () => {
    const { qmp } = await start();
    const seen: string[] = [];
    qmp.onEvent(({ name }) => seen.push(name));
    await qmp.execute('cont');
    await qmp.execute('stop');
    await commands.queryStatus(qmp);
    expect(seen).toEqual(['RESUME', 'STOP']);
  });

  it('lets a second client of its monitor wait', async () => {
    const qemu = await start();
    const first = await connectQmp(qemu.qmpPath);
    finally_(() => first.close());
    const second = connectQmp(qemu.qmpPath, { greetingTimeoutMs: 100 });
    await expect(second).rejects.toThrow(/is another program connected/);
  });

  it('ends when it is asked to, and leaves nothing behind', async () => {
    const descriptors = openDescriptorCount();
    const qemu = await QemuProcess.start({
      machine: 'q35',
      memoryBytes: 64 * MIB,
      sharedMemory: true,
      args: [],
    });
    writeFileSync(join(qemu.directory, 'something'), '');
    await qemu.quit();
    expect(await qemu.exited).toEqual({ code: 0, signal: null });
    expect(existsSync(qemu.directory)).toBe(false);
    expect(processesOfGroup(qemu.pid)).toEqual([]);
    expect(openDescriptorCount()).toBe(descriptors);
    await qemu.quit();
    await qemu.kill();
  });

  it('fails every command that is under way when it is killed', async () => {
    const qemu = await start();
    const many = Promise.allSettled(Array.from({ length: 2000 }, () => commands.queryStatus(qemu.qmp)));
    await qemu.kill();
    const failures = (await many).filter(result => result.status === 'rejected');
    expect(failures.length).toBeGreaterThan(0);
    for (const { reason } of failures) expect(reason).toBeInstanceOf(QmpConnectionError);
    expect(existsSync(qemu.directory)).toBe(false);
    await expect(connectQmp(qemu.qmpPath)).rejects.toBeInstanceOf(QmpConnectionError);
  });

  it("says in QEMU's own words why it did not start", async () => {
    const attempt = start('-device', 'virtio-balloon-pci,colour=red');
    await expect(attempt).rejects.toBeInstanceOf(QemuProcessError);
    await expect(attempt).rejects.toThrow(/colour/);
  });
});
