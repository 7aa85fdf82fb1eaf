/**
 * Fuzz targets of the vhost-user room: arbitrary bytes as a peer would have sent them, cut anywhere, with descriptors
 * of every kind. They throw only if a promise is broken: an error that is not the typed one, a descriptor left open,
 * a reply of a shape that the protocol does not have, or a device that is told the impossible.
 */
import { openSync } from 'node:fs';
import type { MemoryRegion } from '../src/memory/guest-memory.ts';
import { assert } from '../src/sys/error.ts';
import { closeAll, createEventFd, createPipe, OwnedFd, openDescriptorCount } from '../src/sys/fd.ts';
import { createMemfd } from '../src/sys/file.ts';
import { UnixSocket } from '../src/sys/socket.ts';
import { BackendSession } from '../src/vhost-user/backend-session.ts';
import { Connection } from '../src/vhost-user/connection.ts';
import {
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FLAG_VERSION,
  HEADER,
  PAYLOAD_BYTES_MAX,
  REPLY_SHAPES,
  REQUEST_SHAPES,
  requestName,
  VhostUserError,
} from '../src/vhost-user/protocol.ts';
import type { VirtioDevice } from '../src/virtio/device.ts';
import { RING_FEATURES, VERSION_1 } from '../src/virtio/features.ts';

const MEMORY_BYTES = 2 ** 20;
const RINGS = 3;
/** A kick would need a loop; the session only has to be able to watch it. */
const reactor = { watch: () => ({ wantWrite: false, stop() {} }) };

/** Every kind of descriptor that a peer may think of, by a number. */
const DESCRIPTOR_KINDS: readonly (() => OwnedFd)[] = [
  createEventFd,
  () => createMemfd({ name: 'aerostat-fuzz', size: MEMORY_BYTES }),
  () => createMemfd({ name: 'aerostat-fuzz', size: 4096 }),
  () => new OwnedFd(openSync('/dev/null', 'r+')),
  () => {
    const { reader, writer } = createPipe();
    writer.close();
    return reader;
  },
];

/** Checks that what the device is told makes sense: rings start and stop in turns, regions come before they go. */
class CheckingDevice implements VirtioDevice {
  readonly features = VERSION_1 | RING_FEATURES;
  readonly queueCount = RINGS;
  readonly #running = new Set<number>();
  readonly #suspended = new Set<number>();
  readonly #regions = new Set<MemoryRegion>();

