/** Every generation of the ABI through the whole device: its lists, its way of naming free pages, its queues. */
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import {
  DEFLATE_ON_OOM,
  FREE_PAGE_HINT,
  FREE_PAGE_QUEUE,
  HINTING,
  PAGE_LIST,
  PAGE_POISON,
  PAGE_REPORTING,
  STATS_VQ,
} from '../../src/balloon/features.ts';
import { HINT_DONE, HINT_STOP } from '../../src/balloon/hint-session.ts';
import type { PageList } from '../../src/balloon/page-list.ts';
import { PROFILE_NAMES, profile, queueRoles } from '../../src/balloon/profiles.ts';
import {
  DROP_CACHE,
  GET_UNUSED_PAGES,
  type RequestProtocol,
  SHRINK,
} from '../../src/balloon/request-messages.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import {
  type DeviceRig,
  FIRST_PAGE,
  openRig,
  packed,
  pfns,
  DeviceRig as Rig,
  type Run,
  u32,
} from '../support/device-rig.ts';

const P = FIRST_PAGE;
const RINGS = [
  ['split', {}],
  ['packed', packed],
] as const;

afterAll(() => expect(openDescriptorCount()).toBe(0));

const REQUEST_PROFILES = PROFILE_NAMES.filter(name => profile(name).freePages.kind === 'request');
const SESSION_PROFILES = PROFILE_NAMES.filter(name => profile(name).freePages.kind === 'session');

describe.each(PROFILE_NAMES)('profile %s', name => {
  test.each(RINGS)('gives pages away and takes them back in its own lists (%s rings)', (_, rings) => {
    const rig = openRig({ profile: name, memory: 'shmem', ...rings });
    rig.touch(P, 300, 0x3c);
    const before = rig.residentBytes;
    const runs: Run[] = [
      [P, 64],
      [P + 100, 1],
      [P + 128, 128],
    ];
    expect(rig.inflate(...runs).every(({ written }) => written === 0)).toBe(true);
    rig.device.drain();
    expect(rig.residentBytes).toBe(before - 193 * PAGE_SIZE);
    expect(rig.balloonedPages).toBe(193);
    expect(rig.contentOf(P + 99)).toBe(0x3c);
    expect(rig.contentOf(P + 256)).toBe(0x3c);
    rig.deflate([P + 32, 32], [P + 100, 1]);
    expect(rig.balloonedPages).toBe(160);
    expect(rig.device.counters).toMatchObject({ badBuffers: 0, badPages: 0, pages: 193, deflatedPages: 33 });
    expect(rig.host.badInputs).toEqual([]);
  });

  test('speaks page frame numbers where its own list was not negotiated', () => {
    const abi = profile(name);
    const rig = openRig({ profile: name, without: abi.formatFeature });
    rig.queue('inflate').exchange({ out: [pfns(P + 1, P, P + 7)] });
    expect(rig.balloonedPages).toBe(3);
    rig.queue('deflate').exchange({ out: [pfns(P + 7)] });
    expect(rig.balloonedPages).toBe(2);
  });

  test('counts its queues densely, whatever part of its features is taken', () => {
    const abi = profile(name);
    fc.assert(
      fc.property(fc.subarray([...abi.features]), taken => {
        const features = taken.reduce((mask, feature) => mask | feature.mask, 0n);
        const rig = new Rig({ profile: name, features, queueSize: 4 });
        try {
          const roles = taken.flatMap(({ queue }) => (queue === null ? [] : [queue]));
          expect(rig.queues.map(({ role }) => role)).toEqual(['inflate', 'deflate', ...roles]);
          expect(rig.device.queueCount).toBe(queueRoles(abi, abi.featureMask).length);
          for (const queue of rig.queues) {
            // An empty command, sample or list of each queue finds its way to whom it is for.
            queue.exchange({ outAt: [[0, 0]] });
            rig.device.stopQueue(queue.index, 'abandoned');
          }
          expect(rig.host.brokenRings).toEqual([]);
        } finally {
          rig.close();
        }
      }),
      { numRuns: 30 },
    );
  });

  test('has all the queues that its ABI knows, whatever of it is offered', () => {
    const abi = profile(name);
    fc.assert(
      fc.property(fc.subarray([...abi.features]), some => {
        const offered = some.reduce((mask, feature) => mask | feature.mask, 0n);
        const rig = new Rig({ profile: name, offered, features: offered, queueSize: 4 });
        try {
          expect(rig.device.queueCount).toBe(queueRoles(abi, abi.featureMask).length);
        } finally {
          rig.close();
        }
      }),
      { numRuns: 20 },
    );
  });

  test('keeps an exact account of pages that come and go at random', () => {
    const runs = fc.array(fc.tuple(fc.nat(1500), fc.integer({ min: 1, max: 200 })), {
      minLength: 1,
      maxLength: 8,
    });
    const steps = fc.array(
      fc.oneof(
        fc.record({ kind: fc.constant('inflate' as const), runs }),
        fc.record({ kind: fc.constant('deflate' as const), runs }),
        fc.record({ kind: fc.constant('discard' as const) }),
        fc.record({ kind: fc.constant('write' as const), runs }),
      ),
      { maxLength: 20 },
    );
    fc.assert(
      fc.property(steps, fc.boolean(), (script, tellsHost) => {
        const rig = new Rig({ profile: name, ...(tellsHost ? {} : { without: 1n }) });
        try {
          playBalloon(rig, script);
        } finally {
          rig.close();
        }
      }),
      { numRuns: 25 },
    );
  });
});

