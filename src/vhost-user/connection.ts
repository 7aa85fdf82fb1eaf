/**
 * Framing: bytes and descriptors of one socket to whole messages and back, for either end. The header is read
 * by itself and then just its payload, so descriptors can never be credited to a message that they did not
 * come with. The only file of this room that touches a socket.
 */
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import type { UnixSocket } from '../sys/socket.ts';
import type { MessageJournal } from './message-journal.ts';
import {
  announcesFds,
  FLAG_VERSION,
  FLAG_VERSION_MASK,
  HEADER,
  PAYLOAD_BYTES_MAX,
  VhostUserError,
} from './protocol.ts';

export interface Message {
  readonly request: number;
  readonly flags: number;
  /** Valid until the next message is read. */
  readonly payload: DataView;
  /** The receiver's to keep or close. */
  readonly fds: readonly OwnedFd[];
}

/**
 * Bytes of replies that may wait for a peer that does not read. A well-behaved front-end waits for each
 * reply, so more than a few messages means that the peer floods us.
 */
const OUTGOING_BYTES_MAX = 64 * 1024;

export type ReceiveResult =
  | { readonly kind: 'message'; readonly message: Message }
  | { readonly kind: 'wait' }
  /** One is there, and stays there until its descriptors are kept. */
  | { readonly kind: 'unkept' }
  | { readonly kind: 'closed' };

const WAIT: ReceiveResult = { kind: 'wait' };
const UNKEPT: ReceiveResult = { kind: 'unkept' };
const CLOSED: ReceiveResult = { kind: 'closed' };

export class Connection {
  readonly #socket: UnixSocket;
  readonly #incoming = new Uint8Array(HEADER.size + PAYLOAD_BYTES_MAX);
  readonly #view = new DataView(this.#incoming.buffer);
  #filled = 0;
  #fds: OwnedFd[] = [];
  #outgoing: { bytes: Uint8Array; fds: readonly OwnedFd[]; readonly given: boolean }[] = [];
  #outgoingBytes = 0;

  readonly #journal: MessageJournal | undefined;

  /** Takes ownership of `socket`. With a `journal`, messages that come whole are taken over it. */
  constructor(socket: UnixSocket, journal?: MessageJournal) {
    this.#socket = socket;
    this.#journal = journal;
  }

  get fd(): OwnedFd {
    return this.#socket.fd;
  }

  /** Whether bytes wait for the socket to become writable. */
  get backlogged(): boolean {
    return this.#outgoing.length > 0;
  }

