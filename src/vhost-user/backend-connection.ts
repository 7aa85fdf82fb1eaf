/**
 * A device and one front-end, joined: the socket's messages go to a {@link BackendSession} and its replies
 * back, and news of the configuration goes out on the channel that the front-end gave for it. For back-ends
 * that want nothing in between.
 */
import type { OwnedFd } from '../sys/fd.ts';
import { PeerDoorbell } from '../sys/peer-doorbell.ts';
import type { Reactor } from '../sys/poll.ts';
import type { UnixSocket } from '../sys/socket.ts';
import type { SessionHost, VhostUserBackend } from './backend.ts';
import { BackendSession } from './backend-session.ts';
import { MessageStream } from './message-stream.ts';
import { BACKEND_REQUEST, FLAG_VERSION, HEADER, VhostUserError } from './protocol.ts';

export interface BackendConnectionOptions {
  readonly reactor: Pick<Reactor, 'watch'>;
  /** See {@link SessionHost.refused}. */
  readonly refused?: SessionHost['refused'];
  /** The front-end left, or broke the protocol beyond following; not called after `close`. */
  readonly ended?: (error: Error | undefined) => void;
}

const CONFIG_CHANGE = HEADER.encode({
  request: BACKEND_REQUEST.CONFIG_CHANGE,
  flags: FLAG_VERSION,
  size: 0,
});

export class BackendConnection {
  readonly session: BackendSession;
  readonly #stream: MessageStream;
  #channel: PeerDoorbell | undefined;

  /** Takes ownership of `socket`. */
  constructor(socket: UnixSocket, backend: VhostUserBackend, options: BackendConnectionOptions) {
    const { reactor, refused = () => {}, ended = () => {} } = options;
    this.session = new BackendSession(backend, {
      reactor,
      refused,
      backendChannel: fd => this.#setChannel(fd),
    });
    this.#stream = new MessageStream(socket, reactor, {
      message: message => {
        const reply = this.session.serve(message);
        if (reply === undefined) return false;
        this.#stream.send(reply.request, reply.flags, reply.payload);
        return true;
      },
      ended: error => {
        this.session.close();
        ended(error);
      },
    });
  }

  /**
   * Tells the front-end that the device changed its configuration. False when it gave no channel for that:
   * its driver sees the change when it next reads.
   */
  configChanged(): boolean {
    if (this.#channel === undefined) return false;
    // A full channel holds notices that the front-end has not read yet; any of them makes it read again.
    if (this.#channel.write(CONFIG_CHANGE) === 'gone') this.#setChannel(undefined);
    return this.#channel !== undefined;
  }

  /** Ends the conversation, as if the front-end had left. Idempotent. */
  close(): void {
    this.#stream.close();
    this.session.close();
  }

  #setChannel(fd: OwnedFd | undefined): void {
    const channel = fd && PeerDoorbell.of(fd);
    if (fd !== undefined && channel === undefined) {
      fd.close();
      throw new VhostUserError("a channel for the back-end's requests has to be a Unix socket or a pipe");
    }
    this.#channel?.close();
    this.#channel = channel;
  }
}
