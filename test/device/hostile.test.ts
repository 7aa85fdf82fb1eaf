/**
 * A guest that writes nonsense. Each of its buffers comes back with length 0 and costs a counter and a word to the
 * host; the other queues go on; a ring without sense is stopped; and nothing is ever thrown.
 */
import { afterAll, describe, expect, test } from 'vitest';
import type { QueueRole } from '../../src/balloon/features.ts';
import { LIST_BYTES_MAX } from '../../src/balloon/page-list.ts';
import { FileBacking } from '../../src/memory/backing.ts';
import { MemoryRegion } from '../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { libc } from '../../src/sys/libc.ts';
import { createDeviceQueue } from '../../src/virtio/create.ts';
import { IN_ORDER, RING_INDIRECT_DESC } from '../../src/virtio/features.ts';
import { DESCRIPTOR_FLAG } from '../../src/virtio/layout.ts';
import {
  type DeviceRig,
  FIRST_PAGE,
  type GuestBuffer,
  openRig,
  packed,
  pfns,
  type RigQueue,
  u32,
} from '../support/device-rig.ts';

const P = FIRST_PAGE;
const { NEXT, WRITE, INDIRECT } = DESCRIPTOR_FLAG;
const ROLES = ['inflate', 'deflate', 'stats', 'hint', 'reporting'] as const satisfies readonly QueueRole[];

afterAll(() => expect(openDescriptorCount()).toBe(0));

/** All queues but `spared` still do what they are for. */
function expectOthersToWork(rig: DeviceRig, spared?: QueueRole): void {
  const { device } = rig;
  if (spared !== 'inflate') {
    const before = rig.balloonedPages;
    expect(rig.inflate([P + 900, 1]).map(({ written }) => written)).toEqual([0]);
    expect(rig.balloonedPages).toBe(before + 1);
  }
  if (spared !== 'deflate') {
    expect(rig.deflate([P + 900, 1]).map(({ written }) => written)).toEqual([0]);
  }
  if (spared !== 'stats') {
    rig.queue('stats').exchange({ out: [new Uint8Array(10)] });
    expect(device.statistics.sample.swapInBytes).toBe(0);
  }
  if (spared !== 'reporting') {
    const before = device.reporting.totals.punches;
    rig.queue('reporting').exchange({ in: [[(P + 901) * PAGE_SIZE, PAGE_SIZE]] });
    expect(device.reporting.totals.punches).toBe(before + 1);
  }
  if (spared !== 'hint') {
    const id = device.hints.start();
    rig.queue('hint').exchange({ out: [u32(id)] });
    expect(device.hints.phase).toBe('running');
  }
}

describe('a buffer that is nonsense in every queue', () => {
  const BAD: readonly (readonly [string, (rig: DeviceRig) => GuestBuffer])[] = [
    ['an address outside of memory', rig => ({ outAt: [[rig.region.end, 64]] })],
    ['an address that overflows', () => ({ outAt: [[2 ** 53 - 4096, 8192]] })],
    ['a run that leaves memory', rig => ({ in: [[rig.region.end - 4096, 8192]] })],
    ['a list of four megabytes', () => ({ outAt: [[0, 4 * 2 ** 20]] })],
  ];

  describe.each(ROLES)('%s', role => {
    test.each(BAD)('%s comes back with length 0', (_, make) => {
      const rig = openRig();
      const queue = rig.queue(role);
      expect(queue.exchange(make(rig))).toEqual([{ token: 0, written: 0 }]);
      expect(rig.device.counters.badBuffers).toBe(1);
      expect(rig.host.badInputs).toHaveLength(1);
      expect(rig.host.badInputs[0]).toContain(role);
      expect(rig.balloonedPages).toBe(0);
      expectOthersToWork(rig);
    });

    const forged = (
      forge: (queue: RigQueue) => void,
      heads: readonly number[],
      rig = openRig({ queueSize: 8, ringFeatures: RING_INDIRECT_DESC }),
    ) => {
      const queue = rig.queue(role);
      forge(queue);
      queue.forgeOffer(...heads);
      expect(queue.forgedReturns()).toEqual(heads.map(head => [head, 0]));
      expect(rig.device.counters.badBuffers).toBe(heads.length);
      expect(rig.host.badInputs).toHaveLength(heads.length);
      expectOthersToWork(rig, role);
    };

    test('a chain that loops comes back with length 0', () => {
      forged(
        queue => {
          queue.forgeDescriptor(0, 0, 16, NEXT, 1);
          queue.forgeDescriptor(1, 0, 16, NEXT, 0);
        },
        [0],
      );
    });

    test('heads and links out of the table come back with length 0', () => {
      forged(queue => queue.forgeDescriptor(0, 0, 16, NEXT, 4711), [0, 8, 0xffff]);
    });

    test('readable segments after writable ones come back with length 0', () => {
      forged(
        queue => {
          queue.forgeDescriptor(0, 0, 16, WRITE | NEXT, 1);
          queue.forgeDescriptor(1, 0, 16);
        },
        [0],
      );
    });

    test('a table without end, in itself or empty comes back with length 0', () => {
      forged(
        queue => {
          queue.forgeDescriptor(0, queue.config.descriptorArea, 16, INDIRECT);
          queue.forgeDescriptor(1, 0, 0, INDIRECT);
          queue.forgeDescriptor(2, 0, 2 ** 32 - 16, INDIRECT);
        },
        [0, 1, 2],
      );
    });

    test('a buffer of 2^32 bytes and more comes back with length 0', () => {
      forged(
        queue => {
          queue.forgeDescriptor(0, 0, 2 ** 32 - 1, NEXT, 1);
          queue.forgeDescriptor(1, 0, 2 ** 32 - 1);
        },
        [0],
      );
      const rig = openRig({ memory: 'shmem', memoryBytes: 2 ** 33, queueSize: 8 });
      forged(
        queue => {
          queue.forgeDescriptor(0, 0, 2 ** 32 - 1, NEXT, 1);
          queue.forgeDescriptor(1, 0, 2 ** 32 - 1);
        },
        [0],
        rig,
      );
    });
  });
});

