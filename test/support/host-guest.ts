/** One guest hosted in the test's own thread, on its loop, over one end of a pair of sockets. */
import type { MessagePort } from 'node:worker_threads';
import { GuestHost } from '../../src/hosting/guest-host.ts';
import type { GuestHostWorld } from '../../src/hosting/guest-world.ts';
import type { GuestOptions } from '../../src/hosting/options.ts';
import { ThreadTurns } from '../../src/hosting/thread-turns.ts';
import type { UnixSocket } from '../../src/sys/socket.ts';
import { CONTROL_WORDS, DiscardLink } from '../../src/threads/discard-link.ts';
import type { TestLoop } from './loop.ts';

export interface HostedPlace {
  readonly loop: TestLoop;
  /** The guest's end of the pair; the host takes it. */
  readonly socket: UnixSocket;
  /** Takes what would be said to the discarding thread. */
  readonly discards: MessagePort;
}

/** Hosts guest `g` of the standard's ABI; nothing of it is discarded unless `options` say so. */
export function hostGuest(
  { loop, socket, discards }: HostedPlace,
  options: Partial<GuestOptions> = {},
  { emit = () => {}, log = () => {} }: Partial<Pick<GuestHostWorld, 'emit' | 'log'>> = {},
): GuestHost {
  return new GuestHost(
    {
      name: 'g',
      fd: socket.fd.number,
      targetBytes: 0,
      profile: 'virtio',
      discard: 'none',
      without: [],
      pollIntervalMs: 0,
      ...options,
    },
    { fd: socket.fd.release(), listening: false },
    {
      reactor: loop.reactor,
      turns: new ThreadTurns(),
      discards: new DiscardLink(
        new SharedArrayBuffer(CONTROL_WORDS * 4),
        discards,
        loop.reactor.wakeFd.number,
      ),
      emit,
      log,
    },
  );
}
