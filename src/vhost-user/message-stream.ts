/**
 * A {@link Connection} in a loop: hands over the messages that come, sends what waits when the socket takes
 * it, and says once when it is over. What messages mean, its listener knows.
 */
import { SystemError } from '../sys/error.ts';
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import type { Reactor, Watch } from '../sys/poll.ts';
import type { UnixSocket } from '../sys/socket.ts';
import { Connection, type Message } from './connection.ts';
import type { MessageJournal } from './message-journal.ts';

export interface StreamListener {
  /**
   * A message came; its descriptors are the listener's. True when it was answered: its sender waits for that
   * before it sends more, so there is no use in looking for another one now.
   */
  message(message: Message): boolean;
  /** A message is there whose descriptors are not kept yet: nothing is looked at until {@link MessageStream.resume}. */
  unkept?(): void;
  /** The stream is closed: the peer closed its end, or `error` says what broke it. Not called after `close`. */
  ended(error: Error | undefined): void;
}

/** Messages that are read in a row before others in the loop have their turn. */
const MESSAGES_PER_TURN = 32;

export class MessageStream {
  readonly #connection: Connection;
  readonly #listener: StreamListener;
  readonly #reactor: Pick<Reactor, 'watch'>;
  #watch: Watch;
  #open = true;
  #paused = false;

  /** Takes ownership of `socket`; see {@link Connection} for the journal. */
  constructor(
    socket: UnixSocket,
    reactor: Pick<Reactor, 'watch'>,
    listener: StreamListener,
    journal?: MessageJournal,
  ) {
    this.#connection = new Connection(socket, journal);
    this.#listener = listener;
    this.#reactor = reactor;
    this.#watch = this.#newWatch();
  }

  #newWatch(): Watch {
    const watch = this.#reactor.watch(this.#connection.fd, ready => {
      this.#guard(() => {
        if (ready.writable) this.#flush();
        if (ready.readable || ready.hungUp) this.#receive();
      });
    });
    watch.wantWrite = this.#connection.backlogged;
    return watch;
  }

  /** Nothing is read, and a peer that leaves is not noticed, until {@link resume}: the last message stays as it is. */
  pause(): void {
    if (this.#paused || !this.#open) return;
    this.#paused = true;
    this.#watch.stop();
  }

  resume(): void {
    if (!this.#paused || !this.#open) return;
    this.#paused = false;
    this.#watch = this.#newWatch();
  }

  /** Runs `step`, whose failure ends the stream as that of a message would. */
  attempt(step: () => void): void {
    this.#guard(step);
  }

  /** Sends, or keeps until the socket takes it; `fds` stay the caller's, who keeps them open until then. */
  send(
    request: number,
    flags: number,
    payload: Uint8Array,
    fds: readonly OwnedFd[] = [],
    given = false,
  ): void {
    this.#guard(() => {
      this.#connection.send(request, flags, payload, fds, given);
      this.#watch.wantWrite = this.#connection.backlogged;
    });
  }

  /** Sends the reply that the journal has, with `fds`, which are closed. */
  sendJournaled(fds: readonly OwnedFd[] = []): void {
    if (!this.#open) closeAll(fds);
    this.#guard(() => this.#connection.sendJournaled(fds));
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#watch.stop();
    this.#connection.close();
  }

  #flush(): void {
    this.#connection.flush();
    this.#watch.wantWrite = this.#connection.backlogged;
  }

  #receive(): void {
    for (let taken = 0; taken < MESSAGES_PER_TURN && this.#open && !this.#paused; taken++) {
      const received = this.#connection.receive();
      if (received.kind === 'wait') return;
      if (received.kind === 'unkept') {
        this.pause();
        this.#listener.unkept?.();
        return;
      }
      if (received.kind === 'closed') this.#end(undefined);
      else if (this.#listener.message(received.message)) return;
    }
  }

  #guard(step: () => void): void {
    if (!this.#open) return;
    try {
      step();
    } catch (error) {
      // Whatever it is, a bug of ours included: it ends this conversation, and no other that the loop serves.
      if (hasLeft(error)) this.#end(undefined);
      else this.#end(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #end(error: Error | undefined): void {
    if (!this.#open) return;
    this.close();
    this.#listener.ended(error);
  }
}

/** A peer that left before it read all that it had asked for has merely left. */
const hasLeft = (error: unknown): boolean =>
  error instanceof SystemError && (error.errnoName === 'EPIPE' || error.errnoName === 'ECONNRESET');
