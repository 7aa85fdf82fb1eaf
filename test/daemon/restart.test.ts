/**
 * A daemon that is killed while guests give it pages and take them back, and started again, or followed by one that stands by:
 * neither guests nor their front-ends notice. How often it is killed is AEROSTAT_KILLS.
 */
import { beforeAll, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_PACKED } from '../../src/virtio/features.ts';
import { build } from '../cli/built.ts';
import { KeptDaemon } from '../support/kept-daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { BusyGuest } from './busy-guest.ts';
import { HandGuest } from './hand-guest.ts';

const KILLS_OF_CI = 6;
const KILLS = Number(process.env.AEROSTAT_KILLS ?? KILLS_OF_CI);
const SEED = Number(process.env.AEROSTAT_SEED ?? 1);

/** A front-end that has asked something waits for as long as a busy machine takes to start a daemon. */
const PATIENCE_MS = 60_000;

beforeAll(() => build(), 60_000);

/** Guests of one daemon, by what their rings are like. */
const RINGS = {
  split: 0n,
  packed: RING_PACKED,
  'in-order': RING_PACKED | IN_ORDER | RING_EVENT_IDX,
};

test(
  `guests go on while their daemon is killed ${KILLS} times (seed ${SEED})`,
  async () => {
    const loop = new TestLoop();
    const random = new Random(SEED);
    const kept = await KeptDaemon.start(Object.keys(RINGS));
    const all = await Promise.all(
      Object.entries(RINGS).map(async ([name, ringFeatures]) => {
        // Rings of 8 entries go round often.
        const options = {
          loop,
          ringFeatures,
          queueSize: 8,
          memoryBytes: 32 * 2 ** 20,
          answerMsMax: PATIENCE_MS,
        };
        const guest = await HandGuest.connect(kept.daemon.socketOf(name), options);
        return { name, guest, busy: new BusyGuest(guest, new Random(random.below(2 ** 31))) };
      }),
    );
    let running = true;
    const works = all.map(async ({ busy }) => {
      while (running) await busy.step();
    });
    for (const work of works) work.catch(() => {});
    for (let kills = 0; kills < KILLS; kills++) {
      await new Promise(resolve => setTimeout(resolve, random.below(200)));
      const standby = kills % 3 === 2 ? await kept.standBy() : undefined;
      await kept.restart(kills % 8 === 7 ? 'SIGTERM' : 'SIGKILL', standby);
    }
    // One whose turn does not come does nothing, and ends well.
    expect(await (await kept.standBy()).end('SIGTERM')).toBe(0);
    running = false;
    await Promise.all(works);
    for (const { name, guest, busy } of all) {
      const status = await kept.daemon.untilGuest(name, ({ pendingBytes }) => pendingBytes === 0);
      expect(status.balloonedBytes).toBe(busy.balloonedPages * PAGE_SIZE);
      expect(status.actualBytes).toBe(busy.balloonedPages * PAGE_SIZE);
      expect(guest.frontend.connected).toBe(true);
      expect(guest.brokenRings).toEqual([]);
      busy.verify();
      // All that it gave is back at the host, whichever daemon it gave it to.
      expect(guest.residentBytes).toBeLessThanOrEqual(busy.keptBytes);
      if (KILLS > KILLS_OF_CI)
        console.info(`${name}: a buffer was out for ${Math.round(busy.stallMsMax)} ms at most`);
      guest.close();
    }
    if (KILLS > KILLS_OF_CI) console.info(`no daemon for ${Math.round(kept.downMsMax)} ms at most`);
    loop.close();
    await kept.end();
  },
  KILLS * 5000 + 120_000,
);
