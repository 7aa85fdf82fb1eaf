/**
 * A guest whose buffers are nonsense. Each comes back with length 0 and costs a counter and a word to the host; the
 * other queues go on; and nothing is ever thrown. Rings that are nonsense are hostile-rings.test.ts's.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { LIST_BYTES_MAX } from '../../src/balloon/page-list.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import type { GuestBuffer } from '../../src/testing/hand-queue.ts';
import { createDeviceQueue } from '../../src/virtio/create.ts';
import { IN_ORDER, RING_INDIRECT_DESC } from '../../src/virtio/features.ts';
import { DESCRIPTOR_FLAG } from '../../src/virtio/layout.ts';
import { type DeviceRig, FIRST_PAGE, openRig, packed, pfns, u32 } from '../support/device-rig.ts';
import type { RigQueue } from '../support/rig-queue.ts';
import { expectOthersToWork, ROLES } from './others-at-work.ts';

const P = FIRST_PAGE;
const { NEXT, WRITE, INDIRECT } = DESCRIPTOR_FLAG;

afterAll(() => expect(openDescriptorCount()).toBe(0));

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
    rig.device.statistics.request();
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
    const id = rig.device.hints.begin();
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
    queue.exchange({ out: [u32(rig.device.hints.begin())] });
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
    rig.device.requests.send(0);
    expect(queue.collect()).toEqual([]);
  });

  test('whose buffer is posted again and again give the oldest back, so that few are kept', () => {
    const rig = openRig({ profile: 'page-order' });
    const queue = rig.queue('request');
    for (let posts = 0; posts < 16; posts++) {
      expect(queue.exchange({ in: [[P * PAGE_SIZE, 16]] })).toEqual([]);
    }
    expect(queue.exchange({ in: [[P * PAGE_SIZE, 16]] })).toEqual([{ token: 0, written: 0 }]);
  });

  test('with unasked answers leave the pages alone', () => {
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
    'are answered with pages that do not exist: those of memory count, and no room is kept for the others (%s)',
    name => {
      const rig = openRig({ profile: name });
      const { freePages } = rig.profile;
      if (freePages.kind !== 'request') throw new Error('no requests');
      const queue = rig.queue('request');
      queue.exchange({ in: [[P * PAGE_SIZE, 16]] });
      rig.device.requests.send(0);
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
      queue.exchange({ in: [[P * PAGE_SIZE, 16]] });
      expect(rig.host.requestsAnswered).toBe(1);
    },
  );
});