type Step =
  | { kind: 'inflate' | 'deflate' | 'write'; runs: (readonly [number, number])[] }
  | { kind: 'discard' };

/**
 * Plays a guest that keeps the rules: it writes only to pages that it has. What it wrote into a page must be there
 * for as long as it has the page; of a page that it gave away and took back, the content or zeros.
 */
function playBalloon(rig: DeviceRig, script: readonly Step[]): void {
  const given = new Set<number>();
  const written = new Map<number, number>();
  let value = 0;
  for (const step of script) {
    if (step.kind === 'discard') {
      rig.discardSome();
      continue;
    }
    const pages = step.runs.flatMap(([at, count]) =>
      Array.from({ length: count }, (_, index) => P + at + index),
    );
    if (step.kind === 'inflate') {
      rig.inflate(...step.runs.map(([at, count]) => [P + at, count] as const));
      for (const pfn of pages) {
        given.add(pfn);
        written.delete(pfn);
      }
    } else if (step.kind === 'deflate') {
      rig.deflate(...step.runs.map(([at, count]) => [P + at, count] as const));
      for (const pfn of pages) given.delete(pfn);
    } else {
      value = (value % 250) + 1;
      for (const pfn of pages) {
        if (given.has(pfn)) continue;
        rig.memory.setU16(pfn * PAGE_SIZE, value);
        written.set(pfn, value);
      }
    }
    expect(rig.balloonedPages).toBe(given.size);
  }
  rig.device.drain();
  for (const [pfn, expected] of written) expect(rig.memory.u16(pfn * PAGE_SIZE)).toBe(expected);
  for (const pfn of given) expect(rig.memory.u16(pfn * PAGE_SIZE)).toBe(0);
}

test('the standard numbers its queues by what was negotiated, not by a table', () => {
  const cases: [bigint, string[]][] = [
    [0n, ['inflate', 'deflate']],
    [PAGE_REPORTING | PAGE_POISON, ['inflate', 'deflate', 'reporting']],
    [STATS_VQ | PAGE_REPORTING, ['inflate', 'deflate', 'stats', 'reporting']],
    [FREE_PAGE_HINT | PAGE_REPORTING | DEFLATE_ON_OOM, ['inflate', 'deflate', 'hint', 'reporting']],
    [STATS_VQ | FREE_PAGE_HINT | PAGE_REPORTING, ['inflate', 'deflate', 'stats', 'hint', 'reporting']],
  ];
  for (const [features, roles] of cases) {
    expect(openRig({ features }).queues.map(({ role }) => role)).toEqual(roles);
  }
});

