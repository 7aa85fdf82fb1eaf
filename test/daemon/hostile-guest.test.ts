/**
 * Guests that write nonsense into their rings and lists, at one daemon: each gets its buffer back or has its ring
 * stopped, is counted and mentioned once in the log, and the guest next door goes on.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { STATS_VQ } from '../../src/balloon/features.ts';
import type { GuestCounters } from '../../src/control/contract.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { RING_INDIRECT_DESC, RING_PACKED } from '../../src/virtio/features.ts';
import { DESCRIPTOR_FLAG, PACKED_DESCRIPTOR } from '../../src/virtio/layout.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { FIRST_PAGE, HandGuest, type HandGuestOptions, pfnList } from './hand-guest.ts';
import { complaintsOf, NEIGHBOUR, Neighbour } from './neighbour.ts';

const MIB = 2 ** 20;
const MEMORY_BYTES = 64 * MIB;
const MEMORY_PAGES = MEMORY_BYTES / PAGE_SIZE;
const RING_SIZE = 64;
/** Somewhere in the guest's memory. */
const LIST = 0x10_0000;
const { NEXT, WRITE, INDIRECT, AVAIL } = DESCRIPTOR_FLAG;

interface Nonsense {
  readonly title: string;
  /** What the guest does. Gives the lengths with which its buffers came back, if they did. */
  readonly send: (guest: HandGuest) => Promise<readonly number[]>;
  readonly counter: keyof GuestCounters;
  readonly log: RegExp;
  readonly options?: Partial<HandGuestOptions>;
}

/** Writes descriptors into the inflate ring, offers head 0, and waits for it. */
const forge =
  (write: (queue: ReturnType<HandGuest['queue']>, guest: HandGuest) => void) =>
  async (guest: HandGuest): Promise<number[]> => {
    const queue = guest.queue('inflate');
    write(queue, guest);
    queue.forgeOffer(0);
    const returns = await queue.forgedReturns(1);
    expect(returns.map(([id]) => id)).toEqual([0]);
    return returns.map(([, length]) => length);
  };

