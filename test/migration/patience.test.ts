import { expect, test } from 'vitest';
import { answerMsMax, StallWatch } from '../../src/migration/patience.ts';
import type { Link } from '../../src/migration/source-link.ts';
import { SimClock } from '../../src/sim/sim-clock.ts';

/** Connections of which each waits from its moment on, and a watch over them; what was broken, and when. */
async function watched(waits: readonly (() => number | undefined)[], atEase: boolean, forMs: number) {
  const clock = new SimClock();
  let brokenMs: number | undefined;
  const links = waits.map(waitingSinceMs => ({
    get waitingSinceMs() {
      return waitingSinceMs();
    },
    close: () => {
      brokenMs = clock.nowMs();
    },
  })) as unknown as Link[];
  const watch = new StallWatch({ clock, links, atEase: () => atEase });
  await clock.run(clock.sleep(forMs));
  watch.end();
  return { brokenMs, failure: watch.failure?.message };
}

test('a destination that takes nothing is given up, sooner while the guest stands still', async () => {
  const standing = await watched([() => 0, () => undefined], false, 100_000);
  expect(standing).toMatchObject({ failure: expect.stringContaining('nothing for 10 s') });
  expect(standing.brokenMs).toBeLessThan(11_500);
  const atEase = await watched([() => 0], true, 100_000);
  expect(atEase.brokenMs).toBeGreaterThan(60_000);
});

test('a slow network that many connections share is no hang, as long as one of them gets on', async () => {
  let ms = 0;
  const getsOn = () => {
    ms += 500;
    return ms;
  };
  expect((await watched([() => 0, getsOn], false, 60_000)).failure).toBeUndefined();
});

test('neither side waits for ever for an answer, and for a large guest longer', () => {
  expect([answerMsMax('welcome', 1), answerMsMax('running', 1)]).toEqual([60_000, 10_000]);
  // 128 GiB.
  expect([answerMsMax('ready', 0), answerMsMax('ready', 2 ** 25)]).toEqual([10_000, 13_356]);
});
