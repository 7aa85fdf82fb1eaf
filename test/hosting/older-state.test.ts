/**
 * A guest that a daemon of an older version of the state left, by bytes that such a daemon wrote: state-version-N.json has its
 * file, the rings in its memory, and what its descriptors were. The code of the last commit that wrote that version made it
 * (1: d027fbf, on split rings; 2: 39abb2d and 3: 0b6d55b, on packed ones): a guest gave 300 pages and took 100 of them back, and the daemon
 * died.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { GuestHost } from '../../src/hosting/guest-host.ts';
import { ThreadTurns } from '../../src/hosting/thread-turns.ts';
import { GUEST, GUEST_VERSION } from '../../src/keeping/guest-file.ts';
import { SOCKET_NUMBER } from '../../src/keeping/kept-guest.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { closeAll, createEventFd, type OwnedFd, ring } from '../../src/sys/fd.ts';
import { createMemfd, writeAt } from '../../src/sys/file.ts';
import { Mapping } from '../../src/sys/mapping.ts';
import { UnixListener, UnixSocket } from '../../src/sys/socket.ts';
import { CONTROL_WORDS, DiscardLink } from '../../src/threads/discard-link.ts';
import { frame } from '../../src/vhost-user/connection.ts';
import { FRONTEND_REQUEST, VRING_STATE } from '../../src/vhost-user/protocol.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { hasFeature, RING_PACKED } from '../../src/virtio/features.ts';
import { DESCRIPTOR_FLAG, PACKED_DESCRIPTOR } from '../../src/virtio/layout.ts';
import { FIRST_PAGE, HandQueue, ListRoom, pfnList, queuePlace } from '../daemon/hand-guest.ts';
import { TestLoop } from '../support/loop.ts';

const MEMORY_BYTES = 64 * 2 ** 20;
const QUEUE_SIZE = 64;

interface OlderState {
  readonly version: number;
  /** What each descriptor was that the keeper had, as /proc names it. */
  readonly fds: readonly (readonly [number: number, place: string])[];
  readonly features: string;
  /** In base64, compressed: the guest's file, and its memory below the pages that it gave. */
  readonly file: string;
  readonly memory: string;
}

const stateOf = (version: number) =>
  JSON.parse(readFileSync(new URL(`state-version-${version}.json`, import.meta.url), 'utf8')) as OlderState;
const bytesOf = (packed: string): Uint8Array => gunzipSync(Buffer.from(packed, 'base64'));

let loop: TestLoop;
let directory: string;
let warnings: string[];
let dropped: number[];
let ends: OwnedFd[];

beforeEach(() => {
  loop = new TestLoop();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  [warnings, dropped, ends] = [[], [], []];
});

afterEach(() => {
  closeAll(ends);
  loop.close();
  rmSync(directory, { recursive: true, force: true });
});

/** The guest's side as it was left, and what a keeper had of the daemon's. */
function left(older: OlderState, changeFile: (header: DataView) => void = () => {}) {
  const memory = createSharedMemory({ regions: [{ guestAddress: 0, size: MEMORY_BYTES }] });
  const bells: OwnedFd[] = [];
  const owner = {
    loop,
    memory,
    place: (bytes: Uint8Array) => lists.place(bytes),
    // The front-end's numbers of its doorbells are not known any more: one of them is the ring's.
    kick: () => {
      for (const bell of bells) ring(bell);
    },
  };
  const lists = new ListRoom(memory);
  const features = BigInt(older.features);
  const [inflate, deflate] = [0, 1].map(
    index => new HandQueue(owner, index, queuePlace(index, QUEUE_SIZE, features)),
  );
  memory.write(0, bytesOf(older.memory));
  memory.fill(FIRST_PAGE * PAGE_SIZE, 0x5a, PAGE_SIZE);
  const file = bytesOf(older.file);
  changeFile(new DataView(file.buffer, file.byteOffset));
  const state = createMemfd({ name: 'aerostat-test', size: file.length });
  writeAt(state, 0, file, 0, file.length);
  ends.push(state);
  let frontEnd: UnixSocket | undefined;
  const kept = older.fds.map(([number, place]): [number, number] => {
    if (number === 0) return [number, state.duplicate().release()];
    if (place.includes('memfd')) return [number, memory.regions[0].backing.file!.fd.duplicate().release()];
    if (place.includes('eventfd')) {
      bells.push(createEventFd());
      ends.push(bells[bells.length - 1]);
      return [number, bells[bells.length - 1].duplicate().release()];
    }
    const [ours, theirs] = UnixSocket.pair();
    ends.push(theirs.fd);
    if (number === SOCKET_NUMBER) frontEnd = theirs;
    return [number, ours.fd.release()];
  });
  return { memory, inflate, deflate, kept, state, frontEnd: frontEnd! };
}

