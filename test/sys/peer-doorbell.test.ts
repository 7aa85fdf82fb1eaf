import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createEventFd, createPipe, drainEvent, type OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { libc } from '../../src/sys/libc.ts';
import { Arena } from '../../src/sys/mapping.ts';
import {
  PeerDoorbell,
  ringEventFd,
  ringsWithoutWaiting,
  silenceEventFd,
} from '../../src/sys/peer-doorbell.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { openDescriptors } from '../support/descriptors.ts';

const F_SETFL = 4;
const scratch = new Arena(64);
const open: { close(): void }[] = [];
const own = <T extends { close(): void }>(thing: T): T => {
  open.push(thing);
  return thing;
};
let before = openDescriptors();
beforeEach(() => {
  before = openDescriptors();
});
afterEach(() => {
  for (const thing of open.splice(0)) thing.close();
  expect(openDescriptors()).toEqual(before);
});

/** What an owner does who wants the others to wait. */
const makeBlocking = (fd: OwnedFd): void => void libc.fcntl(fd.number, F_SETFL, 0);

function fill(bell: OwnedFd): void {
  scratch.view.setBigUint64(0, 0xffff_ffff_ffff_fffen, true);
  expect(libc.write(bell.number, scratch.address, 8)).toBe(8);
}

describe('an eventfd that its owner made blocking', () => {
  test('is rung although it is full, where a write would wait for ever', () => {
    const bell = own(createEventFd());
    makeBlocking(bell);
    fill(bell);
    expect(ringsWithoutWaiting()).toBe(true);
    for (let time = 0; time < 300; time++) expect(ringEventFd(bell)).toBe(true);
  });

  test('is read although its owner has drained it, where a read would wait for ever', () => {
    const bell = own(createEventFd());
    makeBlocking(bell);
    expect(ringEventFd(bell)).toBe(true);
    expect(silenceEventFd(bell)).toBe(true);
    expect(silenceEventFd(bell)).toBe(true);
  });

  test('counts each ring', () => {
    const bell = own(createEventFd());
    for (let time = 0; time < 500; time++) ringEventFd(bell);
    expect(libc.read(bell.number, scratch.address, 8)).toBe(8);
    expect(scratch.view.getBigUint64(0, true)).toBe(500n);
  });
});

describe('what is no eventfd', () => {
  test('is neither rung nor read as one', () => {
    const file = own(createMemfd({ name: 'aerostat-test', size: 4096 }));
    expect(ringEventFd(file)).toBe(false);
    expect(silenceEventFd(own(createMemfd({ name: 'aerostat-test', size: 0 })))).toBe(false);
    expect(PeerDoorbell.of(file)).toBeUndefined();
  });
});

describe('a pipe that its owner made blocking', () => {
  test('is rung although it is full, and the ring arrives when there is room', async () => {
    const { reader, writer } = createPipe();
    own(reader);
    const filler = own(writer.duplicate());
    while (libc.write(filler.number, scratch.address, 8) === 8);
    makeBlocking(writer);
    const bell = own(PeerDoorbell.of(writer)!);
    // The first waits in a thread of the C library, the second behind it, and more are spared.
    for (let time = 0; time < 5; time++) expect(bell.ring()).toBe(true);
    // A full pipe has 64 KiB; so much and two rings more can be read.
    for (let read = 0; read < 65_536 + 16; ) {
      const count = Number(libc.read(reader.number, scratch.address, 64));
      if (count > 0) read += count;
      else await new Promise(resolve => setTimeout(resolve, 1));
    }
    await expect.poll(() => bell.write(new Uint8Array(8)), { timeout: 60_000 }).toBe('written');
  });

  test('is gone when no reader is left', async () => {
    const { reader, writer } = createPipe();
    reader.close();
    const bell = own(PeerDoorbell.of(writer)!);
    await expect.poll(() => bell.ring(), { timeout: 60_000 }).toBe(false);
  });

  test('is never left without a ring, however fast it is read', async () => {
    const { reader, writer } = createPipe();
    own(reader);
    const bell = own(PeerDoorbell.of(writer)!);
    for (let time = 0; time < 2000; time++) {
      while (drainEvent(reader) && Number(libc.read(reader.number, scratch.address, 64)) > 0);
      bell.ring();
      // Whatever was under way, a ring that was made after the pipe was read arrives.
      await expect
        .poll(() => Number(libc.read(reader.number, scratch.address, 64)) > 0, {
          interval: 0,
          timeout: 60_000,
        })
        .toBe(true);
    }
  });
});

describe('a socket that its owner made blocking', () => {
  test('is offered messages until it is full', () => {
    const [near, far] = UnixSocket.pair();
    own(far);
    const bell = own(PeerDoorbell.of(near.fd)!);
    makeBlocking(near.fd);
    const message = new Uint8Array(64);
    let sent = 0;
    while (bell.write(message) === 'written') sent++;
    expect(sent).toBeGreaterThan(10);
    expect(bell.write(message)).toBe('full');
    expect(bell.ring()).toBe(true);
    far.close();
    expect(bell.write(message)).toBe('gone');
  });
});