describe.each([
  ['split', {}],
  ['packed', packed],
])('page frame numbers (%s rings)', (_, rings) => {
  test('that end in the middle of a number are refused whole', () => {
    const rig = openRig(rings);
    rig.queue('inflate').exchange({ out: [pfns(P, P + 1), new Uint8Array(3)] });
    expect(rig.balloonedPages).toBe(0);
    expect(rig.device.counters.badBuffers).toBe(1);
  });

  test('outside of memory are counted, told, and left alone; those inside count', () => {
    const rig = openRig(rings);
    const { pageCount } = rig.region;
    expect(rig.queue('inflate').exchange({ out: [pfns(P, pageCount, 0xffff_ffff, P + 1)] })).toHaveLength(1);
    expect(rig.balloonedPages).toBe(2);
    expect(rig.device.counters).toMatchObject({ pages: 4, badPages: 2, badBuffers: 0 });
    expect(rig.host.badInputs).toHaveLength(1);
    rig.queue('deflate').exchange({ out: [pfns(pageCount)] });
    expect(rig.host.badInputs).toHaveLength(2);
    expectOthersToWork(rig);
  });

  test('in in-bufs are refused, and so is a mixture', () => {
    const rig = openRig(rings);
    rig.queue('inflate').exchange({ in: [[P * PAGE_SIZE, PAGE_SIZE]] });
    rig.queue('deflate').exchange({ out: [pfns(P)], in: [[P * PAGE_SIZE, PAGE_SIZE]] });
    expect(rig.device.counters.badBuffers).toBe(2);
    expect(rig.balloonedPages).toBe(0);
  });

  test('of the longest list there may be are taken, and of one byte more refused unread', () => {
    const rig = openRig({ ...rings, memoryBytes: 2 ** 25 });
    const longest = LIST_BYTES_MAX / 4;
    const base = P * PAGE_SIZE;
    for (let index = 0; index < longest; index++) rig.memory.setU32(base + index * 4, P + (index % 256));
    rig.queue('inflate').exchange({ outAt: [[base, LIST_BYTES_MAX]] });
    expect(rig.balloonedPages).toBe(256);
    rig.queue('inflate').exchange({ outAt: [[base, LIST_BYTES_MAX + 4]] });
    expect(rig.device.counters.badBuffers).toBe(1);
    expect(rig.device.counters.listBytes).toBe(LIST_BYTES_MAX);
  });

  test('of no bytes at all change nothing', () => {
    const rig = openRig(rings);
    expect(rig.queue('inflate').exchange({ outAt: [[0, 0]] })).toEqual([{ token: 0, written: 0 }]);
    expect(rig.balloonedPages).toBe(0);
  });
});

