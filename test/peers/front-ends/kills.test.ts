/**
 * A real Linux guest whose daemon is killed with -9, or upgraded, under front-ends that connect once: its kernel's own driver
 * gives memory, takes it back, hints and reports. How often is AEROSTAT_KILLS and AEROSTAT_UPGRADES; without them, either
 * front-end has a few, one on packed and one on split rings.
 */
import { describe, test } from 'vitest';
import { KeptDaemon } from '../../support/kept-daemon.ts';
import { describeLinux, describePeer } from '../../support/peers.ts';
import { type FrontEnd, genericDevice, userModeLinux } from './front-ends.ts';
import { ENDS_ASKED, survivesEnds, workingLinux } from './killed-daemon.ts';

/** Of each guest and either way: once while it hints, once while it reports, and once at any moment. */
const ENDS = ENDS_ASKED ?? { kills: 3, upgrades: 3 };
const PATIENCE_MS = 7_200_000;

async function survives(frontEnd: FrontEnd, words: readonly string[]): Promise<void> {
  const kept = await KeptDaemon.start(['g'], words);
  const guest = await frontEnd.boot(kept.daemon.socketOf('g'));
  try {
    const devices = [{ name: 'g', profile: 'virtio', reports: true }] as const;
    const rings = words.length === 0 ? 'packed' : 'split';
    const title = `${frontEnd.title} (${rings})`;
    await survivesEnds(title, { kept, guest: await workingLinux(guest), devices }, ENDS);
  } finally {
    await guest.shutdown();
    await kept.end();
  }
}

describeLinux('a daemon that is killed and upgraded under a Linux guest: User Mode Linux', kernel => {
  test(
    'goes on with packed rings (failed before: they were not offered)',
    () => survives(userModeLinux(kernel), []),
    PATIENCE_MS,
  );

  // Every run has them under QEMU's generic device.
  test.skipIf(ENDS_ASKED === undefined)(
    'goes on with split rings',
    () => survives(userModeLinux(kernel), ['--without', 'ring-packed']),
    PATIENCE_MS,
  );
});

describe('under emulation', () => {
  for (const rings of ['split', 'packed'] as const) {
    const frontEnd = genericDevice('linux-7.3', rings);
    const title = `a daemon that is killed and upgraded under a Linux guest: ${frontEnd.title}`;
    describePeer(title, frontEnd.missing, () => {
      const without = frontEnd.without.length > 0 ? ['--without', frontEnd.without.join(',')] : [];
      // Every run has packed ones under User Mode Linux.
      test.skipIf(ENDS_ASKED === undefined && rings === 'packed')(
        'goes on',
        () => survives(frontEnd, without),
        PATIENCE_MS,
      );
    });
  }
});