describe.each(REQUEST_PROFILES)('requests of profile %s', name => {
  const protocolOf = (rig: DeviceRig): RequestProtocol => {
    const { freePages } = rig.profile;
    if (freePages.kind !== 'request') throw new Error('no requests');
    return freePages.protocol;
  };

  /** What the device wrote into the buffer at `address`. */
  function readRequest(rig: DeviceRig, address: number, length: number) {
    const bytes = new Uint8Array(length);
    rig.memory.read(address, bytes, 0, length);
    return protocolOf(rig).readRequest(new DataView(bytes.buffer), length);
  }

  function answer(
    rig: DeviceRig,
    request: { command: number; id: number },
    runs: readonly Run[],
    done = true,
    /** Buffers that come back before it. */
    before = 0,
  ) {
    const protocol = protocolOf(rig);
    const edit = (list: PageList, last: boolean) =>
      protocol.writeAnswer(list, { ...request, done: done && last });
    const options = { start: protocol.prefixBytes, edit };
    for (const buffer of rig.encode(rig.profile.freePages.format, runs, options)) {
      const returned = rig.queue('request').exchange(buffer);
      expect(returned).toMatchObject(Array.from({ length: before + 1 }, () => ({ written: 0 })));
    }
  }

  const WHERE = P * PAGE_SIZE;

  test.each(RINGS)('go round: buffer, request, answers, and the pages are named (%s rings)', (_, rings) => {
    const rig = openRig({ profile: name, memory: 'shmem', ...rings });
    const queue = rig.queue('request');
    const size = protocolOf(rig).requestBytes;
    rig.touch(P + 16, 64, 0x1d);
    const resident = rig.residentBytes + PAGE_SIZE;
    expect(queue.exchange({ in: [[WHERE, size]] })).toEqual([]);
    rig.device.requests.send(GET_UNUSED_PAGES);
    expect(queue.collect()).toEqual([{ token: 0, written: size }]);
    const request = readRequest(rig, WHERE, size);
    expect(request).toMatchObject({ command: GET_UNUSED_PAGES, id: rig.device.requests.progress?.id });

    answer(rig, request, [[P + 16, 8]], false);
    expect(rig.device.requests.progress).toMatchObject({ done: false, pages: 8, lists: 1 });
    answer(rig, request, [
      [P + 32, 16],
      [P + 64, 1],
    ]);
    expect(rig.unusedPages.pages).toBe(25);
    expect(rig.unusedPages.has(P + 64)).toBe(true);
    expect(rig.device.requests.progress).toMatchObject({ done: true, pages: 25 });
    expect(rig.host.requestsAnswered).toBe(0);
    expect(queue.exchange({ in: [[WHERE, size]] })).toEqual([]);
    expect(rig.host.requestsAnswered).toBe(1);
    // Named is not given: nothing of it is discarded.
    rig.device.drain();
    expect(rig.residentBytes).toBe(resident);
    expect(rig.balloonedPages).toBe(0);

    // Late lists of a request that is answered count no more. The buffer that came before them goes back before them.
    answer(rig, request, [[P + 80, 1]], true, 1);
    expect(rig.unusedPages.pages).toBe(25);
    expect(rig.host.requestsAnswered).toBe(1);
  });

  test('may be answered with no pages at all', () => {
    const rig = openRig({ profile: name });
    rig.device.requests.send(DROP_CACHE);
    const size = protocolOf(rig).requestBytes;
    rig.queue('request').exchange({ in: [[WHERE, size]] });
    const request = readRequest(rig, WHERE, size);
    expect(request.command).toBe(DROP_CACHE);
    answer(rig, request, []);
    expect(rig.device.requests.progress).toMatchObject({ done: true, pages: 0 });
  });

  test('may be answered with several lists that all say that they are the last, as v4 has it', () => {
    const rig = openRig({ profile: name });
    const size = protocolOf(rig).requestBytes;
    rig.device.requests.send(GET_UNUSED_PAGES);
    rig.queue('request').exchange({ in: [[WHERE, size]] });
    const request = readRequest(rig, WHERE, size);
    answer(rig, request, [[P, 4]]);
    answer(rig, request, [[P + 8, 4]]);
    answer(rig, request, []);
    expect(rig.host.requestsAnswered).toBe(0);
    rig.queue('request').exchange({ in: [[WHERE, size]] });
    expect(rig.host.requestsAnswered).toBe(1);
    expect(rig.unusedPages.pages).toBe(8);
    expect(rig.device.requests.progress).toMatchObject({ done: true, pages: 8, lists: 3 });
  });

  test('that a driver does not know are over when it posts its buffer again', () => {
    const rig = openRig({ profile: name });
    const size = protocolOf(rig).requestBytes;
    rig.queue('request').exchange({ in: [[WHERE, size]] });
    rig.device.requests.send(SHRINK);
    expect(rig.host.requestsAnswered).toBe(0);
    rig.queue('request').exchange({ in: [[WHERE, size]] });
    expect(rig.host.requestsAnswered).toBe(1);
    expect(rig.device.requests.progress).toMatchObject({ done: false, lists: 0 });
  });

  test('keep a buffer that is posted twice: a driver that posts what comes back empty is not kept busy', () => {
    const rig = openRig({ profile: name });
    const queue = rig.queue('request');
    const size = protocolOf(rig).requestBytes;
    queue.exchange({ in: [[WHERE, size]] });
    expect(queue.exchange({ in: [[WHERE, size]] })).toEqual([]);
    rig.device.requests.send(GET_UNUSED_PAGES);
    expect(queue.collect()).toEqual([{ token: 0, written: size }]);
  });

  test('wait for the guest’s buffer, and go out as soon as it comes', () => {
    const rig = openRig({ profile: name });
    const queue = rig.queue('request');
    const size = protocolOf(rig).requestBytes;
    rig.device.requests.send(GET_UNUSED_PAGES);
    expect(rig.device.requests.progress).toBeNull();
    expect(queue.exchange({ in: [[WHERE, size]] })).toEqual([{ token: 0, written: size }]);
    expect(rig.device.requests.progress).toMatchObject({ done: false });
    // Only once.
    expect(queue.exchange({ in: [[WHERE, size]] })).toEqual([]);
  });

  test('answers to an older request count for nothing, where messages tell them apart', () => {
    const rig = openRig({ profile: name });
    const protocol = protocolOf(rig);
    if (protocol.idMax === 0) return;
    const queue = rig.queue('request');
    queue.exchange({ in: [[WHERE, protocol.requestBytes]] });
    rig.device.requests.send(GET_UNUSED_PAGES);
    const old = readRequest(rig, WHERE, protocol.requestBytes);
    queue.exchange({ in: [[WHERE, protocol.requestBytes]] });
    rig.device.requests.send(GET_UNUSED_PAGES);
    expect(queue.collect()).toHaveLength(1);
    answer(rig, old, [[P, 4]]);
    expect(rig.unusedPages.pages).toBe(0);
    answer(rig, readRequest(rig, WHERE, protocol.requestBytes), [[P, 4]]);
    expect(rig.unusedPages.pages).toBe(4);
  });

  test('the guest’s buffer goes back when the ring is paused, and is forgotten when it is abandoned', () => {
    const rig = openRig({ profile: name });
    const queue = rig.queue('request');
    queue.exchange({ in: [[WHERE, 16]] });
    rig.device.stopQueue(queue.index, 'paused');
    expect(queue.collect()).toEqual([{ token: 0, written: 0 }]);
    expect(rig.device.requests.running).toBe(false);
    queue.start().exchange({ in: [[WHERE, 16]] });
    rig.device.stopQueue(queue.index, 'abandoned');
    expect(queue.collect()).toEqual([]);
    queue.start();
    rig.device.requests.send(GET_UNUSED_PAGES);
    expect(queue.collect()).toEqual([]);
  });
});

