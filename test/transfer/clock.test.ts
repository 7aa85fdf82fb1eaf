import { expect, test } from 'vitest';
import { systemClock } from '../../src/transfer/clock.ts';

test('a sleep that is longer than timers can be set to does not end at once', async () => {
  const over = new AbortController();
  let woke = false;
  // What a megabyte takes at a byte a second, over 64 connections.
  const asleep = systemClock.sleep(2 ** 36, over.signal).then(() => {
    woke = true;
  });
  await systemClock.sleep(30);
  expect(woke).toBe(false);
  over.abort();
  await asleep;
});