function takenOver(kept: readonly (readonly [number, number])[]) {
  const control = new SharedArrayBuffer(CONTROL_WORDS * 4);
  const discards = new MessageChannel();
  const listener = UnixListener.bind(join(directory, 'listener.sock'));
  const host = new GuestHost(
    {
      name: 'g',
      fd: 0,
      targetBytes: 0,
      profile: 'virtio',
      discard: 'auto',
      without: [],
      pollIntervalMs: 0,
    },
    { fd: listener.fd.release(), listening: true, kept },
    {
      reactor: loop.reactor,
      turns: new ThreadTurns(),
      discards: new DiscardLink(control, discards.port1, loop.reactor.wakeFd.number),
      keeper: {
        of: () => ({ keep: () => {}, drop: number => void dropped.push(number) }),
        clear: () => {},
        hasAll: true,
      },
      emit: () => {},
      log: (_, level, message) => {
        if (level === 'warn') warnings.push(message);
      },
    },
  );
  return { host, close: () => discards.port1.close() };
}

/** What the driver does next on its ring, which has taken `sent` buffers of it. */
async function sendList(memory: GuestMemory, queue: HandQueue, sent: number, list: number, length: number) {
  if (!hasFeature(queue.config.features, RING_PACKED)) {
    queue.forgeDescriptor(0, list, length).forgeOffer(0);
    await queue.forgedReturns(sent + 1);
    return;
  }
  const at = queue.config.descriptorArea + sent * PACKED_DESCRIPTOR.size;
  const flagsAt = at + PACKED_DESCRIPTOR.offset.flags;
  memory.write(
    at,
    PACKED_DESCRIPTOR.encode({ address: list, length, id: sent, flags: DESCRIPTOR_FLAG.AVAIL }),
  );
  queue.kick();
  await loop.turnUntil(() => (memory.u16(flagsAt) & DESCRIPTOR_FLAG.USED) !== 0);
}

test.each([1, 2, 3])(
  'of version %i goes on with this daemon: what its balloon holds, how it is steered, and where its rings stand',
  async version => {
    const older = stateOf(version);
    expect(older.version).toBe(version);
    const { memory, inflate, deflate, kept, state, frontEnd } = left(older);
    const { host, close } = takenOver(kept);
    await loop.settle();
    expect(warnings).toEqual([]);
    expect(host.status()).toMatchObject({
      connected: true,
      balloonedBytes: 200 * PAGE_SIZE,
      actualBytes: 200 * PAGE_SIZE,
      targetBytes: 777 * PAGE_SIZE,
    });
    const header = Mapping.shared(state.number, 0, PAGE_SIZE);
    const versionNow = () => GUEST.read(new DataView(header.buffer)).version;
    // The older daemon goes on with it where an upgrade fails now (failed before: it refused its own guest).
    expect(versionNow()).toBe(version);

    // Just what was given and not taken back is in the account: no page of the next is bad or unknown.
    for (const [queue, sent, first, count] of [
      [deflate, 1, FIRST_PAGE, 100],
      [deflate, 2, FIRST_PAGE + 200, 100],
      [inflate, 2, FIRST_PAGE + 1000, 30],
    ] as const) {
      const list = queue === inflate ? 0x8_0000 : 0x9_0000;
      memory.write(list, pfnList(first, count));
      await sendList(memory, queue, sent, list, count * 4);
    }
    expect(host.device.accounts.balloonedPages).toBe(30);
    expect(host.device.counters).toMatchObject({ badPages: 0, badBuffers: 0, unknownPages: 0 });
    // What the front-end says is recorded in this version, with which the older daemon could not go on.
    const enable = VRING_STATE.encode({ index: 0, num: 1 });
    frontEnd.send(frame(FRONTEND_REQUEST.SET_VRING_ENABLE, 0, enable));
    await loop.turnUntil(() => versionNow() === GUEST_VERSION);
    expect(host.status().counters.badRequests).toBe(0);
    header.close();
    close();
    memory.close();
  },
);

test.each([GUEST_VERSION + 1, 7])(
  'of version %i is refused by name, for it is unknown, and none of its memory or its file is touched',
  async version => {
    const older = stateOf(3);
    const { memory, kept, state } = left(older, header =>
      header.setUint32(GUEST.offset.version, version, true),
    );
    const before = bytesOf(older.file);
    new DataView(before.buffer, before.byteOffset).setUint32(GUEST.offset.version, version, true);
    const { host, close } = takenOver(kept);
    await loop.settle();
    expect(warnings).toEqual([
      `kept guest not taken over: its state has version ${version}, and this daemon reads versions 1 to ${GUEST_VERSION}; its front-end has to connect again`,
    ]);
    expect(host.connected).toBe(false);
    expect(host.status()).toMatchObject({ actualBytes: null, memoryBytes: null, targetBytes: 0 });
    const rings = new Uint8Array(FIRST_PAGE * PAGE_SIZE);
    memory.read(0, rings, 0, rings.length);
    expect(Buffer.compare(rings, bytesOf(older.memory))).toBe(0);
    expect(memory.u32(FIRST_PAGE * PAGE_SIZE)).toBe(0x5a5a5a5a);
    const file = Mapping.shared(state.number, 0, before.length);
    expect(Buffer.compare(new Uint8Array(file.buffer), before)).toBe(0);
    file.close();
    close();
    memory.close();
  },
);
