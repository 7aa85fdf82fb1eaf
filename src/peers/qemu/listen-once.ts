/**
 * A socket for the one connection that a QEMU makes to us: no path need be polled until QEMU listens there.
 */
import { createServer, type Socket } from 'node:net';
import { AerostatError } from '../../sys/error.ts';

export interface PendingConnection {
  /** Rejects when {@link close} comes first. */
  readonly connected: Promise<Socket>;
  /** Stops listening; a connection that was made stays. Idempotent. */
  readonly close: () => void;
}

export async function listenOnce(path: string): Promise<PendingConnection> {
  const server = createServer();
  const connected = new Promise<Socket>((resolve, reject) => {
    server.once('connection', socket => {
      server.close();
      resolve(socket);
    });
    server.once('close', () =>
      reject(new AerostatError('AEROSTAT_NOT_CONNECTED', `no program connected to ${path}`)),
    );
  });
  connected.catch(() => {}); // Marks the rejection as handled; callers may still await it.
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return { connected, close: () => void server.close() };
}
