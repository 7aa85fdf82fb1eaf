/** A front-end that connects and hangs up as fast as it can fills neither the log nor the stream of events. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { UnixSocket } from '../../src/sys/socket.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';

let daemon: DaemonProcess;

beforeAll(async () => {
  build();
  daemon = await DaemonProcess.start(['a']);
});

afterAll(() => daemon.stop());

const TIMES = 80;
const INTERVAL_MS = 10_000;
/** Five connections one by one, their sum, and what is true then. */
const LINES_AN_INTERVAL = 2 * 5 + 2;

test('connecting and hanging up without end is not logged without end', async () => {
  const lines = () => daemon.log.split('\n').filter(line => line.includes('front-end')).length;
  const linesBefore = lines();
  const startedMs = performance.now();
  const events: string[] = [];
  const leave = daemon.control.subscribe(({ type }) => void events.push(type));
  for (let time = 1; time <= TIMES; time++) {
    UnixSocket.connect(daemon.socketOf('a')).fd.close();
    await daemon.untilGuest('a', ({ counters, connected }) => counters.connections >= time && !connected);
  }
  leave();
  // What fits in the intervals that the test took; one by one it would be twice as many as there were connections.
  const most = LINES_AN_INTERVAL * (1 + Math.ceil((performance.now() - startedMs) / INTERVAL_MS));
  expect(lines() - linesBefore).toBeLessThanOrEqual(most);
  expect(events.filter(type => type === 'connected').length).toBeLessThanOrEqual(most);
});
