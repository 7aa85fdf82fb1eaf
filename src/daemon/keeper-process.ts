/** The keeper as a process: its socket and its loop. */
import { unlinkSync } from 'node:fs';
import { replaceStale } from '../hosting/guest-socket.ts';
import { Keeper, listenForDaemons } from '../keeping/keeper.ts';
import { Reactor } from '../sys/poll.ts';

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
