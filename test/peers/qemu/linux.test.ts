import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { EXIT } from '../../../src/cli/usage.ts';
import type { GuestEvent } from '../../../src/control/contract.ts';
import { GuestStateError } from '../../../src/control/errors.ts';
import { GuestBootError, GuestEndedError } from '../../../src/peers/linux/errors.ts';
import { processesOfGroup } from '../../../src/peers/process-group.ts';
import { missingPrograms } from '../../../src/peers/programs.ts';
import { QemuMigrationError, QmpConnectionError } from '../../../src/peers/qemu/errors.ts';
import * as commands from '../../../src/peers/qemu/qmp-commands.ts';
import { QemuControl } from '../../../src/qemu/qemu-control.ts';
import { openDescriptorCount } from '../../../src/sys/fd.ts';
import { run } from '../../cli/terminal.ts';
import { describePeer } from '../../support/peers.ts';
import { checksummedFiles, verifyFiles } from '../linux/checked-workloads.ts';
import { missingCloudKernel } from './cloud-kernel.ts';
import { missingQemu } from './installed.ts';
import { cleanUp, until } from './peer.ts';
import { QemuGuest, type QemuLinuxOptions } from './qemu-guest.ts';

const MIB = 2 ** 20;
const SMALL = { memoryBytes: 256 * MIB };

// Every test boots a machine, and TCG shares the host's processors with whatever else runs.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const missing = await missingCloudKernel(missingQemu() ?? missingPrograms('busybox'));

