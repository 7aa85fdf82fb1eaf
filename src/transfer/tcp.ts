/**
 * Makes connections, and takes sockets of Node's for what they are: descriptors that can be watched for silence, and
 * that another thread can have.
 *
 *     const socket = await connectTcp({ address, tls });
 */
import { connect, Socket } from 'node:net';
import { assert } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { limitSilence } from '../sys/tcp.ts';
import type { TransferAddress } from './address.ts';
import { connectError, TransferError } from './errors.ts';
import { readingInto } from './tcp-channel.ts';
import { type TlsIdentity, tlsClient } from './tls.ts';

/**
 * How long the other side's host may acknowledge nothing, or have no room: as long as a source waits for its destination while
 * the guest runs. When it stands still, migration/patience.ts waits for less.
 */
const SILENCE_MS_MAX = 60_000;
const CONNECT_MS_MAX = 10_000;

export interface ConnectOptions {
  readonly address: TransferAddress;
  /** The one of the addresses of that host to connect to, where it matters which; under TLS it is still that host. */
  readonly at?: string;
  readonly tls?: TlsIdentity;
  /** {@link SILENCE_MS_MAX} when left out. */
  readonly silenceMsMax?: number;
}

/** @throws TransferError ConnectionRefused when the host says that no process listens */
export async function connectTcp({ address, at, tls, silenceMsMax }: ConnectOptions): Promise<Socket> {
  const { host, port } = address;
  const to = { host: at ?? host, port };
  const socket = tls === undefined ? readingInto(onread => connect({ ...to, onread })) : connect(to);
  const late = setTimeout(() => {
    socket.destroy(new TransferError(`no answer from ${host} within ${CONNECT_MS_MAX / 1e3} s`));
  }, CONNECT_MS_MAX);
  try {
    await established(socket, 'connect');
    watchSilence(socket, silenceMsMax);
    if (tls === undefined) return socket;
    const secured = tlsClient(socket, tls, host);
    await established(secured, 'secureConnect');
    return secured;
  } catch (error) {
    socket.destroy();
    throw connectError(address, error as Error);
  } finally {
    clearTimeout(late);
  }
}

function established(socket: Socket, event: 'connect' | 'secureConnect'): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error?: Error) => reject(error ?? new TransferError('the connection was cut'));
    socket.once('error', failed);
    socket.once('close', failed);
    socket.once(event, () => {
      socket.removeListener('error', failed);
      socket.removeListener('close', failed);
      resolve();
    });
  });
}

/** Makes a connection fail when the other side's host falls silent. */
export function watchSilence(socket: Socket, silenceMsMax: number = SILENCE_MS_MAX): void {
  limitSilence({ number: descriptorOf(socket) }, silenceMsMax);
}

/** Takes the connection out of Node's hands; `socket` is of no use afterwards. */
export function detach(socket: Socket): OwnedFd {
  const borrowed = new OwnedFd(descriptorOf(socket));
  try {
    return borrowed.duplicate();
  } finally {
    borrowed.release();
    socket.destroy();
  }
}

/** A connection that came from another thread; `fd` becomes the socket's. */
export const attach = (fd: OwnedFd): Socket =>
  readingInto(onread => new Socket({ fd: fd.release(), onread } as ConstructorParameters<typeof Socket>[0]));

/** Node has no public way to a socket's descriptor; this one has been there since its first releases. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as Socket & { _handle?: { fd?: number } };
  const fd = handle?.fd ?? -1;
  assert(fd >= 0, 'a socket without a descriptor');
  return fd;
}
