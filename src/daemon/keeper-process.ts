/** The keeper as a process: its socket and its loop. */
import { unlinkSync } from 'node:fs';
import { replaceStale } from '../hosting/guest-socket.ts';
import { Keeper } from '../keeping/keeper.ts';
import { Reactor } from '../sys/poll.ts';
import { UnixListener } from '../sys/socket.ts';

/** A listener at `path` that this user's processes alone can reach. @throws SystemError */
function listenForDaemons(path: string): UnixListener {
  const umask = process.umask(0o177);
  try {
    return UnixListener.bind(path);
  } finally {
    process.umask(umask);
  }
}

/** @throws AerostatError AEROSTAT_SOCKET_IN_USE, AEROSTAT_SOCKET_PATH, or SystemError */
export function openKeeper(path: string, warn: (message: string) => void): { close(): Promise<void> } {
  replaceStale(path);
  const reactor = new Reactor();
  const keeper = new Keeper(listenForDaemons(path), reactor, warn);
  const ended = reactor.run();
  return {
    close: async () => {
      reactor.stop();
      await ended;
      keeper.close();
      reactor.close();
      unlinkSync(path);
    },
  };
}
