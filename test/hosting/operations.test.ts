/**
 * The operations that a data-plane thread is asked for, on one guest in the test's own thread: what each answers, and what
 * it says of a guest that cannot do it. How they get there is control/ and threads/.
 */
import { MessageChannel } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { encodeStatistics, STATISTIC_BYTES } from '../../src/balloon/statistics.ts';
import type { GuestHost } from '../../src/hosting/guest-host.ts';
import { guestOperations } from '../../src/hosting/guest-operations.ts';
import { closeAll, openDescriptorCount } from '../../src/sys/fd.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { HandGuest } from '../daemon/hand-guest.ts';
import { hostGuest } from '../support/host-guest.ts';
import { TestLoop } from '../support/loop.ts';

const MIB = 2 ** 20;

let openBefore: number;
let loop: TestLoop;
let discards: MessageChannel;
let host: GuestHost;
let socket: UnixSocket;
const lines: string[] = [];

beforeEach(() => {
  openBefore = openDescriptorCount();
  loop = new TestLoop();
  discards = new MessageChannel();
  lines.length = 0;
  const [ours, theirs] = UnixSocket.pair();
  socket = theirs;
  host = hostGuest(
    { loop, socket: ours, discards: discards.port1 },
    { discard: 'auto' },
    { log: (_, _level, message) => lines.push(message) },
  );
});

afterEach(async () => {
  await host.close();
  closeAll([socket.fd]);
  discards.port1.close();
  loop.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

/** A sample of one figure. */
function sample(freeBytes: number): Uint8Array {
  const bytes = new Uint8Array(STATISTIC_BYTES);
  encodeStatistics(new DataView(bytes.buffer), { freeBytes });
  return bytes;
}

test('a change is answered with the state that it leads to', () => {
  const before = guestOperations.guest(host);
  expect(before).toMatchObject({ name: 'g', memoryBytes: null, targetBytes: 0, discard: 'auto' });
  const after = guestOperations.change(host, {
    targetBytes: 64 * MIB,
    discard: 'before-ack',
    pollIntervalMs: 2000,
  });
  expect(after).toMatchObject({ targetBytes: 64 * MIB, discard: 'before-ack' });
  expect(guestOperations.guest(host)).toMatchObject({ targetBytes: 64 * MIB });
});

test('statistics are the newest sample, or one that the guest is asked for', async () => {
  expect(await guestOperations.statistics(host, {})).toMatchObject({ ageMs: null });
  expect(() => guestOperations.statistics(host, { freshMs: 0 })).toThrow(
    'g sends no statistics: its balloon driver has not started yet',
  );
  const guest = await HandGuest.connect(socket, { loop });
  try {
    const queue = guest.queue('stats');
    queue.add({ out: sample(5 * MIB) });
    queue.kick();
    await loop.turnUntil(() => host.device.statistics.given);
    const fresh = guestOperations.statistics(host, { freshMs: 0, timeoutMs: 20_000 }) as Promise<unknown>;
    await queue.returned(1);
    queue.add({ out: sample(6 * MIB) });
    queue.kick();
    expect(await loop.until(fresh)).toMatchObject({ statistics: { freeBytes: 6 * MIB } });
    // It has the buffer again, and says nothing more.
    const late = guestOperations.statistics(host, { freshMs: 0, timeoutMs: 20 }) as Promise<unknown>;
    await expect(loop.until(late)).rejects.toThrow('g did not send statistics within 20 ms');
  } finally {
    guest.close();
  }
});

test('statistics are asked for at the interval that was set, until it is 0', async () => {
  const guest = await HandGuest.connect(socket, { loop });
  try {
    const queue = guest.queue('stats');
    queue.add({ out: sample(MIB) });
    queue.kick();
    guestOperations.change(host, { pollIntervalMs: 1 });
    await queue.returned(1);
    guestOperations.change(host, { pollIntervalMs: 0 });
    queue.add({ out: sample(2 * MIB) });
    queue.kick();
    await loop.turnUntil(() => host.device.statistics.sample.freeBytes === 2 * MIB);
    await loop.settle();
    expect(queue.collect()).toEqual([]);
  } finally {
    guest.close();
  }
});

test('a guest that leaves is not waited for', async () => {
  const guest = await HandGuest.connect(socket, { loop });
  const queue = guest.queue('stats');
  queue.add({ out: sample(MIB) });
  queue.kick();
  await loop.turnUntil(() => host.device.statistics.given);
  const waiting = guestOperations.statistics(host, { freshMs: 0, timeoutMs: 20_000 }) as Promise<unknown>;
  guest.close();
  await expect(loop.until(waiting)).rejects.toThrow(/^g sends no statistics: /);
});

test('hints and requests say why a guest cannot have them', () => {
  expect(guestOperations.hintStatus(host)).toMatchObject({
    state: 'unsupported',
    commandId: null,
  });
  expect(() => guestOperations.hint(host, { action: 'start' })).toThrow(/^g /);
  expect(() => guestOperations.request(host, { request: 'unused-pages' })).toThrow(/virtio/);
});