  /**
   * The next whole message, if it is there.
   * @throws VhostUserError (fatal) when the stream cannot be followed any more
   */
  receive(): ReceiveResult {
    const journaled = this.#filled === 0 && this.#journal !== undefined && this.#takeWhole(this.#journal);
    if (journaled) return journaled;
    for (;;) {
      const wanted = this.#wanted();
      if (this.#filled === wanted && this.#filled >= HEADER.size) return this.#take();
      const received = this.#socket.receive(this.#incoming.subarray(this.#filled, wanted));
      if (received === undefined) return WAIT;
      if (received.length === 0) {
        closeAll(received.fds);
        return CLOSED;
      }
      if (received.fds.length > 0 && this.#filled > 0) {
        closeAll(received.fds);
        throw new VhostUserError('descriptors came in the middle of a message', { fatal: true });
      }
      this.#fds.push(...received.fds);
      this.#filled += received.length;
    }
  }

  /** False when the message comes in parts: then it is in no journal, and a process that takes up what is there has none of it. */
  #takeWhole(journal: MessageJournal): ReceiveResult | false {
    const seen = this.#socket.peekLength(this.#incoming.subarray(0, HEADER.size));
    if (seen === undefined) return WAIT;
    if (seen === 0) return CLOSED;
    if (seen === HEADER.size) {
      const wanted = this.#announced();
      const there = this.#socket.peekLength(this.#incoming.subarray(0, wanted));
      if (there === wanted) {
        const { request, flags } = HEADER.read(this.#view);
        const body = new DataView(this.#incoming.buffer, HEADER.size, wanted - HEADER.size);
        const look = () =>
          announcesFds(request, body)
            ? (this.#socket.peek(this.#incoming.subarray(0, wanted))?.fds ?? [])
            : [];
        const taken = journal.take(this.#socket, wanted, look);
        return taken === undefined ? UNKEPT : { kind: 'message', message: { request, flags, ...taken } };
      }
    }
    journal.lose();
    return false;
  }

  /** Bytes that the message under way has in all, as far as they are known. */
  #wanted(): number {
    return this.#filled < HEADER.size ? HEADER.size : this.#announced();
  }

  #announced(): number {
    const { request, flags, size } = HEADER.read(this.#view);
    if ((flags & FLAG_VERSION_MASK) !== FLAG_VERSION) {
      throw new VhostUserError(
        `message ${request} has protocol version ${flags & FLAG_VERSION_MASK} instead of 1`,
        {
          fatal: true,
        },
      );
    }
    if (size > PAYLOAD_BYTES_MAX) {
      throw new VhostUserError(
        `message ${request} announces ${size} bytes; the limit is ${PAYLOAD_BYTES_MAX}`,
        {
          fatal: true,
        },
      );
    }
    return HEADER.size + size;
  }

  #take(): ReceiveResult {
    const { request, flags, size } = HEADER.read(this.#view);
    const fds = this.#fds;
    this.#fds = [];
    this.#filled = 0;
    const payload = new DataView(this.#incoming.buffer, HEADER.size, size);
    return { kind: 'message', message: { request, flags, payload, fds } };
  }

  /** Sends a message, or queues what the socket does not take now. `fds` are closed when it is sent, if they are `given`. */
  send(
    request: number,
    flags: number,
    payload: Uint8Array,
    fds: readonly OwnedFd[] = [],
    given = false,
  ): void {
    const bytes = frame(request, flags, payload);
    if (this.#outgoingBytes + bytes.length > OUTGOING_BYTES_MAX) {
      if (given) closeAll(fds);
      throw new VhostUserError('the peer does not read what it asked for', { fatal: true });
    }
    this.#outgoing.push({ bytes, fds, given });
    this.#outgoingBytes += bytes.length;
    this.flush();
  }

  /**
   * Sends the reply that the journal has, and closes `fds`, which go with it: one at most.
   * @throws VhostUserError (fatal) when the peer has left no room for it
   */
  sendJournaled(fds: readonly OwnedFd[] = []): void {
    try {
      if (this.#journal?.sendReply(this.#socket, fds[0]) === false) {
        throw new VhostUserError('the peer does not read what it asked for', { fatal: true });
      }
    } finally {
      closeAll(fds);
    }
  }

  /** Sends what waits, as far as the socket takes it. */
  flush(): void {
    while (this.#outgoing.length > 0) {
      const { bytes, fds, given } = this.#outgoing[0];
      const sent = this.#socket.send(bytes, fds);
      if (sent === 0) return;
      if (given) closeAll(fds);
      this.#outgoingBytes -= sent;
      if (sent === bytes.length) this.#outgoing.shift();
      else this.#outgoing[0] = { bytes: bytes.subarray(sent), fds: [], given: false };
    }
  }

  close(): void {
    this.#journal?.leave();
    closeAll(this.#fds);
    this.#fds = [];
    for (const { fds, given } of this.#outgoing) if (given) closeAll(fds);
    this.#outgoing = [];
    this.#socket.close();
  }
}

/** A message as it goes over the wire. */
export function frame(request: number, flags: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER.size + payload.length);
  HEADER.write(new DataView(bytes.buffer), 0, {
    request,
    flags: flags | FLAG_VERSION,
    size: payload.length,
  });
  bytes.set(payload, HEADER.size);
  return bytes;
}