  setFeatures(features: bigint): void {
    assert((features & ~this.features) === 0n, 'features were taken that the device has not');
    assert(this.#running.size === 0, 'features changed under a running ring');
  }

  readConfig(_offset: number, into: Uint8Array): void {
    into.fill(0);
  }

  writeConfig(): void {}

  regionAdded(region: MemoryRegion): void {
    assert(!this.#regions.has(region), 'a region came twice');
    this.#regions.add(region);
  }

  regionRemoved(region: MemoryRegion, letGo: () => void): void {
    assert(this.#regions.delete(region), 'a region went that never came');
    letGo();
  }

  startQueue(index: number): void {
    assert(index < RINGS && !this.#running.has(index), `ring ${index} started while it ran`);
    this.#running.add(index);
  }

  suspendQueue(index: number): void {
    assert(this.#running.has(index) && !this.#suspended.has(index), `ring ${index} was suspended at rest`);
    this.#suspended.add(index);
  }

  resumeQueue(index: number): void {
    assert(this.#suspended.delete(index), `ring ${index} was resumed, which was not suspended`);
  }

  stopQueue(index: number): void {
    this.#suspended.delete(index);
    assert(this.#running.delete(index), `ring ${index} stopped while it did not run`);
  }

  serveQueue(index: number): void {
    const serves = this.#running.has(index) && !this.#suspended.has(index);
    assert(serves, `ring ${index} was served while it did not run`);
  }

  reset(): void {
    assert(this.#running.size === 0, 'a reset came while rings ran');
  }

  /** After the conversation. */
  checkForgotten(): void {
    assert(this.#running.size === 0 && this.#regions.size === 0, 'the device was left with rings or memory');
  }
}

function withSession(use: (session: BackendSession) => void): void {
  const before = openDescriptorCount();
  const device = new CheckingDevice();
  let channel: OwnedFd | undefined;
  const session = new BackendSession(device, {
    reactor,
    refused: () => {},
    backendChannel(fd) {
      channel?.close();
      channel = fd;
    },
  });
  try {
    use(session);
  } finally {
    session.close();
  }
  device.checkForgotten();
  assert(openDescriptorCount() === before, `${openDescriptorCount() - before} descriptors were left open`);
}

function serve(
  session: BackendSession,
  request: number,
  flags: number,
  payload: Uint8Array,
  fds: readonly OwnedFd[],
): void {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const reply = session.serve({ request, flags, payload: view, fds });
  if (reply === undefined) return;
  const name = requestName(request);
  const shape = name !== undefined && name in REPLY_SHAPES ? REPLY_SHAPES[name as 'GET_CONFIG'] : undefined;
  const { length } = reply.payload;
  const right =
    shape === undefined ? length === 8 : shape.exact ? length === shape.size : length >= shape.size;
  // A refused request that asked for an acknowledgement gets that, whatever its own reply would have been.
  assert(right || length === 8, `${name} was answered with ${length} bytes`);
}

/** Requests that there are, and a few that there are not. */
const REQUESTS_MAX = 45;

/** Bits of the byte that chooses how a message is. */
const NEEDS_REPLY = 1;
const IS_REPLY = 2;
/** Two bits: how many descriptors come along. */
const DESCRIPTORS_SHIFT = 2;
const WRONG_LENGTH = 0x10;
/** Only every fourth byte counts, so that indices and sizes are small and often right. */
const SMALL_NUMBERS = 0x20;
const KIND_SHIFT = 6;

/** Messages one after another: a byte for the request, one for how it is, and the payload that it wants. */
function session(bytes: Uint8Array): void {
  withSession(to => {
    for (let at = 0; at + 2 <= bytes.length; ) {
      const request = bytes[at] % REQUESTS_MAX;
      const how = bytes[at + 1];
      const name = requestName(request);
      const wanted = name === undefined ? 0 : (REQUEST_SHAPES[name]?.size ?? 0);
      const payload = new Uint8Array(wanted + ((how & WRONG_LENGTH) === 0 ? 0 : 1 + (bytes[at] >> 3)));
      payload.set(bytes.subarray(at + 2, Math.min(at + 2 + payload.length, bytes.length)));
      at += 2 + payload.length;
      if ((how & SMALL_NUMBERS) !== 0) {
        for (let byte = 0; byte < payload.length; byte++) if ((byte & 3) !== 0) payload[byte] = 0;
      }
      const kind = DESCRIPTOR_KINDS[((how >> KIND_SHIFT) + payload.length) % DESCRIPTOR_KINDS.length];
      const fds = Array.from({ length: (how >> DESCRIPTORS_SHIFT) & 3 }, kind);
      let flags = FLAG_VERSION;
      if ((how & NEEDS_REPLY) !== 0) flags |= FLAG_NEED_REPLY;
      if ((how & (IS_REPLY | WRONG_LENGTH)) === (IS_REPLY | WRONG_LENGTH)) flags |= FLAG_REPLY;
      serve(to, request, flags, payload, fds);
    }
  });
}

/** One piece of a stream, and what comes with it. */
interface Piece {
  readonly bytes: Uint8Array;
  readonly fds: number;
}

function streamOf(pieces: Iterable<Piece>): void {
  withSession(to => {
    const [ours, theirs] = UnixSocket.pair();
    const connection = new Connection(ours);
    try {
      for (const { bytes, fds: count } of pieces) {
        const fds = Array.from({ length: count }, createEventFd);
        theirs.send(bytes, fds);
        closeAll(fds);
        receiveAll(connection, to);
      }
      theirs.close();
      receiveAll(connection, to);
    } catch (error) {
      if (!(error instanceof VhostUserError && error.fatal)) throw error;
    } finally {
      connection.close();
      theirs.close();
    }
  });
}

/** Bytes as they are, cut into pieces as long as the byte before each says; odd pieces bring a descriptor. */
function stream(bytes: Uint8Array): void {
  const pieces: Piece[] = [];
  for (let at = 0; at + 1 < bytes.length; ) {
    const length = Math.max(1, bytes[at]);
    pieces.push({ bytes: bytes.subarray(at + 1, at + 1 + length), fds: length & 1 });
    at += 1 + length;
  }
  streamOf(pieces);
}

/**
 * Well-formed messages, so that they get as far as the body: a byte for the request, one for the size, one for where
 * the message is cut in two; now and then descriptors come with the wrong half.
 */
function framed(bytes: Uint8Array): void {
  const pieces: Piece[] = [];
  for (let at = 0; at + 3 <= bytes.length; ) {
    const [request, size, cut] = bytes.subarray(at, at + 3);
    const message = new Uint8Array(HEADER.size + size);
    message.set(HEADER.encode({ request: request % REQUESTS_MAX, flags: FLAG_VERSION, size }));
    message.set(bytes.subarray(at + 3, at + 3 + size), HEADER.size);
    at += 3 + size;
    const head = 1 + (cut % (message.length - 1));
    pieces.push({ bytes: message.subarray(0, head), fds: cut & 1 });
    pieces.push({ bytes: message.subarray(head), fds: cut > 250 ? 1 : 0 });
  }
  streamOf(pieces);
}

function receiveAll(connection: Connection, to: BackendSession): void {
  for (;;) {
    const received = connection.receive();
    if (received.kind !== 'message') return;
    const { request, flags, payload, fds } = received.message;
    assert(payload.byteLength <= PAYLOAD_BYTES_MAX, 'a message is longer than any may be');
    serve(to, request, flags, new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength), fds);
  }
}

export const targets: Record<string, (bytes: Uint8Array) => void> = {
  'vhost-user-session': session,
  'vhost-user-stream': stream,
  'vhost-user-framed': framed,
};