describePeer('a Linux guest of QEMU', missing, () => {
  const finally_ = cleanUp();

  async function boot(options: Partial<QemuLinuxOptions> = {}): Promise<QemuGuest> {
    const guest = await QemuGuest.boot({ ...SMALL, ...options });
    finally_(() => guest.kill());
    return guest;
  }

  describe('that runs', () => {
    let guest: QemuGuest;
    let control: QemuControl;

    beforeAll(async () => {
      guest = await QemuGuest.boot(SMALL);
      control = new QemuControl([{ name: 'vm', qmpPath: guest.qemu.qmpPath }]);
    });
    afterAll(async () => {
      control.close();
      await guest.shutdown();
    });

    it('takes commands, however long they and their output are', async () => {
      expect((await guest.check('uname -r')).trim()).toBe(guest.kernelVersion);
      expect(await guest.run('echo out; echo err >&2; exit 3')).toMatchObject({
        exitCode: 3,
        output: 'out\nerr\n',
      });
      const numbers = Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join('');
      expect(await guest.check('seq 20000')).toBe(numbers);
      const slow = Array.from({ length: 20 }, (_, index) =>
        guest.check(`sleep 0.0${index % 10}; echo ${index}`),
      );
      expect(await Promise.all(slow)).toEqual(slow.map((_, index) => `${index}\n`));
    });

    it('gives memory to its balloon and takes it back, and QEMU tells of both', async () => {
      const told: number[] = [];
      const leave = commands.onQemuEvent(guest.qmp, 'BALLOON_CHANGE', ({ actual }) => told.push(actual));
      const before = await guest.meminfo();
      const left = guest.memoryBytes - 100 * MIB;
      await commands.setBalloon(guest.qmp, left);
      await until(async () => (await commands.queryBalloon(guest.qmp)) === left);
      const less = before.MemTotal - (await guest.meminfo()).MemTotal;
      expect(less).toBe(100 * MIB);
      await commands.setBalloon(guest.qmp, guest.memoryBytes);
      await until(async () => (await commands.queryBalloon(guest.qmp)) === guest.memoryBytes);
      await until(() => told.includes(guest.memoryBytes));
      leave();
      expect((await guest.meminfo()).MemTotal).toBe(before.MemTotal);
    });

    it('is under the same control as a guest of ours', async () => {
      const events: GuestEvent[] = [];
      const leave = control.subscribe(event => events.push(event));
      expect(await control.guest('vm')).toMatchObject({
        connected: true,
        profile: 'virtio',
        memoryBytes: guest.memoryBytes,
        actualBytes: 0,
      });
      expect((await control.guest('vm')).features).toContain('stats-vq');
      await control.change('vm', { targetBytes: 64 * MIB });
      await until(async () => (await control.guest('vm')).actualBytes === 64 * MIB);
      await until(() => events.some(({ type }) => type === 'target-reached'));
      await control.change('vm', { targetBytes: 0 });
      await until(async () => (await control.guest('vm')).actualBytes === 0);
      leave();
    });

    it('tells its statistics, fresh ones when they are asked for', async () => {
      const asked = performance.now();
      const { statistics, ageMs } = await control.statistics('vm', { freshMs: 2000, timeoutMs: 30_000 });
      // Of the guest's clock QEMU tells whole seconds.
      expect(ageMs).toBeLessThan(2000 + performance.now() - asked + 1000);
      const { MemTotal } = await guest.meminfo();
      expect(statistics.totalBytes).toBe(MemTotal);
      expect(statistics.freeBytes).toBeGreaterThan(0);
      expect(statistics.oomKills).toBeNull();
      expect(await commands.guestStatsInterval(guest.qmp, '/machine/peripheral/balloon')).toBe(0);
    });

    it('gives no statistics while it is stopped', async () => {
      await guest.qmp.execute('stop');
      const attempt = control.statistics('vm', { freshMs: 0, timeoutMs: 100 });
      await expect(attempt).rejects.toBeInstanceOf(GuestStateError);
      await guest.qmp.execute('cont');
    });

    it('is looked after with the same commands as a guest of ours', async () => {
      const aerostat = async (words: string) => {
        const { code, out, err } = await run([...words.split(' '), '--json', '--qmp', guest.qemu.qmpPath]);
        expect([code, err]).toEqual([EXIT.ok, '']);
        return JSON.parse(out);
      };
      // A monitor takes one client at a time.
      control.close();
      const { guests } = await aerostat('status');
      expect(guests[0]).toMatchObject({ connected: true, memoryBytes: guest.memoryBytes, actualBytes: 0 });
      const { guest: smaller, reached } = await aerostat('set --balloon 64M --wait');
      expect(reached).toBe(true);
      expect(smaller).toMatchObject({
        targetBytes: 64 * MIB,
        actualBytes: 64 * MIB,
        residentBytes: expect.any(Number),
      });
      const { statistics } = await aerostat('stats --fresh --timeout 30s');
      expect(statistics.totalBytes).toBe((await guest.meminfo()).MemTotal);
      await aerostat('set --balloon 0 --wait');
    });
  });

  describe('that moves', () => {
    // One machine goes all the way: it is called back, moves, moves again, and is lost.
    let guest: QemuGuest;
    beforeAll(async () => {
      guest = await QemuGuest.boot(SMALL);
    });
    afterAll(() => guest.kill());

    it('stays where it is when no host takes it, and when it is called back', async () => {
      const { qemu } = guest;
      const giveUp = new AbortController();
      const slow = { bandwidthBytesPerSecond: MIB, signal: giveUp.signal };
      const attempt = guest.migrate({
        ...slow,
        onProgress: ({ status }) => status === 'active' && giveUp.abort(),
      });
      await expect(attempt).rejects.toBeInstanceOf(QemuMigrationError);
      expect(guest.qemu).toBe(qemu);
      expect(await guest.check('echo alive')).toBe('alive\n');
    });

    it('arrives with its memory, its commands and its balloon', async () => {
      await checksummedFiles(guest, 32 * MIB);
      const left = guest.memoryBytes - 64 * MIB;
      await commands.setBalloon(guest.qmp, left);
      await until(async () => (await commands.queryBalloon(guest.qmp)) === left);
      const source = guest.qemu;
      const under = guest.check('sleep 2; echo here');
      const progress: string[] = [];
      const summary = await guest.migrate({ onProgress: ({ status }) => progress.push(status) });
      expect(guest.qemu).not.toBe(source);
      expect(source.ended).toBe(true);
      expect(await under).toBe('here\n');
      await verifyFiles(guest);
      expect(await commands.queryBalloon(guest.qmp)).toBe(left);
      expect(progress.at(-1)).toBe('completed');
      expect(summary.transferredBytes).toBeGreaterThan(32 * MIB);
      expect(summary.transferredBytes).toBeLessThan(guest.memoryBytes);
      expect(summary.rounds).toBeGreaterThan(1);
    });

    it('moves again, over several connections', async () => {
      await guest.migrate({ connections: 2 });
      const summary = await guest.migrate({ connections: 3 });
      expect(summary.sentPages).toBeGreaterThan(0);
      expect(await guest.check('echo alive')).toBe('alive\n');
    });

    it('fails with words when its QEMU is killed on the way', async () => {
      const attempt = guest.migrate({
        bandwidthBytesPerSecond: MIB,
        onProgress: ({ status }) => status === 'active' && void guest.kill(),
      });
      await expect(attempt).rejects.toBeInstanceOf(QmpConnectionError);
      await expect(guest.run('true')).rejects.toBeInstanceOf(GuestEndedError);
    });

    it('transfers less when its balloon hints what is free', async () => {
      const moved: number[] = [];
      for (const freePageHints of [false, true]) {
        const guest = await boot({ freePageHints });
        await guest.check('dd if=/dev/urandom of=/mem/used bs=1M count=96 && rm /mem/used');
        await checksummedFiles(guest, 16 * MIB);
        // On a busy host an emulated processor hints later than an unbounded QEMU sends.
        const { transferredBytes } = await guest.migrate({ bandwidthBytesPerSecond: 48 * MIB });
        moved.push(transferredBytes);
        await verifyFiles(guest);
        await guest.kill();
      }
      // Free blocks below the size that Linux hints are sent all the same.
      expect(moved[1]).toBeLessThan(moved[0] - 64 * MIB);
    });
  });

  it('leaves nothing behind when it is shut down', async () => {
    const descriptors = openDescriptorCount();
    const guest = await boot({ sharedMemory: true });
    const { qemu } = guest;
    await guest.shutdown();
    expect(await qemu.exited).toEqual({ code: 0, signal: null });
    expect(existsSync(qemu.directory)).toBe(false);
    expect(processesOfGroup(qemu.pid)).toEqual([]);
    expect(openDescriptorCount()).toBe(descriptors);
  });

  it('tells of its kernel’s panic', async () => {
    const guest = await boot();
    const attempt = guest.run('echo c >/proc/sysrq-trigger; sleep 60');
    await expect(attempt).rejects.toThrow(/the guest panicked: Kernel panic/);
  });

  it('says why it did not boot', async () => {
    await expect(boot({ memoryBytes: 100 * MIB })).rejects.toBeInstanceOf(GuestBootError);
    await expect(boot({ kernelArguments: ['rdinit=/nowhere'] })).rejects.toThrow(
      /did not boot: its kernel panicked/,
    );
  });
});
