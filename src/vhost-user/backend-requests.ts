/**
 * The front-end's end of the back-end request channel, on which the back-end says of its own accord that the
 * configuration changed. Requests that we do not know are refused, as far as they want to hear of it.
 */
import { closeAll } from '../sys/fd.ts';
import type { Reactor } from '../sys/poll.ts';
import type { UnixSocket } from '../sys/socket.ts';
import type { Message } from './connection.ts';
import { MessageStream } from './message-stream.ts';
import { BACKEND_REQUEST, FLAG_NEED_REPLY, FLAG_REPLY, U64, VhostUserError } from './protocol.ts';

export class BackendRequests {
  readonly #stream: MessageStream;
  readonly #configChanged: () => void;

  /** Takes ownership of `socket`. A back-end that closes or garbles its channel merely has none any more. */
  constructor(socket: UnixSocket, reactor: Pick<Reactor, 'watch'>, configChanged: () => void) {
    this.#configChanged = configChanged;
    this.#stream = new MessageStream(socket, reactor, {
      message: message => {
        this.#serve(message);
        return false;
      },
      ended: () => {},
    });
  }

  close(): void {
    this.#stream.close();
  }

  #serve({ request, flags, payload, fds }: Message): void {
    closeAll(fds);
    if ((flags & FLAG_REPLY) !== 0) {
      throw new VhostUserError('the back-end answers what it was not asked', { fatal: true });
    }
    const done = request === BACKEND_REQUEST.CONFIG_CHANGE && payload.byteLength === 0;
    if (done) this.#configChanged();
    if ((flags & FLAG_NEED_REPLY) === 0) return;
    this.#stream.send(request, FLAG_REPLY, U64.encode({ value: done ? 0n : 1n }));
  }
}
