/**
 * Opening the socket on which a guest's front-end comes: a path of our own, or a descriptor that was inherited.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { AerostatError, SystemError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { isListening, UnixListener, UnixSocket } from '../sys/socket.ts';
import type { GuestOptions } from './options.ts';
import type { GuestSocket } from './worker-protocol.ts';

/** @throws AerostatError AEROSTAT_SOCKET_IN_USE, AEROSTAT_SOCKET_PATH, or SystemError */
export function openGuestSocket({ socketPath, fd }: GuestOptions): GuestSocket {
  if (socketPath === undefined) {
    const inherited = new OwnedFd(fd ?? -1);
    try {
      return { listening: isListening(inherited), fd: inherited.release() };
    } catch (error) {
      // Not closed: what is no socket was not meant for us, and may belong to another part of this very process.
      if (inherited.open) inherited.release();
      if (!(error instanceof SystemError)) throw error;
      throw new AerostatError(
        'AEROSTAT_SOCKET',
        `descriptor ${fd} is no socket (${error.errnoName}); pass a Unix socket`,
      );
    }
  }
  replaceStale(socketPath);
  try {
    return { listening: true, fd: UnixListener.bind(socketPath).fd.release() };
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw pathError(socketPath, error);
  }
}

function pathError(path: string, { errnoName }: SystemError): AerostatError {
  const folder = dirname(path);
  const why =
    errnoName === 'ENOENT'
      ? `there is no folder ${folder}; make it or choose another path`
      : errnoName === 'EACCES' || errnoName === 'EPERM'
        ? `not permitted in ${folder}; choose a folder that is yours`
        : `${errnoName}; choose another path`;
  return new AerostatError('AEROSTAT_SOCKET_PATH', `no socket can be made at ${path}: ${why}`);
}

/** Removes a socket that no process serves any more, and refuses one that a process serves. */
export function replaceStale(path: string): void {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return;
  if (!status.isSocket()) {
    throw new AerostatError(
      'AEROSTAT_SOCKET_PATH',
      `${path} exists and is no socket; choose another path or remove it`,
    );
  }
  try {
    UnixSocket.connect(path).close();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (error.errnoName === 'ECONNREFUSED') {
      unlinkSync(path);
      return;
    }
    if (error.errnoName === 'ENOENT') return;
    // A backlog that is full (EAGAIN) means that a process listens there; anything else is better not removed.
    if (error.errnoName !== 'EAGAIN') throw pathError(path, error);
  }
  throw new AerostatError(
    'AEROSTAT_SOCKET_IN_USE',
    `${path} is served by a living process; stop that one or choose another path`,
  );
}
