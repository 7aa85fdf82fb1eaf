/**
 * What an operator does to a QEMU while its guest has a balloon of ours: resets and reboots it, stops it and lets it go
 * on, plugs its balloon and its memory in and out; and the device properties that QEMU takes. One guest serves all of it,
 * and so each test begins with an empty balloon.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { DaemonProcess } from '../../support/daemon.ts';
import { describePeer } from '../../support/peers.ts';
import { checksummedFiles, verifyFiles } from '../linux/checked-workloads.ts';
import type { GenericDeviceOptions, VhostUserGuest } from '../qemu/vhost-user-guest.ts';
import { bootGenericDevice, missingForGenericDevice } from './front-ends.ts';

// An emulated processor on a busy machine boots for a minute and longer.
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 });

const MIB = 2 ** 20;
const KERNEL = 'linux-6.12';
const GUEST_BYTES = 384 * MIB;
const PLUGGED_BYTES = 128 * MIB;
/** As much as this guest gives away without being in need. */
const FULL_BYTES = 160 * MIB;
const PROGRAM = fileURLToPath(new URL('../../../bin/aerostat', import.meta.url));

describePeer(
  'a QEMU that is handled while its guest has a balloon of ours',
  missingForGenericDevice(KERNEL),
  () => {
    let daemon: DaemonProcess;
    let guest: VhostUserGuest;

    beforeAll(async () => {
      daemon = await DaemonProcess.start(['g']);
      guest = await bootGenericDevice(KERNEL, {
        memoryBytes: GUEST_BYTES,
        pluggableBytes: PLUGGED_BYTES,
        socket: daemon.socketOf('g'),
        // So that the guest can let go of what is plugged in.
        kernelArguments: ['memhp_default_state=online_movable'],
      });
    });

    afterAll(async () => {
      await guest?.shutdown();
      await daemon?.stop();
    });

    beforeEach(async () => {
      await daemon.reach('g', 0);
    });

    /** The device has `bytes` in its account, the guest says so too, and nothing made no sense on the way. */
    async function holds(bytes: number): Promise<void> {
      const status = await daemon.untilGuest(
        'g',
        ({ actualBytes, pendingBytes }) => actualBytes === bytes && pendingBytes === 0,
      );
      expect(status.balloonedBytes).toBe(bytes);
      expect(status.counters.badBuffers + status.counters.badPages).toBe(0);
      expect(status.lastError).toBeNull();
    }

    test.each([
      ['is reset (system_reset)', () => guest.reset()],
      ['reboots', () => guest.reboot()],
    ] as const)(
      'that %s with a full balloon boots on memory that was punched, and fills it again',
      async (_, restart) => {
        await daemon.reach('g', FULL_BYTES);
        const { resets } = (await daemon.control.guest('g')).counters;
        await restart();
        await holds(FULL_BYTES);
        expect((await daemon.control.guest('g')).counters.resets).toBeGreaterThan(resets);
        await checksummedFiles(guest, 16 * MIB);
        await daemon.reach('g', 0);
        await verifyFiles(guest);
      },
    );

    test('that is stopped while `set --wait` waits, and goes on, comes to its target', async () => {
      const set = spawn(
        process.execPath,
        [
          ...[PROGRAM, 'set', 'g', '--balloon', `${FULL_BYTES}`, '--wait', '--timeout', '60s'],
          ...['--api', `${daemon.directory}/api.sock`],
        ],
        { stdio: ['ignore', 'pipe', 'pipe'] },
      );
      const output: string[] = [];
      for (const stream of [set.stdout, set.stderr]) stream.on('data', text => output.push(String(text)));
      const ended = once(set, 'close');
      await daemon.untilGuest('g', ({ balloonedBytes }) => (balloonedBytes ?? 0) > 0);
      await guest.qmp.execute('stop');
      // Its rings have stopped when QEMU has answered: what the account says now stays until it goes on.
      const stopped = await daemon.untilGuest('g', ({ pendingBytes }) => pendingBytes === 0);
      await daemon.control.guests();
      expect((await daemon.control.guest('g')).balloonedBytes).toBe(stopped.balloonedBytes);
      expect(set.exitCode).toBeNull();
      await guest.qmp.execute('cont');
      const [code] = await ended;
      expect({ code, output: output.join('') }).toMatchObject({ code: 0 });
      await holds(FULL_BYTES);
    });

    test('whose process stands still (SIGSTOP) holds up no other guest, and goes on where it was', async () => {
      await daemon.reach('g', FULL_BYTES / 2);
      process.kill(guest.pid, 'SIGSTOP');
      try {
        const { targetBytes } = await daemon.control.change('g', { targetBytes: FULL_BYTES, force: true });
        expect(targetBytes).toBe(FULL_BYTES);
        // The guest's driver cannot answer; the daemon says so in its time.
        await expect(daemon.control.statistics('g', { freshMs: 0, timeoutMs: 500 })).rejects.toThrow();
        expect((await daemon.control.guest('g')).balloonedBytes).toBe(FULL_BYTES / 2);
      } finally {
        process.kill(guest.pid, 'SIGCONT');
      }
      await holds(FULL_BYTES);
    });

    test('whose balloon is unplugged and plugged in again on the same character device has it back', async () => {
      await daemon.reach('g', FULL_BYTES);
      await checksummedFiles(guest, 16 * MIB);
      await guest.unplugBalloon();
      // The driver took everything back before it let go.
      expect((await daemon.control.guest('g')).balloonedBytes).toBe(0);
      expect(await guest.balloonDevices()).toBe(0);
      await guest.plugBalloon();
      await guest.untilBalloons(1);
      await holds(FULL_BYTES);
      await verifyFiles(guest);
    });

    test('gives away memory that was plugged in (pc-dimm), and has it taken out again', async () => {
      const before = await guest.meminfo();
      await guest.plugMemory('dimm', PLUGGED_BYTES);
      await daemon.until(
        async () => (await guest.meminfo()).MemTotal - before.MemTotal >= PLUGGED_BYTES * 0.9,
        async () => `the guest does not see it: ${JSON.stringify(await guest.meminfo())}`,
      );
      expect((await daemon.control.guest('g')).memoryBytes).toBe(GUEST_BYTES + PLUGGED_BYTES);
      // More than the guest had free before, so that some of it is of the memory that was plugged in.
      const target = Math.floor((before.MemFree + PLUGGED_BYTES / 2) / MIB) * MIB;
      await daemon.reach('g', target);
      await holds(target);
      await daemon.reach('g', 0);
      await guest.unplugMemory('dimm');
      await daemon.untilGuest('g', ({ memoryBytes }) => memoryBytes === GUEST_BYTES);
      await daemon.reach('g', FULL_BYTES);
      await holds(FULL_BYTES);
    });

    describe('takes what QEMU takes of its device:', () => {
      const plugged: readonly (readonly [string, GenericDeviceOptions])[] = [
        // Linux's driver refuses to report free pages on less.
        ['the smallest ring that reporting works with', { vqSize: 32 }],
        [
          'the largest ring, and all of the configuration that the protocol allows',
          { vqSize: 1024, configSize: 256 },
        ],
      ];
      test.each(plugged)('%s', async (_, options) => {
        await guest.unplugBalloon();
        await guest.plugBalloon(options);
        await guest.untilBalloons(1);
        await daemon.reach('g', FULL_BYTES / 4);
        await holds(FULL_BYTES / 4);
        const { ageMs } = await daemon.control.statistics('g', { freshMs: 0, timeoutMs: 30_000 });
        expect(ageMs).not.toBeNull();
        await daemon.control.hint('g', { action: 'start' });
        await daemon.untilGuest('g', ({ hint }) => hint.state === 'stopped');
        await daemon.control.hint('g', { action: 'done' });
      });

      // The last one, for the daemon goes on saying it.
      test('and a configuration that is too small, of which the daemon says what to mend', async () => {
        await guest.unplugBalloon();
        await guest.plugBalloon({ configSize: 8 });
        await guest.untilBalloons(1);
        await daemon.reach('g', FULL_BYTES / 4);
        await daemon.untilGuest('g', ({ lastError }) => lastError?.includes('config_size=16') === true);
      });
    });
  },
);
