/** Descriptors with one owner, and doorbells. */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import {
  closeAll,
  createEventFd,
  createPipe,
  drainEvent,
  OwnedFd,
  openDescriptorCount,
  ring,
  SHORT_WRITE_BYTES_MAX,
  writeShort,
} from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { libc } from '../../src/sys/libc.ts';
import { UnixSocket } from '../../src/sys/socket.ts';

const F_GETFD = 1;
const F_GETFL = 3;
const FD_CLOEXEC = 1;
const O_NONBLOCK = 0o4000;

const owned: OwnedFd[] = [];
const own = <T extends OwnedFd>(fd: T): T => {
  owned.push(fd);
  return fd;
};

afterEach(() => {
  closeAll(owned.splice(0));
  expect(openDescriptorCount()).toBe(0);
});

const isOpen = (number: number): boolean => libc.fcntl(number, F_GETFD, 0) !== -1;

describe('a descriptor', () => {
  test('is closed once, and a second close leaves a stranger with its number alone', () => {
    const fd = own(createEventFd());
    const { number } = fd;
    fd.close();
    expect([fd.open, isOpen(number)]).toEqual([false, false]);
    // The kernel gives the smallest free number to the next one.
    const stranger = own(createEventFd());
    expect(stranger.number).toBe(number);
    fd.close();
    expect(isOpen(number)).toBe(true);
  });

  test('refuses use when it is closed', () => {
    const fd = own(createEventFd());
    fd.close();
    expect(() => fd.number).toThrow(expect.objectContaining({ code: 'AEROSTAT_CLOSED' }));
    expect(() => fd.duplicate()).toThrow('closed');
    expect(() => fd.release()).toThrow('closed');
    expect(() => ring(fd)).toThrow('closed');
  });

  test('can be given up, and is then its taker’s to close', () => {
    const fd = own(createEventFd());
    const number = fd.release();
    fd.close();
    expect([fd.open, isOpen(number), openDescriptorCount()]).toEqual([false, true, 0]);
    own(new OwnedFd(number));
  });

  test('is duplicated as one of its own, closed on exec and no standard stream', () => {
    const fd = own(createMemfd({ name: 'aerostat-test', size: 4096 }));
    const twin = own(fd.duplicate());
    expect(fstatSync(twin.number).ino).toBe(fstatSync(fd.number).ino);
    expect(twin.number).toBeGreaterThan(2);
    expect(libc.fcntl(twin.number, F_GETFD, 0) & FD_CLOEXEC).toBe(FD_CLOEXEC);
    fd.close();
    expect(isOpen(twin.number)).toBe(true);
  });

  test('counts while it is open', () => {
    const before = openDescriptorCount();
    const { reader, writer } = createPipe();
    expect(openDescriptorCount()).toBe(before + 2);
    closeAll([reader, writer, reader]);
    expect(openDescriptorCount()).toBe(before);
  });

  test('can be made not to block', () => {
    const fd = own(new OwnedFd(openSync('/dev/null', 'r')));
    expect(libc.fcntl(fd.number, F_GETFL, 0) & O_NONBLOCK).toBe(0);
    fd.setNonBlocking();
    expect(libc.fcntl(fd.number, F_GETFL, 0) & O_NONBLOCK).toBe(O_NONBLOCK);
  });

  test('that the kernel does not know cannot be duplicated', () => {
    const fd = own(createEventFd());
    closeSync(fd.number);
    expect(() => fd.duplicate()).toThrow('fcntl failed with EBADF');
  });
});

describe('a doorbell that is an eventfd', () => {
  test('is rung, silenced once for any number of rings, and then quiet', () => {
    const bell = own(createEventFd());
    for (let time = 0; time < 5; time++) expect(ring(bell)).toBe(true);
    expect(drainEvent(bell)).toBe(true);
    // Nothing is there any more, and that is no reason to give it up.
    expect(drainEvent(bell)).toBe(true);
    expect(libc.read(bell.number, 0, 0)).toBe(-1);
  });

  test('counts as rung when it is full', () => {
    const bell = own(createEventFd());
    const word = new BigUint64Array([0xffff_ffff_ffff_fffen]);
    expect(writeShort(bell, new Uint8Array(word.buffer))).toBe('written');
    expect(ring(bell)).toBe(true);
    expect(writeShort(bell, new Uint8Array(word.buffer))).toBe('full');
  });
});

describe('a doorbell that is a pipe', () => {
  test('counts as rung when it is full, and is silenced bit by bit', () => {
    const { reader, writer } = createPipe();
    own(reader);
    own(writer);
    while (writeShort(writer, new Uint8Array(64)) === 'written');
    expect(ring(writer)).toBe(true);
    expect(drainEvent(reader)).toBe(true);
    expect(ring(writer)).toBe(true);
  });

  test('is given up by either side when the other is gone', () => {
    const one = createPipe();
    own(one.reader);
    own(one.writer).close();
    expect(drainEvent(one.reader)).toBe(false);
    const other = createPipe();
    own(other.writer);
    own(other.reader).close();
    expect(ring(other.writer)).toBe(false);
    expect(writeShort(other.writer, new Uint8Array(8))).toBe('gone');
  });

  test('gives what was rung before its writer went', () => {
    const { reader, writer } = createPipe();
    own(reader);
    own(writer);
    ring(writer);
    writer.close();
    expect(drainEvent(reader)).toBe(true);
    expect(drainEvent(reader)).toBe(false);
  });
});

describe('what is no doorbell', () => {
  test('is given up when it is silenced', () => {
    expect(drainEvent(own(createMemfd({ name: 'aerostat-test', size: 0 })))).toBe(false);
    expect(drainEvent(own(new OwnedFd(openSync('/', 'r'))))).toBe(false);
  });
});

describe('a short message', () => {
  test('goes whole', () => {
    const [near, far] = UnixSocket.pair();
    own(near.fd);
    own(far.fd);
    const message = Uint8Array.from({ length: SHORT_WRITE_BYTES_MAX }, (_, index) => index);
    expect(writeShort(near.fd, message)).toBe('written');
    const into = new Uint8Array(100);
    expect(far.receive(into)?.length).toBe(SHORT_WRITE_BYTES_MAX);
    expect(into.subarray(0, SHORT_WRITE_BYTES_MAX)).toEqual(message);
    while (writeShort(near.fd, message) === 'written');
    expect(writeShort(near.fd, message)).toBe('full');
    far.close();
    expect(writeShort(near.fd, message)).toBe('gone');
  });

  test('that is not short is a bug of ours', () => {
    const bell = own(createEventFd());
    expect(() => writeShort(bell, new Uint8Array(SHORT_WRITE_BYTES_MAX + 1))).toThrow(
      'a short message of 65',
    );
  });
});