const RINGS: readonly Nonsense[] = [
  {
    title: 'a descriptor that goes on with itself',
    send: forge(queue => queue.forgeDescriptor(0, LIST, 4, NEXT, 0)),
    counter: 'badBuffers',
    log: /inflate queue was refused: loop/,
  },
  {
    title: 'descriptors in a circle through the whole table',
    send: forge(queue => {
      for (let at = 0; at < RING_SIZE; at++) queue.forgeDescriptor(at, LIST, 4, NEXT, (at + 1) % RING_SIZE);
    }),
    counter: 'badBuffers',
    log: /loop/,
  },
  {
    title: 'a descriptor that goes on beyond the table',
    send: forge(queue => queue.forgeDescriptor(0, LIST, 4, NEXT, RING_SIZE)),
    counter: 'badBuffers',
    log: /next-range/,
  },
  {
    title: 'heads beyond the table',
    send: async guest => {
      const queue = guest.queue('inflate').forgeOffer(RING_SIZE, 0xffff);
      const returns = await queue.forgedReturns(2);
      expect(returns.map(([id]) => id)).toEqual([RING_SIZE, 0xffff]);
      return returns.map(([, length]) => length);
    },
    counter: 'badBuffers',
    log: /head-range/,
  },
  {
    title: 'a descriptor outside memory',
    send: forge(queue => queue.forgeDescriptor(0, 2 ** 52, 4)),
    counter: 'badBuffers',
    log: /address/,
  },
  {
    title: 'a descriptor of 4 GiB that ends outside memory',
    send: forge(queue => queue.forgeDescriptor(0, LIST, 2 ** 32 - 1)),
    counter: 'badBuffers',
    log: /address/,
  },
  {
    title: 'a descriptor that ends where addresses do',
    send: forge(queue => queue.forgeDescriptor(0, 2 ** 64 - 2048, 2048)),
    counter: 'badBuffers',
    log: /address/,
  },
  {
    title: 'something to read after something to write',
    send: forge(queue => queue.forgeDescriptor(0, LIST, 4, WRITE | NEXT, 1).forgeDescriptor(1, LIST, 4)),
    counter: 'badBuffers',
    log: /order/,
  },
  {
    title: 'an indirect table that was not negotiated',
    send: forge(queue => queue.forgeDescriptor(0, LIST, 16, INDIRECT)),
    counter: 'badBuffers',
    log: /indirect-refused/,
  },
  {
    title: 'an indirect table of 4 GiB',
    send: forge(queue => queue.forgeDescriptor(0, LIST, 2 ** 32 - 16, INDIRECT)),
    counter: 'badBuffers',
    log: /indirect-length/,
    options: { ringFeatures: RING_INDIRECT_DESC },
  },
  {
    title: 'more buffers than the ring has room for',
    send: async guest => {
      const queue = guest.queue('inflate');
      queue.availIndex = RING_SIZE + 1;
      guest.frontend.kick(queue.index);
      await guest.loop.turnUntil(() => guest.brokenRings.length > 0);
      expect(guest.brokenRings).toEqual([queue.index]);
      return [];
    },
    counter: 'brokenRings',
    log: /ring 0 refused/,
  },
  {
    title: 'a packed ring whose list never ends',
    send: async guest => {
      const queue = guest.queue('inflate');
      const descriptor = { address: LIST, length: 4, id: 0, flags: AVAIL | NEXT };
      for (let at = 0; at < RING_SIZE; at++) {
        guest.memory.write(
          queue.config.descriptorArea + at * PACKED_DESCRIPTOR.size,
          PACKED_DESCRIPTOR.encode(descriptor),
        );
      }
      guest.frontend.kick(queue.index);
      await guest.loop.turnUntil(() => guest.brokenRings.length > 0);
      return [];
    },
    counter: 'brokenRings',
    log: /ring 0 refused/,
    options: { ringFeatures: RING_PACKED },
  },
  {
    title: 'a packed ring with a descriptor outside memory',
    send: async guest => [
      await guest.queue('inflate').exchange({ outAt: [[MEMORY_BYTES - PAGE_SIZE, 2 * PAGE_SIZE]] }),
    ],
    counter: 'badBuffers',
    log: /address/,
    options: { ringFeatures: RING_PACKED },
  },
];

const LISTS: readonly Nonsense[] = [
  {
    title: 'a list of 2^32 bytes',
    send: forge(queue => {
      // All of memory, as often as the ring has descriptors.
      for (let at = 0; at < RING_SIZE; at++) {
        queue.forgeDescriptor(at, 0, MEMORY_BYTES, at + 1 < RING_SIZE ? NEXT : 0, at + 1);
      }
    }),
    counter: 'badBuffers',
    log: /a page list of 4294967296 bytes/,
  },
  {
    title: 'a list that ends within a page number',
    send: async guest => [
      await guest.queue('inflate').exchange({ out: pfnList(FIRST_PAGE, 2).subarray(0, 7) }),
    ],
    counter: 'badBuffers',
    log: /ends after 3 bytes/,
  },
  {
    title: 'pages outside memory',
    send: async guest => [
      await guest.queue('inflate').exchange({ out: pfnList(MEMORY_PAGES, 10) }),
      await guest.queue('inflate').exchange({ out: pfnList(0xffff_ff00, 256) }),
    ],
    counter: 'badPages',
    log: /pages on the inflate queue are not guest memory/,
  },
  {
    title: 'buffers to write into where page numbers should be',
    send: async guest => [
      await guest.queue('inflate').exchange({ in: [[FIRST_PAGE * PAGE_SIZE, PAGE_SIZE]] }),
    ],
    counter: 'badBuffers',
    log: /in-bufs/,
  },
  {
    title: 'statistics of one byte',
    send: async guest => [await guest.queue('stats').exchange({ out: new Uint8Array(1) })],
    counter: 'badBuffers',
    log: /stats queue was refused/,
  },
  {
    title: 'statistics of 10 MB',
    send: async guest => [await guest.queue('stats').exchange({ outAt: [[0, 10_000_000]] })],
    counter: 'badBuffers',
    log: /statistics of 10000000 bytes/,
  },
  {
    title: 'a hint command of three bytes',
    send: async guest => [await guest.queue('hint').exchange({ out: new Uint8Array(3) })],
    counter: 'badBuffers',
    log: /a hint command of 3 bytes/,
  },
  {
    title: 'a free page that begins in the middle of one',
    send: async guest => [
      await guest.queue('reporting').exchange({ in: [[FIRST_PAGE * PAGE_SIZE + 1, PAGE_SIZE]] }),
    ],
    counter: 'badBuffers',
    log: /reporting queue was refused/,
  },
  {
    title: 'the pages that its own rings lie in',
    send: async guest => {
      const queue = guest.queue('inflate');
      queue.add({ out: pfnList(0, 16) });
      queue.kick();
      // They are gone when they read as zeros, and what the device knows of the ring makes no sense any more.
      await guest.loop.turnUntil(() => queue.availIndex === 0);
      guest.frontend.kick(queue.index);
      await guest.loop.turnUntil(() => guest.brokenRings.length > 0);
      return [];
    },
    counter: 'brokenRings',
    log: /ring 0 refused/,
  },
  {
    title: 'a balloon larger than its memory',
    send: async guest => {
      await guest.writeActual(MEMORY_PAGES + 1);
      return [];
    },
    counter: 'badRequests',
    log: /says that its balloon holds/,
  },
];

