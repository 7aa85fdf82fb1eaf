/**
 * The front-end's requests and their answers. Answers come in the order of the requests, so several may be
 * under way. One that never comes ends the conversation: a late answer could not be told from the next one.
 */
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import type { Reactor, Timer } from '../sys/poll.ts';
import type { UnixSocket } from '../sys/socket.ts';
import type { Message } from './connection.ts';
import {
  VhostUserDisconnectedError,
  VhostUserRefusedError,
  VhostUserTimeoutError,
} from './frontend-errors.ts';
import { MessageStream } from './message-stream.ts';
import {
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FRONTEND_REQUEST,
  type FrontendRequest,
  REPLY_SHAPES,
  type RequestWithReply,
  type Shape,
  U64,
  VhostUserError,
} from './protocol.ts';

export interface RequesterOptions {
  readonly reactor: Pick<Reactor, 'watch' | 'schedule'>;
  /** Whom we talk to, for errors. */
  readonly description: string;
  /** How long an answer may take, in milliseconds. */
  readonly answerMsMax: number;
  /** The conversation is over; called once, and not after `close`. */
  readonly ended: (reason: Error) => void;
}

interface Awaited {
  readonly name: FrontendRequest;
  readonly shape: Shape;
  /** Takes the descriptors of the answer; absent where it is to have none. */
  readonly takeFds: ((fds: readonly OwnedFd[]) => void) | undefined;
  readonly resolve: (payload: DataView) => void;
  readonly reject: (reason: Error) => void;
  readonly timer: Timer;
}

const NOTHING = new Uint8Array(0);
const ACKNOWLEDGEMENT: Shape = { size: U64.size, exact: true };

export class Requester {
  /** REPLY_ACK is negotiated: every request can be answered. */
  acknowledges = false;
  readonly #stream: MessageStream;
  readonly #options: RequesterOptions;
  readonly #awaited: Awaited[] = [];
  #over: Error | undefined;

  /** Takes ownership of `socket`. */
  constructor(socket: UnixSocket, options: RequesterOptions) {
    this.#options = options;
    this.#stream = new MessageStream(socket, options.reactor, {
      message: message => {
        this.#answered(message);
        return false;
      },
      ended: error => this.#ended(error),
    });
  }

  /** Sends a request that has a reply of its own; resolves with the reply's payload. */
  ask(name: RequestWithReply, payload: Uint8Array = NOTHING): Promise<DataView> {
    return this.#exchange(name, 0, payload, [], REPLY_SHAPES[name]);
  }

  async askU64(name: RequestWithReply): Promise<bigint> {
    return U64.read(await this.ask(name)).value;
  }

  /**
   * Sends a request without a reply of its own. Settles when the back-end has done it; where it cannot
   * acknowledge, a later question is answered only then. `fds` stay the caller's, who keeps them open until
   * this settles.
   * @throws VhostUserRefusedError when the back-end can and does refuse
   */
  async tell(
    name: FrontendRequest,
    payload: Uint8Array = NOTHING,
    fds: readonly OwnedFd[] = [],
  ): Promise<void> {
    if (!this.acknowledges) {
      this.post(name, payload, fds);
      await this.ask('GET_FEATURES');
      return;
    }
    const answer = await this.#exchange(name, FLAG_NEED_REPLY, payload, fds, ACKNOWLEDGEMENT);
    if (U64.read(answer).value !== 0n) throw new VhostUserRefusedError(this.#options.description, name);
  }

  /** {@link ask} for a reply with descriptors, which are the caller's. */
  async askForFds(
    name: RequestWithReply,
    payload: Uint8Array,
  ): Promise<{ readonly payload: DataView; readonly fds: readonly OwnedFd[] }> {
    let fds: readonly OwnedFd[] = [];
    try {
      const reply = await this.#exchange(name, 0, payload, [], REPLY_SHAPES[name], brought => {
        fds = brought;
      });
      return { payload: reply, fds };
    } catch (error) {
      closeAll(fds);
      throw error;
    }
  }

  /** Sends a request and asks for nothing. `fds` stay the caller's, who keeps them open until something is answered. */
  post(name: FrontendRequest, payload: Uint8Array = NOTHING, fds: readonly OwnedFd[] = []): void {
    if (this.#over !== undefined) throw this.#over;
    this.#stream.send(FRONTEND_REQUEST[name], 0, payload, fds);
  }

  /** Everything that waits for an answer fails. Idempotent. */
  close(reason: Error): void {
    if (this.#over !== undefined) return;
    this.#over = reason;
    this.#stream.close();
    for (const { timer, reject } of this.#awaited.splice(0)) {
      timer.cancel();
      reject(reason);
    }
  }

  #exchange(
    name: FrontendRequest,
    flags: number,
    payload: Uint8Array,
    fds: readonly OwnedFd[],
    shape: Shape,
    takeFds?: (fds: readonly OwnedFd[]) => void,
  ): Promise<DataView> {
    if (this.#over !== undefined) return Promise.reject(this.#over);
    const { description, answerMsMax, reactor } = this.#options;
    return new Promise((resolve, reject) => {
      const timer = reactor.schedule(answerMsMax, () => {
        this.#fail(new VhostUserTimeoutError(description, name, answerMsMax));
      });
      this.#awaited.push({ name, shape, takeFds, resolve, reject, timer });
      this.#stream.send(FRONTEND_REQUEST[name], flags, payload, fds);
    });
  }

  #answered(message: Message): void {
    const awaited = this.#awaited[0];
    const fits = awaited?.takeFds !== undefined && message.request === FRONTEND_REQUEST[awaited.name];
    if (fits) awaited.takeFds?.(message.fds);
    // No other answer that we ask for brings descriptors.
    else closeAll(message.fds);
    const { byteLength } = message.payload;
    if (awaited === undefined || (message.flags & FLAG_REPLY) === 0) {
      throw new VhostUserError(`message ${message.request} came without being asked for`, { fatal: true });
    }
    const { name, shape, resolve, timer } = awaited;
    if (message.request !== FRONTEND_REQUEST[name]) {
      throw new VhostUserError(`${name} was answered with message ${message.request}`, { fatal: true });
    }
    if (shape.exact ? byteLength !== shape.size : byteLength < shape.size) {
      throw new VhostUserError(`${name} was answered with ${byteLength} bytes`, { fatal: true });
    }
    this.#awaited.shift();
    timer.cancel();
    // A copy: the connection reads its next message into the same buffer.
    const { buffer, byteOffset } = message.payload;
    resolve(new DataView(buffer.slice(byteOffset, byteOffset + byteLength)));
  }

  #ended(cause: Error | undefined): void {
    const { description } = this.#options;
    this.#fail(
      cause === undefined
        ? new VhostUserDisconnectedError(description, 'it closed the connection')
        : new VhostUserDisconnectedError(description, cause.message, { cause }),
    );
  }

  #fail(reason: Error): void {
    if (this.#over !== undefined) return;
    this.close(reason);
    this.#options.ended(reason);
  }
}
