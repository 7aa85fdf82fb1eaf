/**
 * How often the page asks the daemon, and for which events: for the page in the browser, and for the client of
 * `bench page`, which asks for the same without one. Needs nothing of Node.
 */
import type { GuestEventType } from '../control/contract.ts';

export const TICK_MS = 1000;
/** For the guest that is open on the page, while it moves. */
export const FAST_TICK_MS = 200;
/** While one guest moves, the others are looked at every so many ticks. */
export const ALL_EVERY = 5;
/** The daemon's own figures change slowly. */
export const DAEMON_EVERY = 5;

export const MAP_MS = 1000;
export const MAP_MOVING_MS = 250;

/** What is worth telling; `actual` comes many times a second, and polling shows it as well. */
export const TOLD_EVENTS: readonly GuestEventType[] = [
  'connected',
  'disconnected',
  'ready',
  'reset',
  'state',
  'target',
  'target-reached',
  'stuck',
  'hint',
  'migration',
  'policy',
  'error',
];
