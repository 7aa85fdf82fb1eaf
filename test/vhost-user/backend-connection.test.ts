/** A device on a socket: what passes between the session and the outside, and how it ends. */
import { describe, expect, it, vi } from 'vitest';
import { createEventFd, createPipe, writeShort } from '../../src/sys/fd.ts';
import { Shed } from '../../src/sys/shed.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { BackendConnection } from '../../src/vhost-user/backend-connection.ts';
import {
  FLAG_VERSION,
  FRONTEND_REQUEST,
  type FrontendRequest,
  HEADER,
  VhostUserError,
} from '../../src/vhost-user/protocol.ts';
import { VERSION_1 } from '../../src/virtio/features.ts';
import { payloads } from './conversation.ts';
import { type Joined, joins } from './joined.ts';

const join = joins();

function bytesOf(name: FrontendRequest, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(HEADER.size + payload.length);
  bytes.set(HEADER.encode({ request: FRONTEND_REQUEST[name], flags: FLAG_VERSION, size: payload.length }));
  bytes.set(payload, HEADER.size);
  return bytes;
}

/** Sends all of `bytes`, or as much as the socket takes. */
const sendAll = (socket: UnixSocket, bytes: Uint8Array): boolean => socket.send(bytes) === bytes.length;

async function ended(joined: Joined): Promise<Error | undefined> {
  await joined.loop.turnUntil(() => joined.ends.length === 1);
  return joined.ends[0];
}

describe('a back-end on a socket', () => {
  it('ends when its front-end leaves, at any byte of a message', async () => {
    const message = bytesOf('SET_VRING_KICK', payloads.u64(0));
    for (let cut = 0; cut <= message.length; cut++) {
      const joined = join();
      const socket = joined.serve();
      const fd = createEventFd();
      if (cut > 0) socket.send(message.subarray(0, cut), [fd]);
      fd.close();
      socket.close();
      expect(await ended(joined)).toBeUndefined();
      expect(joined.device.takeCalls()).toEqual(['reset']);
    }
  });

  it('ends with a front-end that asks and never reads', async () => {
    const joined = join();
    const socket = joined.serve();
    const question = bytesOf('GET_CONFIG', payloads.config(0, 256));
    for (let asked = 0; joined.ends.length === 0 && asked < 100_000; asked++) {
      while (joined.ends.length === 0 && sendAll(socket, question));
      await joined.loop.settle(1);
    }
    const error = await ended(joined);
    expect(error).toBeInstanceOf(VhostUserError);
    expect(error?.message).toMatch('does not read');
    socket.close();
  });

  it('ends with a stream that cannot be followed', async () => {
    const joined = join();
    const socket = joined.serve();
    socket.send(HEADER.encode({ request: 1, flags: 2, size: 0 }));
    expect((await ended(joined))?.message).toMatch('version 2');
    socket.close();
  });

  // The bound of one more, or of one less, fails it. How many are under way is said here; that they are counted is
  // silent-files.test.ts's.
  it('ends with a front-end of whose descriptors more than 1024 are not closed yet', async () => {
    const unfinished = vi.spyOn(Shed.prototype, 'unfinished', 'get');
    try {
      const joined = join();
      const socket = joined.serve();
      unfinished.mockReturnValue(1024);
      socket.send(bytesOf('SET_OWNER'));
      await joined.loop.settle();
      expect(joined.ends).toEqual([]);
      unfinished.mockReturnValue(1025);
      socket.send(bytesOf('SET_OWNER'));
      const error = await ended(joined);
      expect(error).toBeInstanceOf(VhostUserError);
      expect(error?.message).toMatch('cannot be closed as fast as it sends them');
      socket.close();
    } finally {
      unfinished.mockRestore();
    }
  });

  it('ends with a bug of ours, and lets go of everything', async () => {
    const joined = join();
    const frontend = await joined.connect();
    await joined.start(frontend, VERSION_1, 2);
    joined.device.readConfig = () => {
      throw new TypeError('a bug');
    };
    await expect(joined.loop.until(frontend.readConfig(0, 4))).rejects.toThrow('closed the connection');
    expect(await ended(joined)).toBeInstanceOf(TypeError);
    expect(joined.device.running.size).toBe(0);
  });

  it('serves many messages that wait, and none after it was closed', async () => {
    const joined = join();
    const socket = joined.serve();
    for (let index = 0; index < 100; index++) sendAll(socket, bytesOf('SET_OWNER'));
    sendAll(socket, bytesOf('RESET_DEVICE'));
    await joined.loop.turnUntil(() => joined.device.calls.length === 1);
    sendAll(socket, bytesOf('RESET_DEVICE'));
    joined.backend?.close();
    joined.backend?.close();
    await joined.loop.settle();
    // One reset was asked for; the other is the end.
    expect(joined.device.takeCalls()).toEqual(['reset', 'reset']);
    expect(joined.ends).toEqual([]);
    socket.close();
  });

  it('sends what waits for the front-end when that reads again', async () => {
    const joined = join();
    const socket = joined.serve();
    const question = bytesOf('GET_CONFIG', payloads.config(0, 256));
    let asked = 0;
    // More replies than a socket's buffer takes, fewer than are too many.
    while (asked < 320 && sendAll(socket, question)) {
      asked++;
      await joined.loop.settle(1);
    }
    let bytes = 0;
    const into = new Uint8Array(65536);
    while (bytes < asked * (HEADER.size + 12 + 256)) {
      const received = socket.receive(into);
      if (received === undefined) await joined.loop.settle(1);
      else bytes += received.length;
    }
    expect(joined.ends).toEqual([]);
    socket.close();
  });

  it('says that the configuration changed, through a pipe too, also when that is full', async () => {
    const joined = join();
    const [ours, theirs] = UnixSocket.pair();
    const backend = new BackendConnection(theirs, joined.device, { reactor: joined.loop.reactor });
    expect(backend.configChanged()).toBe(false);
    const { reader, writer } = createPipe();
    ours.send(bytesOf('SET_BACKEND_REQ_FD'), [writer]);
    await joined.loop.settle();
    expect(backend.configChanged()).toBe(true);
    while (writeShort(writer, new Uint8Array(64)) === 'written');
    expect(backend.configChanged()).toBe(true);
    reader.close();
    // Pipes are written by threads of the C library: what became of one message is known when the next is sent.
    await joined.loop.turnUntil(() => !backend.configChanged());
    writer.close();
    ours.send(HEADER.encode({ request: 99, flags: FLAG_VERSION, size: 0 }));
    ours.close();
    await joined.loop.settle();
    expect(backend.session.memory.regions).toEqual([]);
  });
});
