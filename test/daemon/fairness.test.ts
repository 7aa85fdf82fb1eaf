/** A guest that gives the daemon no rest takes its share of a thread, and no more. */
import { availableParallelism } from 'node:os';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { flood } from './flood.ts';
import { NEIGHBOUR, Neighbour } from './neighbour.ts';
import { RawFrontEnd } from './raw-front-end.ts';

const GREEDY = 'greedy';
/** Data-plane threads that the daemon has at most; guests are dealt out to them in turn. */
const threads = Math.ceil(availableParallelism() / 2);
/** So many guests in between that the neighbour shares the greedy one's thread. */
const between = Array.from({ length: threads - 1 }, (_, index) => `between${index}`);

describe('the guest next door is served', () => {
  let loop: TestLoop;
  let daemon: DaemonProcess;
  let neighbour: Neighbour;
  let frontEnd: RawFrontEnd;

  beforeEach(async () => {
    build();
    loop = new TestLoop();
    daemon = await DaemonProcess.start([GREEDY, ...between, NEIGHBOUR]);
    neighbour = await Neighbour.connect(daemon, loop);
    frontEnd = new RawFrontEnd(daemon.socketOf(GREEDY), loop);
    await frontEnd.negotiate();
  });

  afterEach(async () => {
    frontEnd?.close();
    neighbour?.close();
    await daemon?.stop();
    loop.close();
  });

  test.each([
    ['while another kicks in a tight loop', { refill: false }],
    ['while the ring of another is always full', { refill: true }],
  ])('%s', async (_, how) => {
    const stop = await flood(frontEnd, how);
    try {
      const { counters } = await daemon.control.guest(GREEDY);
      for (let round = 0; round < 10; round++) await neighbour.livesThrough(async () => {});
      // The greedy one was there all the time, and it was served, too.
      const after = (await daemon.control.guest(GREEDY)).counters;
      expect(after.kicks).toBeGreaterThan(counters.kicks);
      if (how.refill) expect(after.buffers).toBeGreaterThan(counters.buffers);
      expect(after).toMatchObject({ badBuffers: 0, brokenRings: 0 });
    } finally {
      await stop();
    }
  });

  test('while a front-end asks without end, and reads the answers', async () => {
    let answered = 0;
    let done = false;
    const ask = async () => {
      while (!done) {
        await frontEnd.ask('GET_FEATURES');
        answered++;
      }
    };
    const asking = ask();
    for (let round = 0; round < 10; round++) await neighbour.livesThrough(async () => {});
    done = true;
    await asking;
    expect(answered).toBeGreaterThan(0);
  });
});
