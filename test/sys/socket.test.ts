/** Unix sockets that carry descriptors. */
import { spawnSync } from 'node:child_process';
import { fstatSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { closeAll, createEventFd, createPipe, OwnedFd, openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { libc } from '../../src/sys/libc.ts';
import {
  DESCRIPTORS_MAX,
  isListening,
  TRANSFER_BYTES_MAX,
  UnixListener,
  UnixSocket,
} from '../../src/sys/socket.ts';
import { build } from '../cli/built.ts';

const F_GETFD = 1;
const FD_CLOEXEC = 1;

const directory = mkdtempSync(join(tmpdir(), 'aerostat-socket-'));
const owned: { close(): void }[] = [];
const own = <T extends { close(): void }>(closable: T): T => {
  owned.push(closable);
  return closable;
};
const pair = (): [UnixSocket, UnixSocket] => {
  const sockets = UnixSocket.pair();
  for (const socket of sockets) own(socket);
  return sockets;
};

afterEach(() => {
  for (const closable of owned.splice(0)) closable.close();
  expect(openDescriptorCount()).toBe(0);
});
afterAll(() => rmSync(directory, { recursive: true }));

const bytesOf = (length: number): Uint8Array => Uint8Array.from({ length }, (_, index) => (index * 7) & 0xff);
const inode = (fd: OwnedFd): number => fstatSync(fd.number).ino;

describe('a pair of sockets', () => {
  test('carries bytes both ways, and says when there are none yet', () => {
    const [a, b] = pair();
    const into = new Uint8Array(100);
    expect(b.receive(into)).toBeUndefined();
    expect(a.send(bytesOf(10))).toBe(10);
    expect(b.receive(into)).toEqual({ length: 10, fds: [] });
    expect(into.subarray(0, 10)).toEqual(bytesOf(10));
    expect(b.send(bytesOf(3))).toBe(3);
    expect(a.receive(into)?.length).toBe(3);
  });

  test('hands bytes out in as small parts as they are asked for', () => {
    const [a, b] = pair();
    a.send(bytesOf(100));
    const whole: number[] = [];
    const into = new Uint8Array(7);
    for (let received = b.receive(into); received !== undefined; received = b.receive(into)) {
      whole.push(...into.subarray(0, received.length));
    }
    expect(Uint8Array.from(whole)).toEqual(bytesOf(100));
  });

  test('takes as much as it has room for, then nothing, until the far end reads', () => {
    const [a, b] = pair();
    const large = bytesOf(3 * TRANSFER_BYTES_MAX);
    let sent = 0;
    for (let went = a.send(large); went > 0; went = a.send(large)) {
      expect(went).toBeLessThanOrEqual(TRANSFER_BYTES_MAX);
      sent += went;
    }
    const into = new Uint8Array(TRANSFER_BYTES_MAX * 2);
    let received = 0;
    for (let got = b.receive(into); got !== undefined; got = b.receive(into)) {
      expect(got.length).toBeLessThanOrEqual(TRANSFER_BYTES_MAX);
      received += got.length;
    }
    expect(received).toBe(sent);
    expect(a.send(large)).toBeGreaterThan(0);
  });

  test('ends with what was sent before the end, then length 0', () => {
    const [a, b] = pair();
    a.send(bytesOf(5));
    a.close();
    const into = new Uint8Array(100);
    expect(b.receive(into)?.length).toBe(5);
    expect(b.receive(into)).toEqual({ length: 0, fds: [] });
    expect(() => b.send(bytesOf(1))).toThrow('sendmsg failed with EPIPE');
  });

  test('that was reset with bytes unread ends like any other', () => {
    const [a, b] = pair();
    b.send(bytesOf(5));
    a.close();
    expect(b.receive(new Uint8Array(10))).toEqual({ length: 0, fds: [] });
  });
});

describe('descriptors', () => {
  test.each([1, 2, 8, DESCRIPTORS_MAX])('arrive %d at a time, in order, closed on exec', count => {
    const [a, b] = pair();
    const files = Array.from({ length: count }, () => own(createMemfd({ name: 'aerostat-test', size: 0 })));
    expect(a.send(bytesOf(4), files)).toBe(4);
    const received = b.receive(new Uint8Array(16));
    expect(received?.length).toBe(4);
    const fds = received?.fds ?? [];
    for (const fd of fds) own(fd);
    expect(fds.map(inode)).toEqual(files.map(inode));
    for (const fd of fds) expect(libc.fcntl(fd.number, F_GETFD, 0) & FD_CLOEXEC).toBe(FD_CLOEXEC);
    // They are copies: the sender's stay its own.
    expect(files.every(file => file.open)).toBe(true);
  });

  test('of more than a message may have are refused by the kernel', () => {
    const [a] = pair();
    const file = own(createEventFd());
    expect(() =>
      a.send(
        bytesOf(1),
        Array.from({ length: DESCRIPTORS_MAX + 1 }, () => file),
      ),
    ).toThrow('sendmsg');
  });

  test('ride on the first byte, though the payload is read in pieces', () => {
    const [a, b] = pair();
    const file = own(createEventFd());
    a.send(bytesOf(20), [file]);
    const into = new Uint8Array(8);
    const first = b.receive(into);
    expect([first?.length, first?.fds.length]).toEqual([8, 1]);
    closeAll(first?.fds ?? []);
    expect(b.receive(into)).toEqual({ length: 8, fds: [] });
    expect(b.receive(into)).toEqual({ length: 4, fds: [] });
  });

  test('of two messages are not mixed: reading stops before the second’s', () => {
    const [a, b] = pair();
    const [one, two] = [own(createEventFd()), own(createMemfd({ name: 'aerostat-test', size: 0 }))];
    a.send(bytesOf(4), [one]);
    a.send(bytesOf(6), [two]);
    const into = new Uint8Array(64);
    const first = b.receive(into);
    const second = b.receive(into);
    expect([first?.length, second?.length]).toEqual([4, 6]);
    expect(second?.fds.map(inode)).toEqual([inode(two)]);
    closeAll([...(first?.fds ?? []), ...(second?.fds ?? [])]);
  });

  test('do not go when no byte went', () => {
    const [a, b] = pair();
    while (a.send(bytesOf(TRANSFER_BYTES_MAX)) > 0);
    const { reader, writer } = createPipe();
    expect(a.send(bytesOf(10), [writer])).toBe(0);
    writer.close();
    // No descriptor of the writing end is left, or this would say that nothing is there yet.
    expect(libc.read(own(reader).number, 0, 0)).toBe(0);
    b.close();
  });

  describe('that the process has no room for', () => {
    beforeAll(build);

    test('are told as lost, and those that came are closed', () => {
      const script = `
        import { readdirSync } from 'node:fs';
        import { createEventFd, openDescriptorCount, closeAll } from './dist/sys/fd.js';
        import { UnixSocket } from './dist/sys/socket.js';
        const [a, b] = UnixSocket.pair();
        const file = createEventFd();
        a.send(new Uint8Array(4), Array.from({ length: 100 }, () => file));
        // Nearly all numbers are taken.
        const taken = [];
        try { for (;;) taken.push(createEventFd()); } catch {}
        closeAll(taken.splice(0, 10));
        const before = openDescriptorCount();
        let code = 'none';
        try { b.receive(new Uint8Array(16)); } catch (error) { code = error.code; }
        console.log(code, openDescriptorCount() - before);
        closeAll(taken);`;
      const { stdout, stderr } = spawnSync(
        'sh',
        ['-c', 'ulimit -n 256 && exec "$0" --input-type=module -e "$1"', process.execPath, script],
        { encoding: 'utf8', cwd: new URL('../..', import.meta.url).pathname },
      );
      expect(stderr).toBe('');
      expect(stdout.trim()).toBe('AEROSTAT_DESCRIPTORS_LOST 0');
    });
  });
});

describe('a listener', () => {
  let socketNumber = 0;
  const freshPath = (): string => join(directory, `s${socketNumber++}`);

  test('accepts connections in turn, and says when none waits', () => {
    const path = freshPath();
    const listener = own(UnixListener.bind(path));
    expect(isListening(listener.fd)).toBe(true);
    expect(listener.accept()).toBeUndefined();
    const clients = [own(UnixSocket.connect(path)), own(UnixSocket.connect(path))];
    clients.forEach((client, index) => {
      client.send(Uint8Array.of(index));
    });
    for (const index of [0, 1]) {
      const served = own(listener.accept() as UnixSocket);
      expect(isListening(served.fd)).toBe(false);
      const into = new Uint8Array(4);
      served.receive(into);
      expect(into[0]).toBe(index);
    }
    expect(listener.accept()).toBeUndefined();
  });

  test('may be handed over as a descriptor', () => {
    const path = freshPath();
    const number = UnixListener.bind(path).fd.release();
    const listener = own(new UnixListener(new OwnedFd(number)));
    own(UnixSocket.connect(path));
    expect(own(listener.accept() as UnixSocket).fd.open).toBe(true);
  });

  test('says what is wrong with a path', () => {
    const path = freshPath();
    expect(() => UnixSocket.connect(path)).toThrow(`connect failed with ENOENT: ${path}`);
    UnixListener.bind(path).close();
    expect(() => UnixSocket.connect(path)).toThrow('ECONNREFUSED');
    expect(() => UnixListener.bind(path)).toThrow('bind failed with EADDRINUSE');
    const long = `/tmp/${'x'.repeat(120)}`;
    const tooLong = expect.objectContaining({ code: 'AEROSTAT_SOCKET_PATH' });
    expect(() => UnixListener.bind(long)).toThrow(tooLong);
    expect(() => UnixSocket.connect(long)).toThrow(tooLong);
  });

  test('takes a path of 107 bytes, and not one more', () => {
    const base = `${directory}/`;
    const longest = base + 'y'.repeat(107 - base.length);
    const listener = own(UnixListener.bind(longest));
    own(UnixSocket.connect(longest));
    own(listener.accept() as UnixSocket);
    expect(() => UnixListener.bind(`${longest}y`)).toThrow('108 bytes');
  });

  test('that is no socket is told', () => {
    const file = own(new OwnedFd(openSync('/dev/null', 'r')));
    expect(() => isListening(file)).toThrow('getsockopt failed with ENOTSOCK');
    const wrong = new UnixListener(own(createEventFd()));
    expect(() => wrong.accept()).toThrow('accept4 failed with ENOTSOCK');
    const socket = new UnixSocket(own(createEventFd()));
    expect(() => socket.send(bytesOf(1))).toThrow('sendmsg failed with ENOTSOCK');
    expect(() => socket.receive(new Uint8Array(1))).toThrow('recvmsg failed with ENOTSOCK');
  });
});