test.each(SESSION_PROFILES)('a hint session of profile %s names pages and discards none', name => {
  // Where the guest waits for it, they are discarded: see below.
  const rig = openRig({ profile: name, memory: 'shmem', without: profile(name).hintAckFeature });
  const queue = rig.queue('hint');
  rig.touch(P, 64, 0x2e);
  const resident = rig.residentBytes;
  const id = rig.device.hints.begin();
  expect(rig.readConfig('freePageHintCommandId')).toBe(id);
  expect(queue.exchange({ out: [u32(id)] })).toMatchObject([{ written: 0 }]);
  rig.sendPages(queue, rig.profile.freePages.format, [
    [P, 16],
    [P + 32, 8],
  ]);
  queue.exchange({ out: [u32(HINT_STOP)] });
  expect(rig.unusedPages.pages).toBe(24);
  expect(rig.device.hints.ranges).toBe(2);
  expect(rig.device.hints.phase).toBe('stopped');
  rig.device.drain();
  expect(rig.residentBytes).toBe(resident);
  expect(rig.contentOf(P)).toBe(0x2e);
  rig.device.hints.done();
  expect(rig.readConfig('freePageHintCommandId')).toBe(name === 'sg' ? HINT_STOP : HINT_DONE);
});

describe.each([false, true])('where other threads discard: %s', discardsElsewhere => {
  test('blocks that the guest keeps until their hint is returned are discarded before that', () => {
    const rig = openRig({ profile: 'hint-ack', memory: 'shmem', without: PAGE_POISON, discardsElsewhere });
    const queue = rig.queue('hint');
    rig.touch(P, 64, 0x2e);
    const resident = rig.residentBytes;
    const hint = { in: [[P * PAGE_SIZE, 16 * PAGE_SIZE]] } as const;
    // Not of a session: left alone.
    queue.exchange(hint);
    expect(rig.residentBytes).toBe(resident);
    queue.exchange({ out: [u32(rig.device.hints.begin())] });
    queue.add(hint);
    queue.kick();
    if (discardsElsewhere) {
      expect(queue.collect()).toEqual([]);
      const [account] = rig.device.accounts.all;
      while (account.reports?.discardSome(account.discardUnits).more);
      rig.device.settle();
    }
    expect(queue.collect()).toMatchObject([{ written: 0 }]);
    expect(resident - rig.residentBytes).toBe(16 * PAGE_SIZE);
    expect([rig.contentOf(P + 15), rig.contentOf(P + 16)]).toEqual([0, 0x2e]);
    expect(rig.unusedPages.pages).toBe(16);
    expect(rig.device.reporting.totals.bytes).toBe(16 * PAGE_SIZE);
  });
});

