import { expect, test } from 'vitest';
import { LogLimiter } from '../../src/hosting/log-limiter.ts';

/** A limiter on a clock that the test moves. */
function limiter() {
  const clock = { nowMs: 0 };
  return { clock, limiter: new LogLimiter(() => clock.nowMs) };
}

test('the first message of a kind passes, and those that follow it at once do not', () => {
  const { limiter: log } = limiter();
  expect(log.admit('a')).toBe(0);
  for (let again = 0; again < 1000; again++) expect(log.admit('a')).toBeUndefined();
});

test('the next that passes tells how many did not', () => {
  const { clock, limiter: log } = limiter();
  log.admit('a');
  for (let again = 0; again < 7; again++) log.admit('a');
  clock.nowMs = 9_999;
  expect(log.admit('a')).toBeUndefined();
  clock.nowMs = 10_000;
  expect(log.admit('a')).toBe(8);
  expect(log.admit('a')).toBeUndefined();
  clock.nowMs = 20_000;
  expect(log.admit('a')).toBe(1);
});

test('kinds do not count for each other', () => {
  const { limiter: log } = limiter();
  expect(log.admit('a')).toBe(0);
  expect(log.admit('b')).toBe(0);
  expect(log.admit('b')).toBeUndefined();
  expect(log.admit('a')).toBeUndefined();
});

test('kinds without end take no memory without end', () => {
  const { limiter: log } = limiter();
  // Beyond the limit it forgets all of them, so that a kind may pass twice, and goes on.
  for (let kind = 0; kind < 10_000; kind++) expect(log.admit(`kind ${kind}`)).toBe(0);
  expect(log.admit('kind 9999')).toBeUndefined();
});
