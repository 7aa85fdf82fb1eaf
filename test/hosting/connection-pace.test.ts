/** How soon the next front-end is let in, by moments. */
import { expect, test } from 'vitest';
import { ConnectionPace } from '../../src/hosting/connection-pace.ts';

/** Front-ends that stay for so long and leave so long between them; returns for how long each next one was not let in. */
function pausesOf(count: number, { lastsMs, betweenMs }: { lastsMs: number; betweenMs: number }): number[] {
  const pace = new ConnectionPace();
  let nowMs = 1_000_000;
  return Array.from({ length: count }, () => {
    nowMs += betweenMs;
    pace.began(nowMs);
    nowMs += lastsMs;
    const pauseMs = pace.ended(nowMs);
    nowMs += pauseMs;
    return pauseMs;
  });
}

test('a front-end that comes and goes without end is let in at a pace', () => {
  const pauses = pausesOf(200, { lastsMs: 1, betweenMs: 0 });
  expect(pauses.slice(0, 8)).toEqual(new Array(8).fill(0));
  expect(pauses.slice(8, 13)).toEqual([1, 2, 4, 8, 16]);
  expect(new Set(pauses.slice(13))).toEqual(new Set([20]));
});

test.each([
  ['that stays', { lastsMs: 1000, betweenMs: 0 }],
  ['that crashes at once and is started again each second', { lastsMs: 5, betweenMs: 1000 }],
])('one %s is let in at once, however often it comes', (_, how) => {
  expect(new Set(pausesOf(200, how))).toEqual(new Set([0]));
});

test('one that stayed makes good for those before it', () => {
  const pace = new ConnectionPace();
  let nowMs = 0;
  const visit = (lastsMs: number): number => {
    pace.began(nowMs);
    nowMs += lastsMs;
    return pace.ended(nowMs);
  };
  for (let time = 0; time < 20; time++) visit(1);
  expect(visit(1)).toBe(20);
  expect(visit(2000)).toBe(0);
  expect(visit(1)).toBe(0);
});
