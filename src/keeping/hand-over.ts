/**
 * What a daemon and the one that takes its place say to each other, over a Unix socket that the new one inherits: frames of
 * JSON with descriptors. Who says what, and when, is the daemons' (`daemon/`).
 */
import { setTimeout as delay } from 'node:timers/promises';
import { AerostatError } from '../sys/error.ts';
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import { monotonicMs } from '../sys/monotonic.ts';
import { DESCRIPTORS_MAX, TRANSFER_BYTES_MAX, type UnixSocket } from '../sys/socket.ts';
import { untilReadable } from '../sys/until-readable.ts';
import type { KeeperKind } from './guests-keeper.ts';

/** What comes with a descriptor says what it is. */
export type HandOverMessage =
  /** The new one could serve these guests, whose files it reads in versions up to this one. */
  | {
      readonly kind: 'ready';
      readonly version: string;
      readonly stateVersion: number;
      readonly guests: readonly string[];
    }
  /** The socket to what keeps the guests; it goes on as it is. */
  | { readonly kind: 'keeper'; readonly place: KeeperKind }
  /** The API's socket, which listens. */
  | { readonly kind: 'api' }
  /** What is kept of a guest: a descriptor for each number. */
  | { readonly kind: 'kept'; readonly guest: string; readonly numbers: readonly number[] }
  /** Where its front-ends come; the socket listens. From now on the guest is the new one's. */
  | { readonly kind: 'listener'; readonly guest: string }
  | { readonly kind: 'taken'; readonly guest: string }
  /** Those were all guests. */
  | { readonly kind: 'all' }
  | { readonly kind: 'serving' }
  | { readonly kind: 'failed'; readonly message: string };

export interface Received {
  readonly message: HandOverMessage;
  /** The receiver's. */
  readonly fds: readonly OwnedFd[];
}

const HEADER_BYTES = 4;
const POLL_MS = 2;

export class HandOverLink {
  readonly #socket: UnixSocket;

  /** Takes ownership of the socket. */
  constructor(socket: UnixSocket) {
    this.#socket = socket;
  }

  /** The descriptors stay the caller's. @throws SystemError when the other one is gone */
  async send(message: HandOverMessage, fds: readonly OwnedFd[] = []): Promise<void> {
    const text = new TextEncoder().encode(JSON.stringify(message));
    const bytes = new Uint8Array(HEADER_BYTES + text.length);
    if (bytes.length > TRANSFER_BYTES_MAX || fds.length > DESCRIPTORS_MAX) throw malformed();
    new DataView(bytes.buffer).setUint32(0, text.length, true);
    bytes.set(text, HEADER_BYTES);
    for (let sent = 0; sent < bytes.length; ) {
      const went = this.#socket.send(bytes.subarray(sent), sent === 0 ? fds : []);
      sent += went;
      if (went === 0) await delay(POLL_MS);
    }
  }

  /**
   * The next message; undefined when the other one is gone. Waits until `untilMs` of the monotonic clock at most.
   * @throws AerostatError AEROSTAT_HAND_OVER when it does not come in time, or is none
   */
  async receive(untilMs: number): Promise<Received | undefined> {
    const header = new Uint8Array(HEADER_BYTES);
    const fds: OwnedFd[] = [];
    try {
      if (!(await this.#fill(header, fds, untilMs))) return undefined;
      const length = new DataView(header.buffer).getUint32(0, true);
      if (length > TRANSFER_BYTES_MAX) throw malformed();
      const text = new Uint8Array(length);
      if (!(await this.#fill(text, fds, untilMs))) return undefined;
      return { message: JSON.parse(new TextDecoder().decode(text)) as HandOverMessage, fds: fds.splice(0) };
    } catch (error) {
      if (error instanceof SyntaxError) throw malformed();
      throw error;
    } finally {
      closeAll(fds);
    }
  }

  close(): void {
    this.#socket.close();
  }

  /** False when the other one is gone. */
  async #fill(into: Uint8Array, fds: OwnedFd[], untilMs: number): Promise<boolean> {
    for (let filled = 0; filled < into.length; ) {
      const received = this.#socket.receive(into.subarray(filled));
      if (received === undefined) {
        if (monotonicMs() > untilMs) throw handOverError('it did not answer in time');
        await untilReadable(this.#socket.fd);
        continue;
      }
      fds.push(...received.fds);
      if (received.length === 0) return false;
      filled += received.length;
    }
    return true;
  }
}

export const handOverError = (message: string, options?: ErrorOptions): AerostatError =>
  new AerostatError('AEROSTAT_HAND_OVER', message, options);

const malformed = (): AerostatError => handOverError('what it said is no message of a hand-over');
