/** How often the memory of free frames is taken back where a guest has lent its allocator. */
import { expect, test } from 'vitest';
import type { BalloonDevice } from '../../src/device/balloon-device.ts';
import { AutomaticEviction } from '../../src/hosting/automatic-eviction.ts';
import type { GuestLoop } from '../../src/hosting/guest-loop.ts';

function world(queue: string, intervalMs?: number) {
  const timers: { ms: number; run: () => void }[] = [];
  const seen = { evicted: 0, cancelled: 0 };
  const device = {
    profile: { features: [{ queue }] },
    shared: { lent: true, evict: () => seen.evicted++ },
  };
  const loop = {
    schedule: (ms: number, run: () => void) => {
      timers.push({ ms, run });
      return { cancel: () => seen.cancelled++ };
    },
    step: (act: () => void) => act(),
  };
  const eviction = new AutomaticEviction(
    device as unknown as BalloonDevice,
    loop as unknown as GuestLoop,
    intervalMs,
  );
  const pass = () => {
    const [timer] = timers.splice(0);
    timer.run();
    return timer.ms;
  };
  return { eviction, device, timers, seen, pass };
}

test('every five seconds, or as often as it is told, from a guest that has lent its allocator', () => {
  expect(world('shared').pass()).toBe(5000);
  const { pass, seen, device, eviction } = world('shared', 100);
  expect([pass(), pass()]).toEqual([100, 100]);
  expect(seen.evicted).toBe(2);
  device.shared.lent = false;
  pass();
  expect(seen.evicted).toBe(2);
  eviction.close();
  expect(seen.cancelled).toBe(1);
});

test.each([
  ['never where it is told so', 'shared', 0],
  ['never where the profile has no such queue', 'reporting', 100],
])('%s', (_, queue, intervalMs) => {
  expect(world(queue, intervalMs).timers).toEqual([]);
});
