/** How often it is told that front-ends come and go. */
import { expect, test } from 'vitest';
import { ConnectionEvents } from '../../src/hosting/connection-events.ts';
import { GuestEvents } from '../../src/hosting/guest-events.ts';

function world() {
  const events: string[] = [];
  const lines: string[] = [];
  const timers: (() => void)[] = [];
  const reactor = {
    schedule: (_: number, act: () => void) => {
      timers.push(act);
      return { cancel: () => {} };
    },
  };
  const outlet = {
    emit: (_: string, type: string) => void events.push(type),
    log: (_: string, _level: string, message: string) => void lines.push(message),
  };
  const news = new ConnectionEvents(new GuestEvents('g', outlet, reactor), reactor);
  /** The interval is over. */
  const pass = () => {
    for (const act of timers.splice(0)) act();
  };
  return { events, lines, news, pass };
}

test('a guest that crashes and comes back is told of one by one', () => {
  const { events, lines, news } = world();
  for (let time = 0; time < 3; time++) {
    news.opened();
    news.closed();
  }
  expect(events).toEqual(Array.from({ length: 3 }, () => ['connected', 'disconnected']).flat());
  expect(lines).toHaveLength(6);
});

test('one that connects and hangs up without end is told of once an interval, with how often', () => {
  const { events, lines, news, pass } = world();
  for (let interval = 0; interval < 4; interval++) {
    for (let time = 0; time < 15_000; time++) {
      news.opened();
      news.closed();
    }
    pass();
  }
  expect(events).toHaveLength(10);
  expect(lines).toHaveLength(10 + 4);
  expect(lines[10]).toBe('front-ends connected and disconnected 14995 times more in 10 s');
  expect(lines[11]).toBe('front-ends connected and disconnected 15000 times more in 10 s');
});

test('in the end it is known whether one is connected', () => {
  const { events, news, pass } = world();
  for (let time = 0; time < 100; time++) {
    news.opened();
    news.closed();
  }
  news.opened();
  expect(events.at(-1)).toBe('disconnected');
  pass();
  expect(events.at(-1)).toBe('connected');
});
