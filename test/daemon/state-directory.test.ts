/** A daemon without a keeper that is started anew: its guests are steered as they were, and what it cannot know it does not claim. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { FIRST_PAGE, HandGuest } from './hand-guest.ts';

const MIB = 2 ** 20;

let directory: string;

beforeAll(() => {
  build();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

const start = () =>
  DaemonProcess.start(['a', 'b'], ['--state-dir', join(directory, 'state'), '--target', '4M'], { directory });

test('targets, modes and leases are what they were, and a front-end that comes back finds them', async () => {
  let daemon = await start();
  const loop = new TestLoop();
  const guest = await HandGuest.connect(daemon.socketOf('a'), { loop });
  await daemon.control.change('a', { targetBytes: 8 * MIB, discard: 'before-ack', force: true });
  await guest.inflate(FIRST_PAGE, 512);
  await daemon.control.change('b', {
    targetBytes: 12 * MIB,
    lease: { forMs: 600_000, onSilence: 'release' },
    force: true,
  });
  const { targetOwner } = await daemon.control.guest('b');
  await daemon.control.change('a', { pollIntervalMs: 1234 });
  // All of it is on disk, however slow that is.
  const saved = (name: string) => {
    const file = join(directory, `state/guests/${name}.json`);
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  };
  await expect
    .poll(() => [saved('a').includes('"pollIntervalMs":1234'), saved('b').includes('"lease":{')])
    .toEqual([true, true]);
  await daemon.end('SIGKILL');
  await loop.turnUntil(() => !guest.frontend.connected);

  daemon = await start();
  const again = await daemon.control.guest('b');
  expect(again).toMatchObject({ targetBytes: 12 * MIB, targetOwner: { by: 'policy', lapsed: false } });
  // The lease goes on, and does not begin anew.
  expect(Math.abs(again.targetOwner!.untilMs! - targetOwner!.untilMs!)).toBeLessThan(5000);

  // The front-end connects again, and the driver goes on in the middle of its rings.
  let found = await daemon.control.guest('a');
  await loop.until(guest.frontend.reconnect(daemon.socketOf('a')));
  await loop.until(
    daemon.untilGuest('a', status => {
      found = status;
      return status.state === 'running';
    }),
  );
  expect(found).toMatchObject({
    targetBytes: 8 * MIB,
    discard: 'before-ack',
    targetOwner: { by: 'person' },
    // The driver has not said it to this daemon, and what it gave the other one is not known.
    actualBytes: null,
    balloonedBytes: null,
  });
  // What was given to the former daemon is taken back: no mistake of the driver's.
  await guest.deflate(FIRST_PAGE, 256);
  await guest.writeActual(256);
  const { counters, ...status } = await loop.until(daemon.control.guest('a'));
  expect({ badBuffers: counters.badBuffers, badPages: counters.badPages }).toEqual({
    badBuffers: 0,
    badPages: 0,
  });
  expect(counters.unknownPages).toBe(256);
  expect(status).toMatchObject({ actualBytes: 256 * 4096, balloonedBytes: null, targetBytes: 8 * MIB });
  guest.close();
  loop.close();
  await daemon.end();
}, 120_000);
