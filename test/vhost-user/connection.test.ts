import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeAll, createEventFd } from '../../src/sys/fd.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { Connection, type ReceiveResult } from '../../src/vhost-user/connection.ts';
import {
  FLAG_NEED_REPLY,
  FLAG_VERSION,
  HEADER,
  PAYLOAD_BYTES_MAX,
  VhostUserError,
} from '../../src/vhost-user/protocol.ts';
import { openDescriptors } from '../support/descriptors.ts';

/** A message's bytes; the header says what it is told to say. */
function bytesOf(
  request: number,
  payload: Uint8Array,
  flags = FLAG_VERSION,
  size = payload.length,
): Uint8Array {
  const bytes = new Uint8Array(HEADER.size + payload.length);
  bytes.set(HEADER.encode({ request, flags, size }));
  bytes.set(payload, HEADER.size);
  return bytes;
}

const payload = Uint8Array.from({ length: 40 }, (_, i) => i + 1);

function messageOf(result: ReceiveResult) {
  if (result.kind !== 'message') throw new Error(`no message but ${result.kind}`);
  return result.message;
}

function fatalOf(use: () => unknown): VhostUserError {
  try {
    use();
  } catch (error) {
    if (error instanceof VhostUserError && error.fatal) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('a connection', () => {
  let before: unknown;
  let connection: Connection;
  let peer: UnixSocket;

  beforeEach(() => {
    before = openDescriptors();
    const [ours, theirs] = UnixSocket.pair();
    connection = new Connection(ours);
    peer = theirs;
  });

  afterEach(() => {
    connection.close();
    peer.close();
    expect(openDescriptors()).toEqual(before);
  });

  it('waits while nothing is there, and sees the end', () => {
    expect(connection.receive().kind).toBe('wait');
    peer.close();
    expect(connection.receive().kind).toBe('closed');
  });

  it('puts a message together that is split at any byte', () => {
    const bytes = bytesOf(18, payload, FLAG_VERSION | FLAG_NEED_REPLY);
    for (let cut = 1; cut < bytes.length; cut++) {
      const fd = createEventFd();
      peer.send(bytes.subarray(0, cut), [fd]);
      fd.close();
      expect(connection.receive().kind).toBe('wait');
      peer.send(bytes.subarray(cut));
      const message = messageOf(connection.receive());
      expect(message.request).toBe(18);
      expect(message.flags).toBe(FLAG_VERSION | FLAG_NEED_REPLY);
      expect(message.fds.length).toBe(1);
      const { buffer, byteOffset, byteLength } = message.payload;
      expect(new Uint8Array(buffer, byteOffset, byteLength)).toEqual(payload);
      closeAll(message.fds);
    }
  });

  it('gives each of several messages its own descriptors', () => {
    for (const count of [2, 0, 1]) {
      const fds = Array.from({ length: count }, createEventFd);
      peer.send(bytesOf(count, new Uint8Array(count)), fds);
      closeAll(fds);
    }
    for (const count of [2, 0, 1]) {
      const message = messageOf(connection.receive());
      expect([message.request, message.payload.byteLength, message.fds.length]).toEqual([
        count,
        count,
        count,
      ]);
      closeAll(message.fds);
    }
    expect(connection.receive().kind).toBe('wait');
  });

  it.each([
    ['in the header', 5],
    ['in the payload', HEADER.size + 3],
  ])('ends when descriptors come in the middle of a message, %s', (_, cut) => {
    const bytes = bytesOf(5, payload);
    const fds = [createEventFd(), createEventFd()];
    peer.send(bytes.subarray(0, cut), [fds[0]]);
    peer.send(bytes.subarray(cut), [fds[1]]);
    closeAll(fds);
    expect(fatalOf(() => connection.receive()).message).toMatch(/middle/);
  });

  it('ends at another protocol version, before it reads on', () => {
    for (const version of [0, 2, 3]) {
      const [ours, theirs] = UnixSocket.pair();
      const other = new Connection(ours);
      theirs.send(bytesOf(1, new Uint8Array(0), version));
      expect(fatalOf(() => other.receive()).message).toMatch(`version ${version}`);
      other.close();
      theirs.close();
    }
  });

  it('ends when 5000 bytes of payload are announced, and takes the longest that is permitted', () => {
    peer.send(bytesOf(1, new Uint8Array(PAYLOAD_BYTES_MAX)));
    expect(messageOf(connection.receive()).payload.byteLength).toBe(PAYLOAD_BYTES_MAX);
    peer.send(bytesOf(1, new Uint8Array(0), FLAG_VERSION, 5000));
    expect(fatalOf(() => connection.receive()).message).toMatch('5000');
  });

  it('closes the descriptors of a message that never became whole', () => {
    const fd = createEventFd();
    peer.send(bytesOf(5, payload).subarray(0, 20), [fd]);
    fd.close();
    expect(connection.receive().kind).toBe('wait');
    peer.close();
    expect(connection.receive().kind).toBe('closed');
  });

  it('ends with a peer that never reads, after a bounded amount of memory', () => {
    const error = fatalOf(() => {
      for (let index = 0; index < 100_000; index++) connection.send(1, 0, new Uint8Array(1000));
    });
    expect(error.message).toMatch(/does not read/);
    expect(connection.backlogged).toBe(true);
  });

  it('goes on in the middle of a message when the socket takes it in pieces', () => {
    let sent = 0;
    while (!connection.backlogged) connection.send(sent++, 0, new Uint8Array(3000).fill(sent));
    const receiver = new Connection(peer);
    for (let taken = 0; taken < sent; ) {
      const result = receiver.receive();
      connection.flush();
      if (result.kind !== 'message') continue;
      expect(result.message.request).toBe(taken++);
      expect(result.message.payload.getUint8(2999)).toBe(taken & 0xff);
    }
    expect(connection.backlogged).toBe(false);
  });
});
