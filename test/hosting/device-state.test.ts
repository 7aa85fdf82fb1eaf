/**
 * What a device knows of its guest, saved and loaded through a front-end (DEVICE_STATE), as a hypervisor does that moves
 * or saves its guest with what back-ends know: the account of ballooned pages and the target go along. What cannot be
 * loaded is said at once, and changes nothing.
 */
import { MessageChannel } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { GuestHost } from '../../src/hosting/guest-host.ts';
import { guestOperations } from '../../src/hosting/guest-operations.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { closeAll, createEventFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd, fileStatus, readAt, writeAt } from '../../src/sys/file.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { DEVICE_STATE_TRANSFER, PROTOCOL_FEATURE, U64 } from '../../src/vhost-user/protocol.ts';
import { FIRST_PAGE, HandGuest } from '../daemon/hand-guest.ts';
import { RawFrontEnd } from '../daemon/raw-front-end.ts';
import { hostGuest } from '../support/host-guest.ts';
import { TestLoop } from '../support/loop.ts';

const MIB = 2 ** 20;
const MEMORY_BYTES = 16 * MIB;
const BALLOON_PAGES = 300;
const TARGET_BYTES = 4 * MIB;
const [SAVE, LOAD] = [0, 1];

let openBefore: number;
let loop: TestLoop;

beforeEach(() => {
  openBefore = openDescriptorCount();
  loop = new TestLoop();
});

afterEach(() => {
  loop.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

async function hosted<T>(use: (host: GuestHost, socket: UnixSocket) => Promise<T>): Promise<T> {
  const discards = new MessageChannel();
  const [ours, theirs] = UnixSocket.pair();
  const host = hostGuest({ loop, socket: ours, discards: discards.port1 });
  try {
    return await use(host, theirs);
  } finally {
    await host.close();
    discards.port1.close();
  }
}

/** The state of a device whose guest has given some pages. */
const savedState = (): Promise<Uint8Array> =>
  hosted(async (host, socket) => {
    const guest = await HandGuest.connect(socket, { loop, memoryBytes: MEMORY_BYTES });
    guestOperations.change(host, { targetBytes: TARGET_BYTES, force: true });
    await guest.inflate(FIRST_PAGE, BALLOON_PAGES);
    const state = host.save();
    guest.close();
    return state;
  });

const withFrontEnd = <T>(use: (host: GuestHost, raw: RawFrontEnd) => Promise<T>): Promise<T> =>
  hosted(async (host, socket) => {
    const raw = new RawFrontEnd(socket, loop);
    try {
      await raw.negotiate();
      return await use(host, raw);
    } finally {
      raw.close();
    }
  });

/** Says SET_DEVICE_STATE_FD with a descriptor of the front-end's, which is closed. Returns the number of the answer. */
async function begin(raw: RawFrontEnd, direction: number, phase = 0): Promise<bigint> {
  const pipe = createEventFd();
  raw.say('SET_DEVICE_STATE_FD', DEVICE_STATE_TRANSFER.encode({ direction, phase }), [pipe]);
  const { value } = U64.read(await raw.reply());
  pipe.close();
  return value;
}

const check = async (raw: RawFrontEnd): Promise<bigint> =>
  U64.read(await raw.ask('CHECK_DEVICE_STATE')).value;

async function load(raw: RawFrontEnd, state: Uint8Array): Promise<bigint> {
  expect(await begin(raw, LOAD)).toBe(0n);
  const [file] = raw.replyFds;
  writeAt(file, 0, state, 0, state.length);
  closeAll(raw.replyFds);
  return check(raw);
}

async function save(raw: RawFrontEnd): Promise<Uint8Array> {
  expect(await begin(raw, SAVE)).toBe(0n);
  const [file] = raw.replyFds;
  const state = new Uint8Array(fileStatus(file).size);
  readAt(file, 0, state, 0, state.length);
  closeAll(raw.replyFds);
  expect(await check(raw)).toBe(0n);
  return state;
}

describe('a device goes on where another one stopped,', () => {
  test.each(['before', 'after'])('its state loaded %s the memory was handed over', async when => {
    const state = await savedState();
    await withFrontEnd(async (host, raw) => {
      if (when === 'after') await raw.handOver();
      expect(await load(raw, state)).toBe(0n);
      if (when === 'before') await raw.handOver();
      expect(host.status()).toMatchObject({
        targetBytes: TARGET_BYTES,
        balloonedBytes: BALLOON_PAGES * PAGE_SIZE,
        lastError: null,
      });
      // And it is what the next one is given.
      expect(Buffer.from(await save(raw)).equals(state)).toBe(true);
    });
  });

  test('which is offered; what was not moved is not right', async () => {
    await withFrontEnd(async (_, raw) => {
      const { value } = U64.read(await raw.ask('GET_PROTOCOL_FEATURES'));
      expect(value & PROTOCOL_FEATURE.DEVICE_STATE).toBe(PROTOCOL_FEATURE.DEVICE_STATE);
      // Nothing was moved that could be checked.
      expect(await check(raw)).toBe(1n);
    });
  });
});

describe('what is no state is refused at once, without a descriptor, and changes nothing:', () => {
  test('one that is damaged, cut short, or too large', async () => {
    const state = await savedState();
    await withFrontEnd(async (host, raw) => {
      await raw.handOver();
      const damaged = [
        new Uint8Array(),
        state.subarray(0, state.length - 3),
        state.map((byte, at) => (at === 20 ? byte ^ 0x55 : byte)),
        // Pages that the guest does not have.
        Uint8Array.from([...state.subarray(0, -8), 0xff, 0xff, 0xff, 0x00, 1, 0, 0, 0]),
      ];
      for (const bytes of damaged) expect(await load(raw, bytes)).toBe(1n);
      // Sparse: it costs the front-end nothing.
      const file = createMemfd({ name: 'large', size: 2 ** 30 });
      expect(await begin(raw, LOAD)).toBe(0n);
      writeAt(raw.replyFds[0], 2 ** 30, new Uint8Array(1), 0, 1);
      closeAll([file, ...raw.replyFds]);
      expect(await check(raw)).toBe(1n);
      expect(host.status()).toMatchObject({ targetBytes: 0, balloonedBytes: 0 });
      // It is as fresh as it was.
      expect(await load(raw, state)).toBe(0n);
      expect(host.status().balloonedBytes).toBe(BALLOON_PAGES * PAGE_SIZE);
      // One that has a balloon already is not overwritten.
      expect(await load(raw, state)).toBe(1n);
      expect(host.status().balloonedBytes).toBe(BALLOON_PAGES * PAGE_SIZE);
    });
  });

  test('a direction or a phase that there is not', async () => {
    await withFrontEnd(async (_, raw) => {
      for (const [direction, phase] of [
        [2, 0],
        [SAVE, 1],
        [LOAD, 7],
      ]) {
        expect(await begin(raw, direction, phase)).toBe(0x101n);
        expect(raw.replyFds).toEqual([]);
      }
    });
  });

  test('a transfer that is begun anew, or never ended, leaves no descriptor', async () => {
    await withFrontEnd(async (_, raw) => {
      for (let times = 0; times < 3; times++) {
        expect(await begin(raw, LOAD)).toBe(0n);
        closeAll(raw.replyFds);
      }
    });
  });
});
