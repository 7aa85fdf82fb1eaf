/**
 * Hosts of one guest that come one after the other, and what of a guest's memory they know: ids of hint sessions from
 * before count for nothing, and memory in as many regions as there may be is accounted for.
 */
import { MessageChannel } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { HINT_STOP } from '../../src/balloon/hint-session.ts';
import type { GuestHost } from '../../src/hosting/guest-host.ts';
import { closeAll, openDescriptorCount } from '../../src/sys/fd.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { MEM_SLOTS_MAX } from '../../src/vhost-user/protocol.ts';
import { FIRST_PAGE, HandGuest, PFNS_PER_BUFFER, type RegionPlace } from '../daemon/hand-guest.ts';
import { hostGuest } from '../support/host-guest.ts';
import { TestLoop } from '../support/loop.ts';

const PAGE = 4096;
const MIB = 2 ** 20;
const BLOCK_BYTES = 64 * PAGE;

let openBefore: number;
let loop: TestLoop;

beforeEach(() => {
  openBefore = openDescriptorCount();
  loop = new TestLoop();
});

afterEach(() => {
  loop.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

/** A guest on a host of its own, in this thread, for as long as `use` takes. */
async function hosted(
  use: (host: GuestHost, guest: HandGuest) => Promise<void>,
  regions?: readonly RegionPlace[],
): Promise<void> {
  const discards = new MessageChannel();
  const [ours, theirs] = UnixSocket.pair();
  const host = hostGuest({ loop, socket: ours, discards: discards.port1 });
  try {
    const guest = await HandGuest.connect(theirs, { loop, ...(regions === undefined ? {} : { regions }) });
    try {
      await use(host, guest);
    } finally {
      guest.close();
    }
  } finally {
    await host.close();
    closeAll([theirs.fd]);
    discards.port1.close();
  }
}

const idBuffer = (id: number | null) => ({ out: new Uint8Array(Uint32Array.of(id ?? 0).buffer) });
const block = (pfn: number) => ({ in: [[pfn * PAGE, BLOCK_BYTES]] }) as const;

// Hosts that all begin at the same id fail it.
test('no hint id of the host before counts after a restart', async () => {
  const SESSIONS = 3;
  const former: number[] = [];
  await hosted(async (host, guest) => {
    for (let session = 0; session < SESSIONS; session++) {
      const { commandId } = host.hints.order('start', 60_000);
      await guest.queue('hint').exchange(idBuffer(commandId));
      await guest.queue('hint').exchange(block(FIRST_PAGE));
      expect(host.hints.status).toMatchObject({ state: 'running', hintedBytes: BLOCK_BYTES });
      former.push(commandId ?? 0);
    }
  });
  expect(new Set(former).size).toBe(SESSIONS);

  await hosted(async (host, guest) => {
    const hint = guest.queue('hint');
    const sendUnder = async (id: number) => {
      await hint.exchange(idBuffer(id));
      await hint.exchange(block(FIRST_PAGE));
      await hint.exchange(idBuffer(HINT_STOP));
    };
    for (const id of former) await sendUnder(id);
    expect(host.hints.status).toMatchObject({ state: 'idle', hintedBytes: 0, ranges: 0 });
    for (let session = 0; session < SESSIONS; session++) {
      const { commandId } = host.hints.order('start', 60_000);
      // That one of a thousand million ids is met by chance would be bad luck.
      expect(former).not.toContain(commandId);
      for (const id of former) await sendUnder(id);
      expect(host.hints.status).toMatchObject({ state: 'requested', hintedBytes: 0, ranges: 0 });
      await hint.exchange(idBuffer(commandId));
      await hint.exchange(block(FIRST_PAGE));
      expect(host.hints.status).toMatchObject({ state: 'running', hintedBytes: BLOCK_BYTES });
    }
    expect(host.device.hints.stalePages).toBe((SESSIONS + 1) * SESSIONS * 64);
  });
});

// A table that stops taking regions before its limit, or a status that leaves regions out, fails it.
test('509 regions: status and account have all of them, and a deflation takes back exactly its pages', async () => {
  const SMALL_PAGES = 8;
  const first = { guestAddress: 0, size: 4 * MIB };
  const small = Array.from({ length: MEM_SLOTS_MAX - 1 }, (_, index) => ({
    guestAddress: 16 * MIB + index * 2 * SMALL_PAGES * PAGE,
    size: SMALL_PAGES * PAGE,
  }));
  const pagesOf = (from: number, count: number): number[] =>
    small.flatMap(({ guestAddress }) =>
      Array.from({ length: count }, (_, page) => guestAddress / PAGE + from + page),
    );
  await hosted(
    async (host, guest) => {
      const send = async (role: 'inflate' | 'deflate', pages: readonly number[]) => {
        for (let at = 0; at < pages.length; at += PFNS_PER_BUFFER) {
          const list = Uint32Array.from(pages.slice(at, at + PFNS_PER_BUFFER));
          expect(await guest.queue(role).exchange({ out: new Uint8Array(list.buffer) })).toBe(0);
        }
      };
      const memoryBytes = first.size + small.length * SMALL_PAGES * PAGE;
      expect(host.status()).toMatchObject({ memoryBytes, balloonedBytes: 0 });
      expect(host.balloon()).toHaveLength(MEM_SLOTS_MAX);

      await send('inflate', pagesOf(1, 6));
      expect(host.status()).toMatchObject({ balloonedBytes: 6 * small.length * PAGE });
      await send('deflate', pagesOf(2, 3));
      expect(host.status()).toMatchObject({
        balloonedBytes: 3 * small.length * PAGE,
        counters: { pages: 6 * small.length, deflatedPages: 3 * small.length, badPages: 0, badBuffers: 0 },
      });
      for (const { region, ballooned } of host.device.accounts.all) {
        const runs: [number, number][] = [];
        ballooned.forEachRun((page, count) => runs.push([page, count]));
        const expected = [
          [1, 1],
          [5, 2],
        ];
        expect(runs).toEqual(region.guestAddress === 0 ? [] : expected);
      }
      // Behind each region there is nothing, though the next one is near.
      await send('inflate', pagesOf(SMALL_PAGES, 2));
      expect(host.status()).toMatchObject({ balloonedBytes: 3 * small.length * PAGE });
      await send('deflate', [...pagesOf(1, 1), ...pagesOf(5, 2)]);
      expect(host.status()).toMatchObject({ memoryBytes, balloonedBytes: 0 });
    },
    [first, ...small],
  );
});