test('a guest may give away the pages that hold its rings: the ring is empty then, and the device goes on', () => {
  const rig = openRig({ memory: 'shmem' });
  const inflate = rig.queue('inflate');
  const { pageCount } = rig.region;
  inflate.add({ out: [pfns(...Array.from({ length: FIRST_PAGE }, (_, index) => index))] });
  expect(() => inflate.kick()).not.toThrow();
  rig.device.drain();
  expect(rig.balloonedPages).toBe(FIRST_PAGE);
  // A queue whose ring is zeros has nothing available, or fewer than it had: either way the device lives.
  for (const role of ROLES) rig.queue(role).kick();
  for (const queue of rig.queues) rig.device.stopQueue(queue.index, 'abandoned');
  for (const queue of rig.queues) {
    queue.driver.detachUnused(() => {});
    queue.driver.initialize(rig.memory);
  }
  const fresh = rig.queue('inflate');
  rig.device.startQueue(0, createDeviceQueue(fresh.config), rig.memory, {
    interrupt: () => {},
    fail: () => {},
  });
  fresh.exchange({ out: [pfns(pageCount - 1)] });
  expect(rig.balloonedPages).toBe(1);
});

test('`actual` may be more than memory, and is nothing but reported', () => {
  const rig = openRig();
  rig.writeConfig('actual', 0xffff_ffff);
  expect(rig.device.actualPages).toBe(0xffff_ffff);
  expect(rig.balloonedPages).toBe(0);
  expectOthersToWork(rig);
});

describe('statistics', () => {
  test('of a megabyte are refused unread', () => {
    const rig = openRig();
    expect(rig.queue('stats').exchange({ outAt: [[0, 2 ** 20]] })).toEqual([{ token: 0, written: 0 }]);
    expect(rig.device.counters).toMatchObject({ badBuffers: 1, statsBuffers: 1 });
    expect(rig.host.statisticsSamples).toBe(0);
    expectOthersToWork(rig);
  });

  test('that are cut off are refused', () => {
    const rig = openRig();
    expect(rig.queue('stats').exchange({ out: [new Uint8Array(11)] })).toEqual([{ token: 0, written: 0 }]);
    expect(rig.device.counters.badBuffers).toBe(1);
  });

  test.each([
    ['', 0n],
    [' on a ring in order', IN_ORDER],
  ])('that are posted twice give the older buffer back%s', (_, ringFeatures) => {
    const rig = openRig({ ringFeatures });
    const queue = rig.queue('stats');
    expect(queue.exchange({ out: [new Uint8Array(10)] })).toEqual([]);
    expect(queue.exchange({ out: [new Uint8Array(10)] })).toEqual([{ token: 0, written: 0 }]);
    rig.device.requestStatistics();
    expect(queue.collect()).toEqual([{ token: 1, written: 0 }]);
  });

  test.each([
    ['split', 0n],
    ['packed', packed.ringFeatures],
  ])('that are bad come back behind the good ones that are kept, on a %s ring in order', (_, kind) => {
    const rig = openRig({ ringFeatures: IN_ORDER | kind });
    const queue = rig.queue('stats');
    queue.exchange({ out: [new Uint8Array(10)] });
    expect(queue.exchange({ out: [new Uint8Array(7)] }).map(({ token }) => token)).toEqual([0, 1]);
    queue.exchange({ out: [new Uint8Array(20)] });
    expect(queue.exchange({ outAt: [[2 ** 40, 10]] }).map(({ token }) => token)).toEqual([2, 3]);
    expectOthersToWork(rig);
  });
});

describe('hints', () => {
  test('with a command of 3 bytes, or of 8, are refused, and so are the pages behind it', () => {
    const rig = openRig();
    const id = rig.device.hints.start();
    const queue = rig.queue('hint');
    queue.exchange({ out: [u32(id)] });
    const block = [P * PAGE_SIZE, PAGE_SIZE] as const;
    queue.exchange({ out: [new Uint8Array(3)] });
    queue.exchange({ out: [u32(id), u32(id)], in: [block] });
    expect(rig.device.counters.badBuffers).toBe(2);
    expect(rig.unusedPages.pages).toBe(0);
    expect(rig.device.hints.phase).toBe('running');
  });

  test('without a session count for nothing', () => {
    const rig = openRig();
    const queue = rig.queue('hint');
    queue.exchange({ in: [[P * PAGE_SIZE, PAGE_SIZE]] });
    queue.exchange({ out: [u32(0x8000_0000)] });
    queue.exchange({ in: [[P * PAGE_SIZE, PAGE_SIZE]] });
    expect(rig.unusedPages.pages).toBe(0);
    expect(rig.device.hints.phase).toBe('idle');
    expect(rig.host.configChanges).toBe(0);
  });

  test('in the middle of a page are refused', () => {
    const rig = openRig();
    const queue = rig.queue('hint');
    queue.exchange({ out: [u32(rig.device.hints.start())] });
    queue.exchange({ in: [[P * PAGE_SIZE + 1, PAGE_SIZE]] });
    queue.exchange({ in: [[P * PAGE_SIZE, 100]] });
    expect(rig.device.counters.badBuffers).toBe(2);
    expect(rig.unusedPages.pages).toBe(0);
  });
});

