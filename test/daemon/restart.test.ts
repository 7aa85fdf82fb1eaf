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
import { FIRST_PAGE, HandGuest, pfnList } from './hand-guest.ts';

const KILLS_OF_CI = 6;
const KILLS = Number(process.env.AEROSTAT_KILLS ?? KILLS_OF_CI);
const SEED = Number(process.env.AEROSTAT_SEED ?? 1);

/** A front-end that has asked something waits for as long as a busy machine takes to start a daemon. */
const PATIENCE_MS = 60_000;

beforeAll(() => build(), 60_000);

/** Guests of one daemon, by what their rings are like, and whether their front-ends keep what is in flight. */
const RINGS = {
  split: [0n, false],
  packed: [RING_PACKED, false],
  'in-order': [RING_PACKED | IN_ORDER | RING_EVENT_IDX, false],
  'split-noted': [0n, true],
  'packed-noted': [RING_PACKED, true],
} as const;

test(
  `guests go on while their daemon is killed ${KILLS} times (seed ${SEED})`,
  async () => {
    const loop = new TestLoop();
    const random = new Random(SEED);
    const kept = await KeptDaemon.start(Object.keys(RINGS));
    const all = await Promise.all(
      Object.entries(RINGS).map(async ([name, [ringFeatures, keepsInflight]]) => {
        // Rings of 8 entries go round often.
        const options = {
          loop,
          ringFeatures,
          keepsInflight,
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

test.each([
  ['split', 0n],
  ['packed', RING_PACKED],
])(
  'a front-end that keeps what is in flight goes on where its daemon and the keeper are killed, too: %s rings (failed before: a guest that is kept was not offered it)',
  async (_, ringFeatures) => {
    const loop = new TestLoop();
    const kept = await KeptDaemon.start(['g']);
    const options = { loop, ringFeatures, queueSize: 8, keepsInflight: true, answerMsMax: PATIENCE_MS };
    const guest = await HandGuest.connect(kept.daemon.socketOf('g'), options);
    const pages = 256;
    const firstOf = (piece: number) => FIRST_PAGE + piece * pages;
    guest.touch(firstOf(0), 24 * pages);
    for (let losses = 0; losses < 3; losses++) {
      // Rings go round, with daemons that are killed and daemons that lose all.
      await guest.inflate(firstOf(0), 20 * pages + losses);
      await kept.restart('SIGKILL');
      await guest.deflate(firstOf(0), 20 * pages + losses);
      guest.touch(firstOf(0), 20 * pages + losses);
      const deflate = guest.queue('deflate');
      const inflate = guest.queue('inflate');
      await guest.inflate(firstOf(20), 2 * pages);
      // Whether the daemon took them, returned them or never saw them is left to chance.
      for (let piece = 20; piece < 22; piece++) deflate.add({ out: pfnList(firstOf(piece), pages) });
      for (let piece = 22; piece < 24; piece++) inflate.add({ out: pfnList(firstOf(piece), pages) });
      deflate.kick();
      inflate.kick();
      await new Promise(resolve => setTimeout(resolve, losses));
      await kept.loseAll();
      await loop.until(guest.frontend.reconnect(kept.daemon.socketOf('g')));
      await deflate.returned(2);
      await inflate.returned(2);
      guest.touch(firstOf(20), 2 * pages, 7);
      await guest.deflate(firstOf(22), 2 * pages);
      const { counters } = await kept.daemon.untilGuest('g', ({ pendingBytes }) => pendingBytes === 0);
      expect(counters).toMatchObject({ badRequests: 0, badBuffers: 0, badPages: 0, brokenRings: 0 });
      expect(guest.memory.u32(firstOf(21) * PAGE_SIZE)).toBe(0x07070707);
      expect(guest.memory.u32(firstOf(5) * PAGE_SIZE)).toBe(0xa5a5a5a5);
      expect(guest.brokenRings).toEqual([]);
      // Each came back once: nothing more does.
      await loop.settle();
      expect([...deflate.collect(), ...inflate.collect()]).toEqual([]);
      guest.touch(firstOf(22), 2 * pages);
    }
    guest.close();
    loop.close();
    await kept.end();
  },
  PATIENCE_MS * 5,
);
