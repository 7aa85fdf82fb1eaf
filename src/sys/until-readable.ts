/**
 * Waiting for a descriptor on a thread that has no loop of ours ({@link import('./poll.ts').Reactor}): the main thread of a
 * daemon, which Node's own loop runs. A thread of Node's pool waits in its place.
 */
import type { OwnedFd } from './fd.ts';
import { pollAsync } from './libc.ts';
import { Arena } from './mapping.ts';
import { struct } from './struct.ts';

const POLLIN = 0x1;
const POLLFD = struct('pollfd', 8, { fd: ['u32', 0], events: ['u16', 4], revents: ['u16', 6] });

/** A process that ends waits for the threads of its pool. */
const WAIT_MS_MAX = 250;

/** Those that no wait uses. */
const idle: Arena[] = [];

/** Resolves when `fd` can be read or is hung up, and after a moment in any case: the caller looks, and waits again. */
export async function untilReadable(fd: OwnedFd): Promise<void> {
  const arena = idle.pop() ?? new Arena(POLLFD.size);
  POLLFD.write(arena.view, 0, { fd: fd.number, events: POLLIN, revents: 0 });
  await pollAsync(arena.address, 1, WAIT_MS_MAX);
  idle.push(arena);
}
