/**
 * The socket of one guest: front-ends come in one at a time, and the next is waited for when one is gone. What
 * they say is the vhost-user room's business, what it means the device's.
 */

import type { KeptGuest } from '../keeping/kept-guest.ts';
import { AerostatError, InvariantError, SystemError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { monotonicMs, type Reactor, type Timer, type Watch } from '../sys/poll.ts';
import { Shed } from '../sys/shed.ts';
import { UnixListener, UnixSocket } from '../sys/socket.ts';
import { peerOfFd } from '../sys/unix-peers.ts';
import {
  BackendConnection,
  type BackendConnectionOptions,
  type KeptSession,
} from '../vhost-user/backend-connection.ts';
import type { BackendSession } from '../vhost-user/backend-session.ts';
import type { SessionHost } from '../vhost-user/session-host.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { ConnectionPace } from './connection-pace.ts';
import type { GuestSocket } from './worker-protocol.ts';

const ACCEPT_PAUSE_MS = 1000;
/** A descriptor that a former front-end sent and that is not closed after so long waits for that front-end. */
const CLOSING_MS_MAX = 1000;

export interface AcceptorListener {
  /** `goesOn`: another daemon served this front-end before. */
  opened(goesOn: boolean): void;
  /** The front-end is gone; `error` when it broke the protocol, or we broke. */
  closed(error: Error | undefined): void;
  readonly refused: SessionHost['refused'];
  /** See {@link SessionHost.taken}. */
  readonly taken: () => void;
  /** The driver kicked ring `index`. */
  readonly kicked: (index: number) => void;
  readonly prepareMemory: NonNullable<BackendConnectionOptions['prepareMemory']>;
  /** See {@link SessionHost.deviceState}. */
  readonly deviceState?: SessionHost['deviceState'];
}

/** `messages`: where descriptors are watched that bring messages and connections, if that is to be told apart. */
type AcceptorLoop = Pick<Reactor, 'watch' | 'schedule'> & {
  readonly messages?: Pick<Reactor, 'watch'>;
};

export class Acceptor {
  readonly #device: VirtioDevice;
  readonly #reactor: AcceptorLoop;
  readonly #messages: Pick<Reactor, 'watch'>;
  readonly #listener: AcceptorListener;
  readonly #kept: KeptGuest | undefined;
  readonly #socket: UnixListener | undefined;
  readonly #handedOver: boolean;
  /** Where its front-ends' descriptors are closed. */
  readonly #shed = new Shed();
  readonly #pace = new ConnectionPace();
  #watch: Watch | undefined;
  /** Ends a time in which no front-end is let in. */
  #pause: Timer | undefined;
  #connection: BackendConnection | undefined;
  #peer: { readonly socket: UnixSocket; pid: number | undefined } | undefined;

  /** Takes ownership of the socket. With `kept`, conversations are kept there for the next daemon. */
  constructor(
    socket: GuestSocket,
    device: VirtioDevice,
    reactor: AcceptorLoop,
    listener: AcceptorListener,
    kept?: KeptGuest,
  ) {
    this.#device = device;
    this.#reactor = reactor;
    this.#messages = reactor.messages ?? reactor;
    this.#listener = listener;
    this.#kept = kept;
    this.#handedOver = socket.handedOver ?? false;
    const fd = new OwnedFd(socket.fd);
    if (socket.listening) {
      this.#socket = new UnixListener(fd);
      this.#wait();
    } else {
      this.#serve(new UnixSocket(fd, this.#shed));
    }
  }

  get connected(): boolean {
    return this.#connection !== undefined;
  }

  /** The process at the other end of the connection, as far as the kernel tells. */
  get peerPid(): number | undefined {
    if (this.#peer === undefined || this.#connection === undefined) return undefined;
    // Asked for when it is wanted first: front-ends may come and go as often as they like.
    this.#peer.pid ??= peerOfFd(this.#peer.socket.fd.number)?.pid ?? 0;
    return this.#peer.pid === 0 ? undefined : this.#peer.pid;
  }

  get session(): BackendSession | undefined {
    return this.#connection?.session;
  }

  /** Tells the front-end that the configuration changed; false when it gave no channel for that. */
  configChanged(): boolean {
    return this.#connection?.configChanged() ?? true;
  }

  /** The device may have settled. */
  progress(): void {
    this.#connection?.progress();
  }

  /** Ends the conversation because of `error`, and waits for the next one. */
  drop(error: Error): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    this.#connection = undefined;
    try {
      connection.close();
    } finally {
      this.#closed(error);
    }
  }

  /**
   * Goes on with a front-end that another daemon had; takes ownership of the socket. A front-end that cannot go on is let go;
   * where it was handed over, this throws, and it is the other daemon's still.
   */
  takeUp(socket: OwnedFd, session: KeptSession): void {
    this.#serve(new UnixSocket(socket, this.#shed), session);
  }

  /** Serves nothing any more. A front-end that is kept is left to the next daemon. */
  leave(): void {
    this.#watch?.stop();
    this.#watch = undefined;
    this.#pause?.cancel();
    this.#connection?.leave();
  }

  /** It was left, no process has taken it, and all goes on here. */
  stay(): void {
    this.#connection?.stay();
    this.#wait();
  }

  /** What was left is another process's. */
  abandon(): void {
    this.#socket?.close();
    this.#connection?.abandon();
    this.#connection = undefined;
  }

  /** The socket of the front-end that is there. */
  get frontEnd(): OwnedFd | undefined {
    return this.#connection === undefined ? undefined : this.#peer?.socket.fd;
  }

  /** Idempotent. */
  close(): void {
    this.#watch?.stop();
    this.#pause?.cancel();
    this.#socket?.close();
    const connection = this.#connection;
    if (connection === undefined) return;
    this.#connection = undefined;
    connection.close();
    this.#kept?.end();
    this.#listener.closed(undefined);
  }

  #wait(): void {
    if (this.#socket?.fd.open !== true || this.#connection !== undefined) return;
    this.#watch = this.#messages.watch(this.#socket.fd, () => this.#accept());
  }

  #accept(): void {
    if (this.#shed.oldestMs > CLOSING_MS_MAX) {
      const error = new AerostatError(
        'AEROSTAT_DESCRIPTORS_STUCK',
        'no front-end is let in: descriptors of a former one cannot be closed, because their file system does not answer; end the process that serves it',
      );
      this.#lookAway(error);
      return;
    }
    try {
      const socket = this.#socket?.accept(this.#shed);
      if (socket !== undefined) this.#serve(socket);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      // Too many open files, most likely.
      this.#lookAway(error);
    }
  }

  /** The connection stays in the backlog and poll would report it for ever, so look away for a while. */
  #lookAway(error: AerostatError): void {
    this.#watch?.stop();
    this.#watch = undefined;
    this.#listener.refused(error, { request: 'connection' });
    this.#waitAfter(ACCEPT_PAUSE_MS);
  }

  #waitAfter(pauseMs: number): void {
    if (pauseMs === 0) this.#wait();
    else this.#pause = this.#reactor.schedule(pauseMs, () => this.#wait());
  }

  #serve(socket: UnixSocket, session?: KeptSession): void {
    // One socket is one guest: others stay in the backlog until this front-end is gone, and do not wake us.
    this.#watch?.stop();
    this.#watch = undefined;
    if (this.#connection !== undefined) throw new InvariantError('two front-ends for one guest');
    this.#pace.began(monotonicMs());
    this.#peer = { socket, pid: undefined };
    const { refused, taken, kicked, prepareMemory, deviceState } = this.#listener;
    if (session === undefined) this.#kept?.begin(socket.fd);
    const connection = new BackendConnection(socket, this.#device, {
      reactor: this.#reactor,
      messages: this.#messages,
      refused,
      taken,
      kicked,
      prepareMemory,
      deviceState,
      ...(this.#kept === undefined ? {} : { kept: this.#kept }),
      ended: error => {
        this.#connection = undefined;
        this.#closed(error);
      },
    });
    this.#connection = connection;
    this.#listener.opened(session !== undefined);
    if (session === undefined) connection.begin();
    else this.#resume(connection, session);
  }

  #resume(connection: BackendConnection, session: KeptSession): void {
    try {
      connection.takeUp(session);
    } catch (error) {
      if (this.#handedOver) {
        this.abandon();
        throw error;
      }
      this.drop(error as Error);
    }
  }

  #closed(error: Error | undefined): void {
    this.#kept?.end();
    this.#listener.closed(error);
    this.#waitAfter(this.#pace.ended(monotonicMs()));
  }
}
