/**
 * A data-plane thread: blocks in poll(2) until a guest kicks, a front-end speaks or the main thread rings, and
 * serves it. What its guests are and what is answered for them is thread-guests.ts's.
 */
import { PerformanceObserver } from 'node:perf_hooks';
import { type MessagePort, parentPort } from 'node:worker_threads';
import { DescriptorStore, StoreRoom } from '../keeping/descriptor-store.ts';
import type { GuestsKeeper } from '../keeping/guests-keeper.ts';
import { KeeperLink } from '../keeping/keeper-link.ts';
import { InvariantError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { Reactor } from '../sys/poll.ts';
import { UnixSocket } from '../sys/socket.ts';
import { DiscardLink } from '../threads/discard-link.ts';
import { startData } from '../threads/early-worker.ts';
import { ThreadGuests } from './thread-guests.ts';
import type { DataThreadData, KeeperPlace } from './worker-protocol.ts';

if (parentPort === null) throw new InvariantError('a data-plane thread without a main thread');

async function serve(port: MessagePort): Promise<void> {
  const { wakeFd, bellFd, discardControl, discardPort, keeper } = await startData<DataThreadData>();

  let gcPauseMaxMs = 0;
  new PerformanceObserver(entries => {
    for (const entry of entries.getEntries()) gcPauseMaxMs = Math.max(gcPauseMaxMs, entry.duration);
  }).observe({ entryTypes: ['gc'] });

  const reactor = new Reactor(new OwnedFd(wakeFd));
  const discards = new DiscardLink(discardControl, discardPort, bellFd);
  const warn = (message: string): void =>
    port.postMessage({ kind: 'log', record: { level: 'warn', message } });
  const keeperAt = ({ kind, fd, room }: KeeperPlace): GuestsKeeper => {
    if (kind === 'process' || room === undefined) {
      return KeeperLink.ofNumber(fd, why => warn(`guests are not kept for the next daemon any more: ${why}`));
    }
    return new DescriptorStore(new UnixSocket(new OwnedFd(fd)), new StoreRoom(room), {
      warn,
      later: (delayMs, run, socket) =>
        reactor.waitForRoom(
          delayMs,
          () => {
            run();
            // Messages whose descriptors it was to take first.
            guests.progress();
          },
          socket,
        ),
    });
  };
  const kept = keeper && keeperAt(keeper);
  const guests = new ThreadGuests({
    reactor,
    discards,
    keeper: kept,
    tell: message => port.postMessage(message),
    gcPauseMaxMs: () => gcPauseMaxMs,
  });

  // Node hands requests over between two turns. Each came before the ring that ended the wait for it.
  port.on('message', guests.serve);
  let wakes = 0;
  await reactor.run(() => {
    if (reactor.wakes === wakes) return;
    wakes = reactor.wakes;
    // It may have been a thread that discards.
    guests.progress();
  });
  if (kept instanceof DescriptorStore) kept.flush();
  reactor.close();
  discards.close();
  port.close();
}

void serve(parentPort);
