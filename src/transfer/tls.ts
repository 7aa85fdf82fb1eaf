/**
 * TLS with certificates on both sides: each has one of the same CA, and talks to no peer without one. Who may migrate
 * is then who the CA gave a certificate; the destination's must name the host that the source was told.
 */
import { readFileSync } from 'node:fs';
import { isIP, type Socket } from 'node:net';
import * as tls from 'node:tls';
import { TransferError } from './errors.ts';

/** PEM, all three. */
export interface TlsIdentity {
  readonly cert: string;
  readonly key: string;
  /** Who signs the certificates of those that we talk to. */
  readonly ca: string;
}

/** @throws TransferError when a file cannot be read */
export function readTlsIdentity(paths: TlsIdentity): TlsIdentity {
  const read = (what: keyof TlsIdentity): string => {
    try {
      return readFileSync(paths[what], 'utf8');
    } catch (error) {
      throw new TransferError(`cannot read the ${what} ${paths[what]}`, { cause: error });
    }
  };
  return { cert: read('cert'), key: read('key'), ca: read('ca') };
}

/** @throws TransferError when certificate and key do not fit, or are none */
export function checkTlsIdentity(identity: TlsIdentity): void {
  try {
    tls.createSecureContext({ ...identity });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TransferError(`certificate, key and CA cannot be used: ${reason}`, { cause: error });
  }
}

const common = (identity: TlsIdentity) =>
  ({ ...identity, minVersion: 'TLSv1.3', rejectUnauthorized: true }) as const;

/** Our side of a connection that we made to `host`. */
export const tlsClient = (socket: Socket, identity: TlsIdentity, host: string): tls.TLSSocket =>
  tls.connect({ ...common(identity), socket, host, ...(isIP(host) === 0 ? { servername: host } : {}) });

/**
 * Our side of a connection that a peer made to us. A server of Node's judges it, since only a server refuses a
 * certificate of another CA; a socket alone would take it.
 */
export function tlsServer(socket: Socket, identity: TlsIdentity): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const judge = tls.createServer({ ...common(identity), requestCert: true });
    judge.once('secureConnection', resolve);
    judge.once('tlsClientError', reject);
    socket.once('close', () => reject(new TransferError('the connection was cut')));
    judge.emit('connection', socket);
  });
}
