/**
 * A real Linux guest whose daemon is killed with -9 while it gives memory, takes it back, uses it and checks it, under front-ends
 * that connect once. How often is AEROSTAT_KILLS; without it, User Mode Linux alone has a few.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { Random } from '../../../src/guest/random.ts';
import type { LinuxGuest } from '../../../src/peers/linux/guest.ts';
import { freeMemory, useMemory } from '../../../src/peers/linux/workloads.ts';
import { KeptDaemon } from '../../support/kept-daemon.ts';
import { describeLinux, describePeer } from '../../support/peers.ts';
import { checksummedFiles, verifyFiles } from '../linux/checked-workloads.ts';
import { type FrontEnd, genericDevice, userModeLinux } from './front-ends.ts';

const MIB = 2 ** 20;
const SEED = Number(process.env.AEROSTAT_SEED ?? 1);
const ASKED = process.env.AEROSTAT_KILLS;
/** Of each guest. */
const KILLS = Number(ASKED ?? 2);
/** Of random content, under checksums. */
const KEPT_BYTES = 16 * MIB;
/** Checksums are looked at after so many. */
const CHECK_EVERY = 25;

/** Targets come and go, and so does memory that the guest uses, until it is told to stop. */
async function live(
  kept: KeptDaemon,
  guest: LinuxGuest,
  random: Random,
  goesOn: () => boolean,
): Promise<void> {
  while (goesOn()) {
    const targetBytes = random.below(24) * 8 * MIB;
    // The daemon may be gone just now.
    await kept.daemon.control.change('g', { targetBytes, force: true }).catch(() => {});
    if (random.chance(0.3)) {
      await useMemory(guest, 16 * MIB);
      await freeMemory(guest);
    } else {
      await delay(random.below(100));
    }
  }
}

async function survives(frontEnd: FrontEnd, words: readonly string[]): Promise<void> {
  const random = new Random(SEED);
  const kept = await KeptDaemon.start(['g'], words);
  const guest = await frontEnd.boot(kept.daemon.socketOf('g'));
  try {
    const booted = (await guest.kernelLog()).length;
    await checksummedFiles(guest, KEPT_BYTES);
    for (let kills = 0; kills < KILLS; ) {
      let running = true;
      const life = live(kept, guest, new Random(random.below(2 ** 31)), () => running);
      life.catch(() => {});
      const round = Math.min(KILLS, kills + CHECK_EVERY);
      for (; kills < round; kills++) {
        await delay(random.below(250));
        await kept.restart('SIGKILL');
      }
      running = false;
      await life;
      await verifyFiles(guest);
    }
    const { daemon } = kept;
    for (const target of [160 * MIB, 0]) {
      const { balloonedBytes } = await daemon.reach('g', target);
      expect(balloonedBytes).toBe(target);
    }
    await verifyFiles(guest);
    const log = (await guest.kernelLog()).slice(booted);
    expect(log).not.toMatch(/BUG|Oops|segfault|Bad page|virtio.*(error|broken)/);
    if (ASKED !== undefined) {
      console.info(
        `${frontEnd.title}: ${KILLS} kills, no daemon for ${Math.round(kept.downMsMax)} ms at most`,
      );
    }
  } finally {
    await guest.shutdown();
    await kept.end();
  }
}

const PATIENCE_MS = 3_600_000;

describeLinux('a daemon that is killed under a Linux guest: User Mode Linux', kernel => {
  test(
    'goes on with packed rings (failed before: they were not offered)',
    () => survives(userModeLinux(kernel), []),
    PATIENCE_MS,
  );

  // Every run has them under guests that are moved by hand (test/daemon/restart.test.ts).
  test.skipIf(ASKED === undefined)(
    'goes on with split rings',
    () => survives(userModeLinux(kernel), ['--without', 'ring-packed']),
    PATIENCE_MS,
  );
});

describe.skipIf(ASKED === undefined)('under emulation, since AEROSTAT_KILLS is set', () => {
  for (const rings of ['split', 'packed'] as const) {
    const frontEnd = genericDevice('linux-7.3', rings);
    describePeer(`a daemon that is killed under a Linux guest: ${frontEnd.title}`, frontEnd.missing, () => {
      const without = frontEnd.without.length > 0 ? ['--without', frontEnd.without.join(',')] : [];
      test('goes on', () => survives(frontEnd, without), PATIENCE_MS);
    });
  }
});
