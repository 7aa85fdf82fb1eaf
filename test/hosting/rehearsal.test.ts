/** A rehearsal of what a thread is about to do: it comes to its end, and leaves nothing behind. */
import { MessageChannel } from 'node:worker_threads';
import { expect, test } from 'vitest';
import type { GuestHost } from '../../src/hosting/guest-host.ts';
import { rehearse } from '../../src/hosting/rehearsal.ts';
import { ThreadTurns } from '../../src/hosting/thread-turns.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { CONTROL_WORDS, DiscardLink } from '../../src/threads/discard-link.ts';
import { TestLoop } from '../support/loop.ts';

test('takes a guest over again and again, tells of nothing, and leaves nothing open', async () => {
  const loop = new TestLoop();
  const openBefore = openDescriptorCount();
  const discards = new MessageChannel();
  const told: string[] = [];
  const hosts: (GuestHost | undefined)[] = [];
  const { reactor } = loop;
  await loop.until(
    rehearse(
      {
        reactor,
        turns: new ThreadTurns(),
        discards: new DiscardLink(
          new SharedArrayBuffer(CONTROL_WORDS * 4),
          discards.port1,
          reactor.wakeFd.number,
        ),
        emit: (_, type) => told.push(type),
        log: (_, level, message) => told.push(`${level} ${message}`),
      },
      host => hosts.push(host),
    ),
  );
  discards.port1.close();
  expect(told).toEqual([]);
  expect(hosts.length).toBeGreaterThan(10);
  expect(hosts.at(-1)).toBeUndefined();
  await loop.turnUntil(() => openDescriptorCount() === openBefore);
  loop.close();
});