test('a command id and blocks may share a buffer', () => {
  const rig = openRig();
  const id = rig.device.hints.begin();
  rig.queue('hint').exchange({ out: [u32(id)], in: [[P * PAGE_SIZE, 4 * PAGE_SIZE]] });
  expect(rig.unusedPages.pages).toBe(4);
});

test('blocks of the hinting profile are discarded before their buffer is returned', () => {
  const rig = openRig({ profile: 'hinting', memory: 'shmem' });
  const queue = rig.queue('hinting');
  rig.touch(P, 64);
  const before = rig.residentBytes;
  let whenReturned = before;
  queue.beforePublish = () => {
    whenReturned = rig.residentBytes;
  };
  rig.sendPages(queue, rig.profile.freePages.format, [[P, 48]]);
  expect(whenReturned).toBe(before - 48 * PAGE_SIZE);
  expect(rig.contentOf(P + 48)).toBe(0xa5);
  expect(rig.device.counters.reportedPages).toBe(48);
  expect(rig.balloonedPages).toBe(0);
});

test('the bits of the proposals are those of no other generation', () => {
  expect([PAGE_LIST, FREE_PAGE_QUEUE, HINTING]).toEqual([FREE_PAGE_HINT, PAGE_POISON, PAGE_REPORTING]);
  const rig = openRig({ profile: 'hinting' });
  // Bit 4 is PAGE_POISON in the standard alone; here it is nothing, and poison is no reason to keep a page.
  rig.device.setFeatures(rig.features | PAGE_POISON);
  expect(rig.device.reporting.keepContents).toBe(false);
});

test('sg takes pages as buffers, and page frame numbers as well', () => {
  const rig = openRig({ profile: 'sg' });
  rig.queue('inflate').exchange({ in: [[P * PAGE_SIZE, 4 * PAGE_SIZE]] });
  rig.queue('inflate').exchange({ out: [pfns(P + 8, P + 9)] });
  expect(rig.balloonedPages).toBe(6);
});

describe('a statistics ring that is stopped', () => {
  const sample = new Uint8Array(10);

  test('gives its buffer back and keeps the sample when it is paused', () => {
    const rig = openRig();
    const queue = rig.queue('stats');
    queue.exchange({ out: [sample] });
    rig.device.stopQueue(queue.index, 'paused');
    expect(queue.collect()).toEqual([{ token: 0, written: 0 }]);
    expect(rig.device.statistics.running).toBe(false);
    expect(rig.device.statistics.sample.swapInBytes).toBe(0);
  });

  test('keeps the sample when it has no buffer to give back', () => {
    const rig = openRig();
    const queue = rig.queue('stats');
    queue.exchange({ out: [sample] });
    rig.device.statistics.request();
    rig.device.stopQueue(queue.index, 'paused');
    expect(rig.device.statistics.sampledMs).not.toBeNull();
  });

  test('forgets all when it is abandoned', () => {
    const rig = openRig();
    const queue = rig.queue('stats');
    queue.exchange({ out: [sample] });
    rig.device.stopQueue(queue.index, 'abandoned');
    expect(queue.collect()).toEqual([]);
    expect(rig.device.statistics.sampledMs).toBeNull();
    rig.device.statistics.request();
    expect(queue.collect()).toEqual([]);
  });
});
