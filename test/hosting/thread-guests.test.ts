/**
 * What the main thread asks of a data-plane thread, asked of its guests in the test's own thread: what is answered, what is
 * refused, and in which words. That a real thread does it is test/daemon/'s; what operations answer is operations.test.ts's.
 */
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { PAGE_POISON } from '../../src/balloon/features.ts';
import { PROGRESS_WORDS } from '../../src/hosting/free-pages.ts';
import { GuestHost } from '../../src/hosting/guest-host.ts';
import { GuestLoop } from '../../src/hosting/guest-loop.ts';
import type { MapSources } from '../../src/hosting/map-sources.ts';
import { ThreadGuests } from '../../src/hosting/thread-guests.ts';
import type {
  DataThreadRequest,
  DataThreadRequests,
  FromDataThread,
  RequestName,
} from '../../src/hosting/worker-protocol.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { closeAll, OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { CONTROL_WORDS, DiscardLink } from '../../src/threads/discard-link.ts';
import { FIRST_PAGE, HandGuest } from '../daemon/hand-guest.ts';
import { TestLoop } from '../support/loop.ts';

let openBefore: number;
let loop: TestLoop;
let discards: MessageChannel;
let guests: ThreadGuests;
const told: FromDataThread[] = [];
const sockets: UnixSocket[] = [];
let nextId: number;

beforeEach(() => {
  openBefore = openDescriptorCount();
  told.length = 0;
  nextId = 1;
  loop = new TestLoop();
  discards = new MessageChannel();
  guests = new ThreadGuests({
    reactor: loop.reactor,
    discards: new DiscardLink(
      new SharedArrayBuffer(CONTROL_WORDS * 4),
      discards.port1,
      loop.reactor.wakeFd.number,
    ),
    tell: message => told.push(message),
    gcPauseMaxMs: () => 3,
  });
});