describe('reports', () => {
  test.each([
    [
      'odd lengths',
      [
        [P * PAGE_SIZE, PAGE_SIZE],
        [(P + 1) * PAGE_SIZE, 100],
      ],
    ],
    [
      'odd addresses',
      [
        [P * PAGE_SIZE, PAGE_SIZE],
        [(P + 1) * PAGE_SIZE + 8, PAGE_SIZE],
      ],
    ],
    [
      'no bytes',
      [
        [P * PAGE_SIZE, PAGE_SIZE],
        [(P + 1) * PAGE_SIZE, 0],
      ],
    ],
  ] as const)('with %s are refused before a page of them is touched', (_, blocks) => {
    const rig = openRig();
    rig.touch(P, 2, 0x88);
    expect(rig.queue('reporting').exchange({ in: blocks })).toEqual([{ token: 0, written: 0 }]);
    expect(rig.contentOf(P)).toBe(0x88);
    expect(rig.device.counters.badBuffers).toBe(1);
    expectOthersToWork(rig);
  });

  test('of the same pages over and over end when the list has named as many as there are', () => {
    const rig = openRig({ profile: 'hinting' });
    const half = rig.region.pageCount / 2;
    // Order 11 is 8 MiB: two of the 32 blocks make up all of memory.
    const block = half * PAGE_SIZE + 11;
    const words = Array.from({ length: 32 }, () => [block % 2 ** 32, Math.floor(block / 2 ** 32)]);
    rig.queue('hinting').exchange({ out: [pfns(...words.flat())] });
    expect(rig.device.reporting.totals).toMatchObject({ punches: 2, bytes: 2 * half * PAGE_SIZE });
    expect(rig.device.counters.badPages).toBe(30 * half);
    expect(rig.host.badInputs).toHaveLength(1);
  });
});

describe('requests', () => {
  test('are not written into buffers that are too small, or in pieces', () => {
    const rig = openRig({ profile: 'page-order' });
    const queue = rig.queue('request');
    expect(queue.exchange({ in: [[P * PAGE_SIZE, 15]] })).toEqual([{ token: 0, written: 0 }]);
    expect(
      queue.exchange({
        in: [
          [P * PAGE_SIZE, 8],
          [P * PAGE_SIZE + 8, 8],
        ],
      }),
    ).toHaveLength(1);
    expect(rig.device.counters.badBuffers).toBe(2);
    rig.device.sendRequest(0);
    expect(queue.collect()).toEqual([]);
  });

  test('whose buffer is posted twice give the older one back', () => {
    const rig = openRig({ profile: 'page-order' });
    const queue = rig.queue('request');
    expect(queue.exchange({ in: [[P * PAGE_SIZE, 16]] })).toEqual([]);
    expect(queue.exchange({ in: [[P * PAGE_SIZE, 16]] })).toEqual([{ token: 0, written: 0 }]);
  });

  test('with answers that nobody asked for leave the pages alone', () => {
    const rig = openRig({ profile: 'page-order' });
    const { protocol, format } = rig.profile.freePages as Extract<
      typeof rig.profile.freePages,
      { kind: 'request' }
    >;
    const edit = (list: Parameters<typeof protocol.writeAnswer>[0]) =>
      protocol.writeAnswer(list, { command: 0, id: 7, done: true });
    for (const buffer of rig.encode(format, [[P, 4]], { edit })) rig.queue('request').exchange(buffer);
    expect(rig.unusedPages.pages).toBe(0);
    expect(rig.host.requestsAnswered).toBe(0);
  });

  test.each(['page-bitmap', 'page-order', 'page-range', 'page-chunks'])(
    'are answered with pages that nobody has: those of memory count, and no room is kept for the others (%s)',
    name => {
      const rig = openRig({ profile: name });
      const { freePages } = rig.profile;
      if (freePages.kind !== 'request') throw new Error('no requests');
      const queue = rig.queue('request');
      queue.exchange({ in: [[P * PAGE_SIZE, 16]] });
      rig.device.sendRequest(0);
      const answer = { command: 0, id: rig.device.requests.progress?.id ?? 0, done: true };
      const edit = (list: Parameters<typeof freePages.protocol.writeAnswer>[0]) => {
        freePages.protocol.writeAnswer(list, answer);
      };
      const last = rig.region.pageCount - 2;
      for (const buffer of rig.encode(freePages.format, [[last, 4]], {
        start: freePages.protocol.prefixBytes,
        edit,
      })) {
        queue.exchange(buffer);
      }
      expect(rig.unusedPages.pages).toBe(2);
      expect(rig.unusedPages.has(last)).toBe(true);
      expect(rig.device.counters.badPages).toBe(2);
      expect(rig.host.requestsAnswered).toBe(1);
    },
  );
});

