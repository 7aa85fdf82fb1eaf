/**
 * A TCP connection, plain or under TLS, as a migration's {@link ByteChannel}:
 *
 *     const channel = new TcpChannel(await connectTcp({ address }));
 *     const link = new SourceLink({ channel, … });
 *
 * {@link TcpChannel.hold} pauses reading (back-pressure). Where the connection comes from and who may
 * have one is not here.
 */
import type { Socket } from 'node:net';
import type { ByteChannel, ByteTaker } from '../migration/byte-channel.ts';
import { lostError, TransferError } from './errors.ts';

/** Whether a socket was made with {@link readingInto}, and where its bytes go. */
const reads = new WeakMap<Socket, DirectReads>();

/** Bytes read while there is no taker; a small buffer, so that a stranger costs little. */
const UNWANTED_BYTES = 2 ** 14;
/**
 * A closed connection reads on for so long: to close it with bytes unread would be a reset, which may overtake the last
 * words that we wrote.
 */
const LINGER_MS = 3000;
/** After so many bytes that the kernel took at once, others have their turn: answers, messages, timers. */
const TURN_BYTES = 2 ** 20;

/** Node reads with one system call into what `space` gives, with nothing in between. */
class DirectReads {
  readonly #unwanted = new Uint8Array(UNWANTED_BYTES);
  space: () => Uint8Array = () => this.#unwanted;
  filled: (bytes: Uint8Array) => boolean = () => true;

  next(): Uint8Array {
    const space = this.space();
    return space.length > 0 ? space : this.#unwanted;
  }
}

/** A socket made by `make` with these options reads into the memory of the taker of its bytes. */
export function readingInto(
  make: (onread: {
    buffer: () => Uint8Array;
    callback: (count: number, bytes: Uint8Array) => boolean;
  }) => Socket,
): Socket {
  const direct = new DirectReads();
  const socket = make({
    buffer: () => direct.next(),
    callback: (count, bytes) => direct.filled(bytes.subarray(0, count)),
  });
  reads.set(socket, direct);
  return socket;
}

export class TcpChannel implements ByteChannel {
  readonly #socket: Socket;
  #taker: ByteTaker | undefined;
  #held = false;
  /** What came while {@link #held}. */
  #rest: Uint8Array | undefined;
  #error: Error | undefined;
  #closing = false;
  #closed = false;
  #unturnedBytes = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('error', error => {
      this.#error ??= lostError(error);
    });
    socket.once('end', () => this.#tellClosed(undefined));
    socket.once('close', () => {
      this.#tellClosed(this.#error ?? new TransferError('the connection was cut'));
    });
  }

  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      let returned = false;
      this.#socket.write(bytes, error => {
        if (error != null) reject(this.#error ?? lostError(error));
        else if (returned || !this.#turnDue(bytes.length)) resolve();
        else setImmediate(resolve);
      });
      returned = true;
    });
  }

  listen(taker: ByteTaker): void {
    this.#taker = taker;
    const direct = reads.get(this.#socket);
    if (direct === undefined) {
      this.#socket.on('data', (bytes: Uint8Array) => this.#take(bytes));
    } else {
      direct.space = () => this.#taker?.direct?.space ?? new Uint8Array();
      direct.filled = bytes => {
        const space = taker.direct?.space;
        if (space !== undefined && bytes.buffer === space.buffer && bytes.byteOffset === space.byteOffset) {
          taker.direct?.filled(bytes.length);
        } else {
          this.#take(bytes);
        }
        return !this.#held;
      };
    }
    this.#socket.resume();
  }

  /** Gives out nothing more before {@link resume}. */
  hold(): void {
    if (this.#closing) return;
    this.#held = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#held) return;
    this.#held = false;
    const rest = this.#rest;
    this.#rest = undefined;
    if (rest !== undefined) this.#take(rest);
    if (!this.#held) this.#socket.resume();
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#rest = undefined;
    this.resume();
    this.#socket.end();
    const lingering = setTimeout(() => this.#socket.destroy(), LINGER_MS);
    this.#socket.once('close', () => clearTimeout(lingering));
  }

  destroy(): void {
    this.#closing = true;
    this.#socket.destroy();
  }

  #turnDue(bytes: number): boolean {
    this.#unturnedBytes += bytes;
    if (this.#unturnedBytes < TURN_BYTES) return false;
    this.#unturnedBytes = 0;
    return true;
  }

  /** Bytes that came elsewhere than where they are wanted. */
  #take(bytes: Uint8Array): void {
    const direct = this.#taker?.direct;
    if (direct === undefined) {
      this.#taker?.data(bytes);
      return;
    }
    for (let at = 0; at < bytes.length; ) {
      if (this.#held) {
        // It is Node's to use again.
        this.#rest = bytes.slice(at);
        return;
      }
      const { space } = direct;
      if (space.length === 0) return;
      const part = bytes.subarray(at, at + space.length);
      space.set(part);
      at += part.length;
      direct.filled(part.length);
    }
  }

  #tellClosed(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#taker?.closed(error);
  }
}
