/**
 * Where connections of a migration arrive:
 *
 *     const listener = await TransferListener.open({ address, tls, accept: inlet => destination.accept(inlet) });
 *     await destination.outcome;      // and keep listening: a source that lost its connections asks over a new one
 *     await listener.close();
 *
 * Strangers are held to a small number and a short time. A destination listens for as long as it has the guest or may
 * get it, since a source takes a refused connection for the word that no host has it.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { DestinationLink, type DestinationMessage, type Inlet } from '../migration/destination-link.ts';
import type { TransferAddress } from './address.ts';
import { listenError, TransferError } from './errors.ts';
import { attach, detach, watchSilence } from './tcp.ts';
import { TcpChannel } from './tcp-channel.ts';
import { checkTlsIdentity, type TlsIdentity, tlsServer } from './tls.ts';

/** Connections of which it is not known what they want. One more, and the oldest of them has to go. */
export const STRANGERS_MAX = 16;
/** Within this time a connection says what it wants. */
const GREETING_MS_MAX = 10_000;

type Take = (message: DestinationMessage) => void;

export interface ListenerOptions {
  readonly address: TransferAddress;
  readonly tls?: TlsIdentity;
  /** MigrationDestination's `accept`. */
  readonly accept: (inlet: Inlet) => Take;
  readonly silenceMsMax?: number;
  readonly strangersMax?: number;
  readonly greetingMsMax?: number;
}

export class TransferListener {
  readonly #options: ListenerOptions;
  readonly #server: Server;
  readonly #pending = new Set<PendingConnection>();

  private constructor(options: ListenerOptions) {
    this.#options = options;
    // Without TLS another socket takes the connection over, and nothing may be read before.
    this.#server = createServer({ pauseOnConnect: options.tls === undefined }, socket =>
      this.#visited(socket),
    );
  }

  /** @throws TransferError when the address cannot be had, or the certificate not be used */
  static open(options: ListenerOptions): Promise<TransferListener> {
    const { address, tls } = options;
    if (tls !== undefined) checkTlsIdentity(tls);
    const listener = new TransferListener(options);
    const server = listener.#server;
    return new Promise((resolve, reject) => {
      server.once('error', error => reject(listenError(address, error)));
      server.listen({ host: address.host, port: address.port }, () => {
        // What fails from now on is one connection's failure, or passes.
        server.removeAllListeners('error').on('error', () => {});
        resolve(listener);
      });
    });
  }

  /** With the port that it has got. */
  get address(): TransferAddress {
    const at = this.#server.address();
    if (at === null || typeof at === 'string') return this.#options.address;
    return { host: at.address, port: at.port };
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#pending.size;
  }

  /** No peer can connect any more, and the connections that there are end. */
  async close(): Promise<void> {
    const closed = new Promise(resolve => this.#server.close(resolve));
    for (const pending of this.#pending) pending.destroy();
    await closed;
  }

  #visited(socket: Socket): void {
    const { silenceMsMax, strangersMax = STRANGERS_MAX, tls } = this.#options;
    const strangers = [...this.#pending].filter(pending => pending.stranger);
    if (strangers.length >= strangersMax) strangers[0].destroy();
    watchSilence(socket, silenceMsMax);
    const carried = tls === undefined ? attach(detach(socket)) : socket;
    const pending = new PendingConnection(carried, this.#options);
    this.#pending.add(pending);
    carried.once('close', () => this.#pending.delete(pending));
  }
}

/** One connection, known or not. */
class PendingConnection implements Inlet {
  /** Has not said what it wants, or was sent away. */
  stranger = true;
  readonly #socket: Socket;
  #link: DestinationLink | undefined;

  constructor(socket: Socket, { tls, accept, greetingMsMax = GREETING_MS_MAX }: ListenerOptions) {
    this.#socket = socket;
    const late = setTimeout(() => this.destroy(), greetingMsMax);
    socket.once('close', () => clearTimeout(late)).on('error', () => {});
    const open = (carried: Socket) => {
      let take: Take = () => {};
      this.#link = new DestinationLink(new TcpChannel(carried), message => {
        if (message.kind === 'hello') {
          clearTimeout(late);
          this.stranger = false;
        }
        take(message);
      });
      take = accept(this);
    };
    if (tls === undefined) open(socket);
    else tlsServer(socket, tls).then(open, () => this.destroy());
  }

  receiveInto(...memory: Parameters<Inlet['receiveInto']>): void {
    this.#link?.receiveInto(...memory);
  }

  receiveLate(...arrival: Parameters<Inlet['receiveLate']>): void {
    this.#link?.receiveLate(...arrival);
  }

  reply(reply: Parameters<Inlet['reply']>[0]): Promise<void> {
    return this.#link?.reply(reply) ?? Promise.reject(new TransferError('the connection was cut'));
  }

  close(graceful: boolean): void {
    this.stranger = true;
    this.#link?.close(graceful);
  }

  destroy(): void {
    this.#socket.destroy();
  }
}
