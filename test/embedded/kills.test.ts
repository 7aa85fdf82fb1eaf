/**
 * An embedded guest, in a process of its own, whose daemon is killed with -9 and upgraded: ABIs that no kernel speaks, and with
 * AEROSTAT_EXTENT=whole all of them, on either kind of rings. How often is AEROSTAT_KILLS and AEROSTAT_UPGRADES.
 */
import { beforeAll, expect, test } from 'vitest';
import { DRAFT_NAMES, type ProfileName, profile } from '../../src/balloon/profiles.ts';
import { startGuestProcess } from '../../src/cli/processes.ts';
import type { GuestProcess } from '../../src/embedded/guest-process.ts';
import { build } from '../cli/built.ts';
import { ENDS_ASKED, survivesEnds } from '../peers/front-ends/killed-daemon.ts';
import { KeptDaemon } from '../support/kept-daemon.ts';
import { EMBEDDED_PROFILES } from '../support/profile-names.ts';

beforeAll(build);

const MIB = 2 ** 20;
const NAME = 'guest';
/** Either way: once while it hints, once while it reports, and once at any moment. */
const ENDS = ENDS_ASKED ?? { kills: 3, upgrades: 3 };
const PATIENCE_MS = 7_200_000;

const PROFILES = EMBEDDED_PROFILES.filter(
  name => process.env.AEROSTAT_EXTENT === 'whole' || DRAFT_NAMES.includes(name),
);
const CASES = PROFILES.flatMap(name => [[name, 'split'] as const, [name, 'packed'] as const]);

const working = (guest: GuestProcess) => ({
  async keep(bytes: number) {
    await guest.tell({ do: 'use', bytes });
  },
  async verify() {
    await guest.tell({ do: 'verify' });
  },
  async use(bytes: number) {
    await guest.tell({ do: 'touch', bytes });
  },
  freeBytes: async () => (await guest.tell({ do: 'meminfo' })).freeBytes,
  async complaints() {
    const { reconnections, vmstat } = await guest.tell({ do: 'status' });
    return [
      ...(reconnections > 0 ? [`its connection was lost ${reconnections} times`] : []),
      ...(vmstat.oomKills > 0 ? [`it killed ${vmstat.oomKills} programs`] : []),
    ];
  },
});

async function survives(name: ProfileName, rings: 'split' | 'packed'): Promise<void> {
  const kept = await KeptDaemon.start([{ name: NAME, profile: name, without: [] }]);
  try {
    const guest = await startGuestProcess({
      socketPath: kept.daemon.socketOf(NAME),
      memoryBytes: 256 * MIB,
      words: ['--profile', name, '--rings', rings],
    });
    try {
      const channels = profile(name).features.map(({ queue }) => queue);
      const reports = channels.includes('reporting') || channels.includes('hinting');
      const devices = [{ name: NAME, profile: name, reports }];
      await survivesEnds(`${name}, ${rings} rings`, { kept, guest: working(guest), devices }, ENDS);
      const { runs } = await guest.tell({ do: 'balloon' });
      const { balloonedBytes, lastError } = await kept.daemon.control.guest(NAME);
      expect({ runs, balloonedBytes, lastError }).toEqual({ runs: [], balloonedBytes: 0, lastError: null });
    } finally {
      await guest.close();
    }
  } finally {
    await kept.end();
  }
}

test.each(CASES)(
  'a guest of %s notices nothing of daemons that are killed and upgraded: %s rings',
  survives,
  PATIENCE_MS,
);
