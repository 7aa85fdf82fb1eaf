import { existsSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openGuestSocket } from '../../src/hosting/guest-socket.ts';
import type { GuestOptions } from '../../src/hosting/options.ts';
import { createEventFd, OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { UnixListener, UnixSocket } from '../../src/sys/socket.ts';

let directory: string;
let path: string;
let openBefore: number;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  path = join(directory, 'guest.sock');
  openBefore = openDescriptorCount();
});

afterEach(() => {
  rmSync(directory, { recursive: true });
  expect(openDescriptorCount()).toBe(openBefore);
});

const options = (place: { socketPath?: string; fd?: number }): GuestOptions => ({
  ...place,
  name: 'guest',
  targetBytes: 0,
  profile: 'virtio',
  discard: 'auto',
  without: [],
  pollIntervalMs: 0,
});

/** Opens it as a listener that the test closes. */
function listen(at = path): UnixListener {
  const { fd, listening } = openGuestSocket(options({ socketPath: at }));
  expect(listening).toBe(true);
  return new UnixListener(new OwnedFd(fd));
}

test('a path where nothing is gets a socket that listens', () => {
  const listener = listen();
  expect(statSync(path).isSocket()).toBe(true);
  const client = UnixSocket.connect(path);
  listener.accept()?.close();
  client.close();
  listener.close();
});

test('a socket that no daemon serves any more is replaced', () => {
  listen().close();
  expect(() => UnixSocket.connect(path)).toThrow(/ECONNREFUSED/);
  const listener = listen();
  UnixSocket.connect(path).close();
  listener.close();
});

test('a path in a folder that is not there is refused with the folder, not with a system call', () => {
  expect(() => listen(join(directory, 'none', 'guest.sock'))).toThrow(
    /^no socket can be made at .*guest\.sock: there is no folder .*none; make it or choose another path$/,
  );
});

test('a socket that a daemon serves is refused, and stays', () => {
  const listener = listen();
  expect(() => listen()).toThrow(expect.objectContaining({ code: 'AEROSTAT_SOCKET_IN_USE' }));
  UnixSocket.connect(path).close();
  listener.close();
});

test('so is one whose backlog is full', () => {
  const listener = listen();
  const waiting: UnixSocket[] = [];
  try {
    for (;;) waiting.push(UnixSocket.connect(path));
  } catch {
    // Full: the next one would have to wait.
  }
  expect(waiting.length).toBeGreaterThan(0);
  expect(() => listen()).toThrow(expect.objectContaining({ code: 'AEROSTAT_SOCKET_IN_USE' }));
  for (const socket of waiting) socket.close();
  listener.close();
});

test('what is no socket is refused and left alone, a link to nowhere included', () => {
  writeFileSync(path, 'mine');
  expect(() => listen()).toThrow(expect.objectContaining({ code: 'AEROSTAT_SOCKET_PATH' }));
  expect(existsSync(path)).toBe(true);
  const link = join(directory, 'link');
  symlinkSync(join(directory, 'nowhere'), link);
  expect(() => listen(link)).toThrow(expect.objectContaining({ code: 'AEROSTAT_SOCKET_PATH' }));
  expect(() => listen(join(directory, 'x'.repeat(120)))).toThrow(/shorter/);
});

test('an inherited descriptor is taken as what it is', () => {
  const [ours, theirs] = UnixSocket.pair();
  const connected = theirs.fd.release();
  expect(openGuestSocket(options({ fd: connected }))).toEqual({ listening: false, fd: connected });
  new OwnedFd(connected).close();
  ours.close();

  const listening = UnixListener.bind(path).fd.release();
  expect(openGuestSocket(options({ fd: listening }))).toEqual({ listening: true, fd: listening });
  new OwnedFd(listening).close();
});

test('a descriptor that is no socket is refused by its number', () => {
  const doorbell = createEventFd();
  const { number } = doorbell;
  expect(() => openGuestSocket(options({ fd: doorbell.release() }))).toThrow(
    expect.objectContaining({
      code: 'AEROSTAT_SOCKET',
      message: expect.stringContaining(`descriptor ${number} `),
    }),
  );
  new OwnedFd(number).close();
  expect(() => openGuestSocket(options({ fd: 9999 }))).toThrow(/descriptor 9999 is no socket \(EBADF\)/);
});