const ALL = [...RINGS, ...LISTS];
const nameOf = (nonsense: Nonsense): string => `guest${ALL.indexOf(nonsense)}`;

describe('a guest that sends', () => {
  let loop: TestLoop;
  let daemon: DaemonProcess;
  let neighbour: Neighbour;

  beforeAll(async () => {
    build();
    loop = new TestLoop();
    daemon = await DaemonProcess.start([NEIGHBOUR, ...ALL.map(nameOf), 'tireless']);
    neighbour = await Neighbour.connect(daemon, loop);
  });

  afterAll(async () => {
    neighbour?.close();
    await daemon?.stop();
    loop.close();
  });

  test.each(ALL)('$title', async nonsense => {
    const { send, counter, log, options } = nonsense;
    const name = nameOf(nonsense);
    const guest = await HandGuest.connect(daemon.socketOf(name), {
      loop,
      memoryBytes: MEMORY_BYTES,
      queueSize: RING_SIZE,
      ...options,
    });
    try {
      const lengths = await neighbour.livesThrough(() => send(guest));
      expect(lengths.every(length => length === 0)).toBe(true);
      const { counters, lastError, balloonedBytes } = await daemon.control.guest(name);
      expect(counters[counter]).toBeGreaterThan(0);
      expect(lastError).toMatch(log);
      if (counter !== 'brokenRings') expect(balloonedBytes).toBe(0);
      await daemon.until(
        () => complaintsOf(daemon, name).length > 0,
        () => 'nothing in the log',
      );
      const complaints = complaintsOf(daemon, name);
      expect(complaints).toHaveLength(1);
      expect(complaints[0]).toMatch(log);
      // Its other rings go on, and with a ring that was not stopped so does that one.
      await guest.queue('deflate').exchange({ out: pfnList(FIRST_PAGE, 1) });
    } finally {
      guest.close();
    }
    // The next front-end finds a device as if nothing had been.
    const next = await HandGuest.connect(daemon.socketOf(name), { loop, memoryBytes: MEMORY_BYTES });
    await next.inflate(FIRST_PAGE, 10);
    expect((await daemon.control.guest(name)).balloonedBytes).toBe(10 * PAGE_SIZE);
    next.close();
  });

  test('nonsense without end fills its counter, not the log', async () => {
    const guest = await HandGuest.connect(daemon.socketOf('tireless'), { loop, without: STATS_VQ });
    const queue = guest.queue('inflate');
    const rounds = 50;
    await neighbour.livesThrough(async () => {
      for (let round = 0; round < rounds; round++) {
        let buffers = 0;
        while (queue.add({ outAt: [[2 ** 52, 4]] })) buffers++;
        expect(buffers).toBe(RING_SIZE);
        queue.kick();
        await queue.returned(buffers);
      }
    });
    expect((await daemon.control.guest('tireless')).counters.badBuffers).toBe(rounds * RING_SIZE);
    expect(complaintsOf(daemon, 'tireless')).toHaveLength(1);
    guest.close();
  });
});
