import { openSync } from 'node:fs';
import { createServer } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { descriptorKind, fileSystemType } from '../../src/sys/descriptor-kind.ts';
import { closeAll, createEventFd, createPipe, OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { UnixSocket } from '../../src/sys/socket.ts';

const open: OwnedFd[] = [];
const own = (fd: OwnedFd): OwnedFd => {
  open.push(fd);
  return fd;
};
afterEach(() => closeAll(open.splice(0)));

describe('what a descriptor is', () => {
  test.each<[string, () => OwnedFd]>([
    ['eventfd', createEventFd],
    ['pipe', () => createPipe().writer],
    ['unix-socket', () => UnixSocket.pair()[0].fd],
    ['memory', () => createMemfd({ name: 'anon_inode:[eventfd]', size: 4096 })],
    ['path', () => new OwnedFd(openSync('/dev/null', 'r'))],
    ['path', () => new OwnedFd(openSync('/', 'r'))],
    ['path', () => new OwnedFd(openSync('/proc/self/exe', 'r'))],
  ])('is told: %s', (kind, make) => {
    expect(descriptorKind(own(make()))).toBe(kind);
  });

  test('is other for sockets that are not Unix’s, whose locks their peers hold', async () => {
    const server = createServer();
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const { _handle: handle } = server as unknown as { _handle: { fd: number } };
    expect(descriptorKind({ number: handle.fd })).toBe('other');
    server.close();
  });

  test('has the file system’s type where its mount is known', () => {
    expect(fileSystemType(own(new OwnedFd(openSync('/proc/self/status', 'r'))))).toBe('proc');
    expect(fileSystemType(own(createEventFd()))).toBeUndefined();
  });
});