afterEach(async () => {
  vi.restoreAllMocks();
  await ask('close', null);
  closeAll(sockets.splice(0).map(({ fd }) => fd));
  discards.port1.close();
  loop.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

/** As the main thread does, but that a refusal is the answer, too. */
async function ask<Name extends RequestName>(name: Name, args: DataThreadRequests[Name]['args']) {
  const id = nextId++;
  await loop.until(guests.serve({ id, name, args } as DataThreadRequest));
  const answers = told.filter(message => 'id' in message && message.id === id);
  expect(answers).toHaveLength(1);
  return answers[0];
}

/** Opens a guest of the thread's; the answer's other end. */
async function open(name: string): Promise<UnixSocket> {
  const [ours, theirs] = UnixSocket.pair();
  sockets.push(theirs);
  const options = {
    name,
    targetBytes: 0,
    profile: 'virtio',
    discard: 'none',
    without: [],
    pollIntervalMs: 0,
    timed: true,
  } as const;
  const socket = { fd: ours.fd.release(), listening: false };
  expect(await ask('openGuest', { options, socket })).toMatchObject({ kind: 'answer', result: null });
  return theirs;
}

test('guests come and go, and all of them are told of at once', async () => {
  expect(await ask('guests', null)).toMatchObject({ result: [] });
  await open('a');
  await open('b');
  expect(await ask('guests', null)).toMatchObject({ result: [{ name: 'a' }, { name: 'b' }] });
  expect(await ask('samples', null)).toMatchObject({ result: { a: { ageMs: null }, b: { ageMs: null } } });
  expect(await ask('change', { name: 'a', args: { targetBytes: PAGE_SIZE } })).toMatchObject({
    result: { name: 'a', targetBytes: PAGE_SIZE },
  });
  expect(told).toContainEqual(
    expect.objectContaining({ event: expect.objectContaining({ guest: 'a', type: 'target' }) }),
  );
  expect(await ask('closeGuest', { name: 'a' })).toMatchObject({ result: null });
  expect(await ask('guests', null)).toMatchObject({ result: [{ name: 'b' }] });
  expect(await ask('thread', null)).toMatchObject({ result: { gcPauseMaxMs: 3 } });
});

test('a request for a guest that is not there is refused, and says which there are', async () => {
  await open('a');
  const refusal = {
    kind: 'failure',
    code: 'AEROSTAT_UNKNOWN_GUEST',
    message: 'no guest is called c; known: a',
  };
  expect(await ask('guest', { name: 'c', args: undefined })).toMatchObject(refusal);
  expect(await ask('closeGuest', { name: 'c' })).toMatchObject(refusal);
});

test('a refusal of a guest is told with its code, and a fault of ours as one', async () => {
  await open('a');
  expect(await ask('hint', { name: 'a', args: { action: 'start' } })).toMatchObject({
    kind: 'failure',
    code: 'AEROSTAT_GUEST_STATE',
  });
  vi.spyOn(GuestHost.prototype, 'status').mockImplementation(() => {
    throw new TypeError('a bug');
  });
  expect(await ask('guests', null)).toMatchObject({ code: 'AEROSTAT_INTERNAL', message: 'a bug' });
});

test('what is done for a guest at the word of the main thread counts as its own, also where it is refused', async () => {
  await open('a');
  await open('b');
  const charge = vi.spyOn(GuestLoop.prototype, 'charge');
  await ask('guests', null);
  expect(charge).toHaveBeenCalledTimes(0);
  await ask('guest', { name: 'a', args: undefined });
  await ask('hint', { name: 'a', args: { action: 'start' } });
  const [first, second] = charge.mock.contexts;
  expect(charge).toHaveBeenCalledTimes(2);
  expect(second).toBe(first);
});

test('a device is saved, and waits for the memory of the guest that it goes on with', async () => {
  await open('a');
  const other = await open('b');
  await ask('change', { name: 'a', args: { targetBytes: PAGE_SIZE } });
  const { result: saved } = (await ask('saveDevice', { name: 'a' })) as { result: Uint8Array };
  const loading = ask('loadDevice', { name: 'b', saved });
  const guest = await HandGuest.connect(other, { loop });
  try {
    expect(await loading).toMatchObject({ kind: 'answer', result: null });
    expect(await ask('guest', { name: 'b', args: undefined })).toMatchObject({
      result: { targetBytes: PAGE_SIZE },
    });
  } finally {
    guest.close();
  }
});

test('a guest is asked for its account, its memory and its free pages', async () => {
  // A guest that counts on what free pages hold names none to a migration.
  const guest = await HandGuest.connect(await open('a'), { loop, without: PAGE_POISON });
  try {
    await guest.inflate(FIRST_PAGE, 8);
    expect(await ask('guest', { name: 'a', args: undefined })).toMatchObject({
      result: { balloonedBytes: 8 * PAGE_SIZE },
    });
    const bytes = guest.memory.size;
    expect(await ask('balloon', { name: 'a' })).toMatchObject({
      result: [{ firstPfn: 0, pages: bytes / PAGE_SIZE }],
    });
    expect(await ask('decodeMs', { name: 'a' })).toMatchObject({ result: expect.any(Number) });
    const answer = await ask('mapSources', { name: 'a' });
    const { regions } = (answer as { result: MapSources }).result;
    // The asker closes what it got.
    closeAll(regions.flatMap(({ file }) => (file === null ? [] : [new OwnedFd(file.fd)])));
    expect(regions).toMatchObject([{ guestAddress: 0, bytes }]);
    expect(await ask('followFreePages', { name: 'a', followed: null })).toMatchObject({ result: null });
    expect(await ask('freePages', { name: 'a', step: 'start' })).toMatchObject({
      message: 'the free pages of this guest are not followed',
    });
    await followFreePages(bytes / PAGE_SIZE);
  } finally {
    guest.close();
  }
});

/** As a migration does, from the start of a session to its end. */
async function followFreePages(slots: number): Promise<void> {
  const bitmap = () => new Int32Array(new SharedArrayBuffer(Math.ceil(slots / 32) * 4));
  const progress = new Int32Array(new SharedArrayBuffer(PROGRESS_WORDS * 4));
  const followed = { way: 'session', dirty: bitmap(), recent: bitmap(), ever: bitmap(), progress } as const;
  expect(await ask('followFreePages', { name: 'a', followed })).toMatchObject({ result: null });
  for (const step of ['start', 'stop', 'done'] as const) {
    expect(await ask('freePages', { name: 'a', step })).toMatchObject({ result: null });
  }
  expect(await ask('hintStatus', { name: 'a', args: undefined })).toMatchObject({
    result: { state: 'done' },
  });
}

test('another discarding thread learns of the guests that are there, and news of one wake them all', async () => {
  await open('a');
  const { port1, port2 } = new MessageChannel();
  try {
    expect(await ask('addDiscardPort', { port: port1 })).toMatchObject({ result: null });
    expect(receiveMessageOnPort(port2)?.message).toMatchObject({ kind: 'lane' });
    const progress = vi.spyOn(GuestHost.prototype, 'progress');
    guests.progress();
    expect(progress).toHaveBeenCalledTimes(1);
  } finally {
    port1.close();
  }
});