describe('a ring that makes no sense', () => {
  test.each(ROLES)('is stopped: the available index of the %s queue jumps', role => {
    const rig = openRig();
    const queue = rig.queue(role);
    rig.memory.setU16(queue.config.driverArea + 2, 65);
    expect(() => queue.kick()).not.toThrow();
    expect(queue.failures).toBe(1);
    expect(rig.host.brokenRings).toMatchObject([{ index: queue.index }]);
    expect(rig.device.counters.brokenRings).toBe(1);
    // It is not looked at again.
    expect(rig.device.serveQueue(queue.index)).toBe(false);
    expect(rig.device.counters.brokenRings).toBe(1);
    expectOthersToWork(rig, role);
  });

  test('is stopped: a packed list that never ends', () => {
    const rig = openRig({ ...packed, queueSize: 4 });
    const { index, config } = rig.queue('inflate');
    for (let entry = 0; entry < 4; entry++) {
      rig.memory.setU16(config.descriptorArea + entry * 16 + 14, DESCRIPTOR_FLAG.AVAIL | NEXT);
    }
    expect(() => rig.device.serveQueue(index)).not.toThrow();
    expect(rig.host.brokenRings).toHaveLength(1);
    expectOthersToWork(rig, 'inflate');
  });

  test('can be set up anew, and has forgotten the buffer that it kept', () => {
    const rig = openRig();
    const queue = rig.queue('stats');
    queue.exchange({ out: [new Uint8Array(10)] });
    rig.memory.setU16(queue.config.driverArea + 2, 999);
    queue.kick();
    expect(rig.device.statistics.running).toBe(false);
    queue.driver.detachUnused(() => {});
    queue.driver.initialize(rig.memory);
    rig.device.startQueue(queue.index, createDeviceQueue(queue.config), rig.memory, {
      interrupt: () => {},
      fail: () => {},
    });
    rig.device.requestStatistics();
    expect(queue.collect()).toEqual([]);
    queue.exchange({ out: [new Uint8Array(20)] });
    rig.device.requestStatistics();
    expect(queue.collect()).toHaveLength(1);
  });
});

