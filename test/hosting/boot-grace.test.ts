/** A driver that has just started does not see its target before its grace is over: one guest in the test's own thread. */
import { MessageChannel } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { GuestHost } from '../../src/hosting/guest-host.ts';
import { guestOperations } from '../../src/hosting/guest-operations.ts';
import { STUCK_MS } from '../../src/hosting/target-watch.ts';
import { closeAll, openDescriptorCount } from '../../src/sys/fd.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { HandGuest } from '../daemon/hand-guest.ts';
import { clockAhead } from '../support/clock-ahead.ts';
import { hostGuest } from '../support/host-guest.ts';
import { TestLoop } from '../support/loop.ts';

const { change } = guestOperations;

const MIB = 2 ** 20;
const GRACE_MS = 60_000;
const WISH = 8 * MIB;

let openBefore: number;
let loop: TestLoop;
let discards: MessageChannel;
let socket: UnixSocket;
let clock: ReturnType<typeof clockAhead>;
let host: GuestHost;
let guest: HandGuest;

beforeEach(async () => {
  openBefore = openDescriptorCount();
  clock = clockAhead();
  loop = new TestLoop();
  discards = new MessageChannel();
  const [ours, theirs] = UnixSocket.pair();
  socket = theirs;
  host = hostGuest(
    { loop, socket: ours, discards: discards.port1 },
    { targetBytes: WISH, bootGraceMs: GRACE_MS },
  );
  expect(host.status()).toMatchObject({ targetBytes: WISH, shownTargetBytes: 0 });
  guest = await HandGuest.connect(socket, { loop });
  await loop.turnUntil(() => host.status().state === 'running');
});

afterEach(async () => {
  guest.close();
  await host.close();
  closeAll([socket.fd]);
  discards.port1.close();
  loop.close();
  vi.restoreAllMocks();
  expect(openDescriptorCount()).toBe(openBefore);
});

const shownToDriver = async () => (await guest.readConfig()).numPages * 4096;

test('a driver that has just started sees its target when the grace is over, and its wish is known before', async () => {
  expect(await shownToDriver()).toBe(0);
  expect(host.status()).toMatchObject({ targetBytes: WISH, shownTargetBytes: 0 });
  clock.pass(GRACE_MS + 1000);
  await loop.turnUntil(() => host.status().shownTargetBytes === WISH);
  expect(await shownToDriver()).toBe(WISH);
});

test('a target that is set during the grace waits for its end, and the guest is not stuck meanwhile', async () => {
  change(host, { targetBytes: 6 * MIB });
  expect(await shownToDriver()).toBe(0);
  clock.pass(STUCK_MS + 1000);
  loop.reactor.turn(0);
  expect(host.status()).toMatchObject({ targetBytes: 6 * MIB, shownTargetBytes: 0, stuck: null });
  clock.pass(GRACE_MS);
  await loop.turnUntil(() => host.status().shownTargetBytes === 6 * MIB);
  // The time that it has begins now.
  expect(host.status().stuck).toBeNull();
});

test('what the balloon holds during the grace is not asked back', async () => {
  await guest.writeActual(256);
  expect(await shownToDriver()).toBe(MIB);
  change(host, { targetBytes: MIB / 2 });
  expect(await shownToDriver()).toBe(MIB / 2);
});

test('the first statistics that the driver is asked for end the grace; the buffer that it starts with does not', async () => {
  const stats = guest.queue('stats');
  stats.add({ out: new Uint8Array(10) });
  stats.kick();
  await loop.turnUntil(() => host.status().counters.statsBuffers === 1);
  expect(await shownToDriver()).toBe(0);
  const fresh = host.statistics.fresh(0, GRACE_MS);
  await stats.exchange({ out: new Uint8Array(10) });
  await loop.turnUntil(() => host.status().shownTargetBytes === WISH);
  await fresh;
  expect(await shownToDriver()).toBe(WISH);
});

test('each driver has a grace of its own, a ring that was paused has no other', async () => {
  clock.pass(GRACE_MS + 1000);
  await loop.turnUntil(() => host.status().shownTargetBytes === WISH);
  host.device.suspendQueue(0);
  host.device.resumeQueue(0);
  expect(await shownToDriver()).toBe(WISH);
  host.device.reset();
  expect(await shownToDriver()).toBe(0);
});
