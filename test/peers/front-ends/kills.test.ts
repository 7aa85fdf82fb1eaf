/**
 * A real Linux guest whose daemon is killed with -9, under front-ends that connect once: its kernel's own driver gives memory,
 * takes it back, hints and reports. How often is AEROSTAT_KILLS; without it, User Mode Linux alone has a few.
 */
import { describe, test } from 'vitest';
import { KeptDaemon } from '../../support/kept-daemon.ts';
import { describeLinux, describePeer } from '../../support/peers.ts';
import { type FrontEnd, genericDevice, userModeLinux } from './front-ends.ts';
import { KILLS_ASKED, survivesKills } from './killed-daemon.ts';

/** Of each guest: once while it hints, once while it reports, and once at any moment. */
const KILLS = Number(KILLS_ASKED ?? 3);
const PATIENCE_MS = 7_200_000;

async function survives(frontEnd: FrontEnd, words: readonly string[]): Promise<void> {
  const kept = await KeptDaemon.start(['g'], words);
  const guest = await frontEnd.boot(kept.daemon.socketOf('g'));
  try {
    const devices = [{ name: 'g', profile: 'virtio', reports: true }] as const;
    await survivesKills(frontEnd.title, { kept, guest, devices }, KILLS);
  } finally {
    await guest.shutdown();
    await kept.end();
  }
}

describeLinux('a daemon that is killed under a Linux guest: User Mode Linux', kernel => {
  test(
    'goes on with packed rings (failed before: they were not offered)',
    () => survives(userModeLinux(kernel), []),
    PATIENCE_MS,
  );

  // Every run has them under guests that are moved by hand (test/daemon/restart.test.ts).
  test.skipIf(KILLS_ASKED === undefined)(
    'goes on with split rings',
    () => survives(userModeLinux(kernel), ['--without', 'ring-packed']),
    PATIENCE_MS,
  );
});

describe.skipIf(KILLS_ASKED === undefined)('under emulation, since AEROSTAT_KILLS is set', () => {
  for (const rings of ['split', 'packed'] as const) {
    const frontEnd = genericDevice('linux-7.3', rings);
    describePeer(`a daemon that is killed under a Linux guest: ${frontEnd.title}`, frontEnd.missing, () => {
      const without = frontEnd.without.length > 0 ? ['--without', frontEnd.without.join(',')] : [];
      test('goes on', () => survives(frontEnd, without), PATIENCE_MS);
    });
  }
});