describe('memory that goes while rings are in it', () => {
  const withoutMemory = (rig: DeviceRig): void => {
    rig.device.regionRemoved(rig.region);
    rig.memory.remove(rig.region)?.close();
  };

  test.each(ROLES)('stops the %s ring when it is served', role => {
    const rig = openRig();
    withoutMemory(rig);
    expect(() => rig.device.serveQueue(rig.queue(role).index)).not.toThrow();
    expect(rig.queue(role).failures).toBe(1);
    expect(rig.host.brokenRings).toHaveLength(1);
  });

  test('stops the statistics ring when a sample is asked for', () => {
    const rig = openRig();
    rig.queue('stats').exchange({ out: [new Uint8Array(10)] });
    withoutMemory(rig);
    expect(() => rig.device.requestStatistics()).not.toThrow();
    expect(rig.host.brokenRings).toMatchObject([{ index: rig.queue('stats').index }]);
    expect(() => rig.device.requestStatistics()).not.toThrow();
    expect(rig.host.brokenRings).toHaveLength(1);
  });

  test('stops the request ring when something is asked', () => {
    const rig = openRig({ profile: 'page-range' });
    rig.queue('request').exchange({ in: [[P * PAGE_SIZE, 16]] });
    withoutMemory(rig);
    expect(() => rig.device.sendRequest(0)).not.toThrow();
    expect(rig.host.brokenRings).toHaveLength(1);
  });

  test('keeps no ring from being paused', () => {
    const rig = openRig();
    rig.queue('stats').exchange({ out: [new Uint8Array(10)] });
    const other = openRig({ profile: 'page-range' });
    other.queue('request').exchange({ in: [[P * PAGE_SIZE, 16]] });
    for (const each of [rig, other]) {
      withoutMemory(each);
      for (const { index } of each.queues) expect(() => each.device.stopQueue(index, 'paused')).not.toThrow();
      expect(each.host.brokenRings).toEqual([]);
    }
    expect(rig.device.statistics.sampledMs).toBeNull();
  });

  test('stops the ring whose list lies in memory that cannot be mapped', () => {
    const F_ADD_SEALS = 1033;
    const F_SEAL_FUTURE_WRITE = 0x10;
    const rig = openRig();
    const fd = createMemfd({ name: 'sealed', size: 2 ** 20 });
    expect(libc.fcntl(fd.number, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)).toBe(0);
    const region = new MemoryRegion(
      { guestAddress: 2 ** 30, size: 2 ** 20, userAddress: 2 ** 30 },
      new FileBacking(fd, 0, 2 ** 20),
    );
    rig.memory.add(region);
    rig.device.regionAdded(region);
    rig.queue('inflate').add({ outAt: [[2 ** 30, 64]] });
    expect(() => rig.queue('inflate').kick()).not.toThrow();
    expect(rig.host.brokenRings.map(({ error }) => (error as { code?: string }).code)).toEqual([
      'AEROSTAT_SYSTEM',
    ]);
    expectOthersToWork(rig, 'inflate');
  });
});

describe('a guest that never stops', () => {
  test('gets a turn’s share of work, and the rest of its batch after the others', () => {
    const rig = openRig({ profile: 'page-chunks', memory: 'shmem', memoryBytes: 2 ** 34, queueSize: 64 });
    const queue = rig.queue('inflate');
    const [buffer] = rig.encode(rig.inflateFormat, [[P, rig.region.pageCount - P]]);
    for (let count = 0; count < 8; count++) queue.add(buffer);
    queue.driver.publish(rig.memory);
    let turns = 1;
    while (rig.device.serveQueue(queue.index)) turns++;
    expect(turns).toBeGreaterThanOrEqual(8);
    expect(queue.collect()).toHaveLength(8);
  });

  test('cannot make one list cost more than memory has pages', () => {
    const rig = openRig({ profile: 'page-range' });
    const { pageCount } = rig.region;
    const workBefore = rig.device.accounts.work;
    const entries = 60_000;
    const bytes = new Uint8Array(8 + entries * 8);
    const view = new DataView(bytes.buffer);
    view.setUint32(4, entries * 8, true);
    for (let index = 0; index < entries; index++) view.setUint32(8 + index * 8, 4095, true);
    rig.queue('inflate').exchange({ out: [bytes] });
    expect(rig.balloonedPages).toBe(4095);
    const runWork = 32 * entries;
    expect(rig.device.accounts.work - workBefore).toBeLessThanOrEqual(pageCount + runWork);
    expect(rig.device.counters.badPages).toBe(entries * 4095 - pageCount);
  });

  test('gets no more than a few batches in a row', () => {
    const rig = openRig({ queueSize: 8 });
    const queue = rig.queue('inflate');
    let refills = 0;
    queue.beforePublish = () => {
      if (refills++ < 20) {
        queue.add({ out: [pfns(P)] });
        queue.driver.publish(rig.memory);
      }
      rig.forgetLists();
    };
    queue.add({ out: [pfns(P)] });
    queue.driver.publish(rig.memory);
    expect(rig.device.serveQueue(queue.index)).toBe(true);
    expect(refills).toBe(4);
  });
});

test('a ring that no negotiated feature has is told of, and not served', () => {
  const rig = openRig();
  rig.device.startQueue(9, createDeviceQueue(rig.queues[0].config), rig.memory, {
    interrupt: () => {},
    fail: () => {},
  });
  expect(rig.host.badInputs).toHaveLength(1);
  expect(rig.device.serveQueue(9)).toBe(false);
  expect(() => rig.device.stopQueue(9, 'paused')).not.toThrow();
});
