/**
 * What is in flight, kept by the front-end (INFLIGHT_SHMFD): as the protocol lays it out, whatever the moment at which a
 * back-end goes, and refused where it is nonsense.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { createEventFd, type OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd, readAt, writeAt } from '../../src/sys/file.ts';
import {
  inflightRegionBytes,
  PACKED_ENTRY,
  PACKED_REGION,
  SPLIT_ENTRY,
  SPLIT_REGION,
} from '../../src/vhost-user/inflight-layout.ts';
import {
  heardByBoth,
  PackedInflight,
  PackedInflightQueue,
  recoverPacked,
} from '../../src/vhost-user/packed-inflight.ts';
import { INFLIGHT_AREA, PROTOCOL_FEATURE } from '../../src/vhost-user/protocol.ts';
import { RingPlace } from '../../src/vhost-user/ring-place.ts';
import { recoverSplit, SplitInflightQueue } from '../../src/vhost-user/split-inflight.ts';
import { DescriptorChain, SegmentList } from '../../src/virtio/chain.ts';
import { createDeviceQueue, createDriverQueue } from '../../src/virtio/create.ts';
import { hasFeature, IN_ORDER, RING_EVENT_IDX, RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import type { DeviceQueue, QueueConfig } from '../../src/virtio/queue.ts';
import { RING_LOG_BYTES, RingLog } from '../../src/virtio/ring-log.ts';
import { stateFromVringBase } from '../../src/virtio/vring-base.ts';
import {
  type Conversation,
  conversations,
  fileOf,
  payloads,
  regionFields,
  type TestRing,
} from './conversation.ts';
import { joins } from './joined.ts';
import { RingDevice } from './ring-device.ts';

const SEED = Number(process.env.AEROSTAT_SEED ?? 20_261_130);
const PACKED = VERSION_1 | RING_PACKED;
const KINDS = [
  ['split', VERSION_1],
  ['packed', PACKED],
] as const;
const converse = conversations();

const area = (fields: Partial<ReturnType<typeof INFLIGHT_AREA.read>> = {}): Uint8Array =>
  INFLIGHT_AREA.encode({ size: 0, offset: 0, queues: 3, queueSize: 8, ...fields });

/** Has the back-end make the memory, and gives it to that. Returns the descriptor, the test's to close, and what is said of it. */
function keep(talk: Conversation): { fd: OwnedFd; payload: Uint8Array } {
  const reply = talk.say('GET_INFLIGHT_FD', area())!;
  const [fd] = talk.repliedFds;
  const { size, offset } = INFLIGHT_AREA.read(reply);
  const payload = area({ size, offset });
  expect(talk.accepts('SET_INFLIGHT_FD', payload, [fd.duplicate()])).toBe(true);
  return { fd, payload };
}

/** A driver that is up, at a back-end that notes what is in flight. */
function begin(features: bigint): { talk: Conversation; ring: TestRing; fd: OwnedFd; payload: Uint8Array } {
  const talk = converse();
  talk.negotiate(features);
  const kept = keep(talk);
  talk.handOver();
  const ring = talk.ring(0, features);
  talk.startRing(0, ring, hasFeature(features, RING_PACKED) ? 0x8000_8000 : 0);
  return { talk, ring, ...kept };
}

/** The front-end of `former`, whose back-end is gone, says all again to another one; `base` may be out of date. */
function goOn(
  former: Conversation,
  ring: TestRing,
  features: bigint,
  payload: Uint8Array,
  fd: OwnedFd,
  base = 0,
) {
  const talk = converse();
  talk.negotiate(features);
  const said = talk.accepts('SET_INFLIGHT_FD', payload, [fd.duplicate()]);
  const { regions } = former.memory;
  talk.say('SET_MEM_TABLE', payloads.table(regions.map(regionFields)), { fds: regions.map(fileOf) });
  talk.startRing(0, ring, base);
  talk.device.serveQueue(0);
  return { talk, said };
}

const bytesOf = (fd: OwnedFd, length: number): DataView => {
  const bytes = new Uint8Array(length);
  readAt(fd, 0, bytes, 0, length);
  return new DataView(bytes.buffer);
};

describe('what is noted', () => {
  test('of a split ring is as the protocol has it', () => {
    const { talk, ring, fd } = begin(VERSION_1);
    ring.offer(3);
    talk.device.serveQueue(0);
    expect(ring.collect()).toBe(3);
    talk.device.keeps.add(0);
    ring.offer(2);
    talk.device.serveQueue(0);
    const view = bytesOf(fd, inflightRegionBytes(false, 8));
    expect(SPLIT_REGION.read(view)).toMatchObject({ features: 0n, version: 1, entries: 8, usedIndex: 3 });
    const entries = Array.from({ length: 8 }, (_, at) => SPLIT_ENTRY.read(view, 16 + 16 * at));
    expect(entries.flatMap(({ inflight, counter }) => (inflight === 1 ? counter : [])).sort()).toEqual([
      3, 4,
    ]);
    fd.close();
  });

  test('of a packed ring is as the protocol has it', () => {
    const { talk, ring, fd } = begin(PACKED);
    ring.offer(3);
    talk.device.serveQueue(0);
    expect(ring.collect()).toBe(3);
    talk.device.keeps.add(0);
    ring.offer(2);
    talk.device.serveQueue(0);
    const view = bytesOf(fd, inflightRegionBytes(true, 8));
    expect(PACKED_REGION.read(view)).toMatchObject({
      version: 1,
      entries: 8,
      usedIndex: 3,
      oldUsedIndex: 3,
      usedWrap: 1,
      oldUsedWrap: 1,
    });
    const entries = Array.from({ length: 8 }, (_, at) => PACKED_ENTRY.read(view, 32 + 32 * at));
    const inFlight = entries.filter(({ inflight }) => inflight === 1).sort((a, b) => a.counter - b.counter);
    expect(inFlight).toMatchObject([
      { counter: 3, count: 1, length: 4, address: 0x8_0000 },
      { counter: 4, count: 1, length: 4, address: 0x8_0004 },
    ]);
    fd.close();
  });

  test.each(KINDS)('has a %s ring go on at another back-end, each buffer once', (_, features) => {
    const { talk, ring, fd, payload } = begin(features);
    // Some laps, and an odd place.
    for (let lap = 0; lap < 5; lap++) {
      ring.offer(5);
      talk.device.serveQueue(0);
      expect(ring.collect()).toBe(5);
    }
    talk.device.keeps.add(0);
    ring.offer(2);
    talk.device.serveQueue(0);
    ring.offer(1);
    // A packed ring does not say where it stands, and neither does this front-end.
    const next = goOn(talk, ring, features, payload, fd);
    expect(next.talk.device.served[0]).toBe(3);
    expect(ring.collect()).toBe(3);
    ring.offer(4);
    next.talk.device.serveQueue(0);
    expect(ring.collect()).toBe(4);
    expect(next.talk.refused).toEqual([]);
    fd.close();
  });

  test.each(KINDS)('of a %s ring counts no more when another driver begins', (_, features) => {
    const { talk, ring, fd } = begin(features);
    ring.offer(3);
    talk.device.serveQueue(0);
    ring.collect();
    talk.say('RESET_DEVICE');
    talk.say('SET_FEATURES', payloads.u64(features | (1n << 30n)));
    const another = talk.ring(0, features);
    talk.startRing(0, another, hasFeature(features, RING_PACKED) ? 0x8000_8000 : 0);
    another.offer(2);
    talk.device.serveQueue(0);
    expect(another.collect()).toBe(2);
    expect(talk.refused).toEqual([]);
    fd.close();
  });
});

describe('nonsense is refused, and the conversation goes on:', () => {
  test.each([
    ['no queues', { queues: 0 }],
    ['more queues than any device has', { queues: 257 }],
    ['no entries', { queueSize: 0 }],
    ['more entries than the largest ring of QEMU has', { queueSize: 1025 }],
  ])('memory for %s', (_, fields) => {
    const talk = converse();
    talk.negotiate(PACKED);
    const reply = talk.say('GET_INFLIGHT_FD', area(fields))!;
    expect(INFLIGHT_AREA.read(reply).size).toBe(0);
    expect(talk.repliedFds).toEqual([]);
    const fd = createMemfd({ name: 'inflight', size: 65_536 });
    expect(talk.accepts('SET_INFLIGHT_FD', area({ size: 65_536, ...fields }), [fd])).toBe(false);
    expect(talk.refused).toHaveLength(2);
  });

  test.each([
    ['less than it takes', { size: 64 }],
    ['more than its file has', { size: 65_536 + 4096 }],
    ['more than there may be', { size: 2 ** 40 }],
    ['an offset within a page', { offset: 512, size: 4096 }],
    ['an offset that is no number of ours', { offset: 2 ** 62, size: 4096 }],
  ])('memory that has %s', (_, fields) => {
    const talk = converse();
    talk.negotiate();
    const fd = createMemfd({ name: 'inflight', size: 65_536 });
    expect(talk.accepts('SET_INFLIGHT_FD', area(fields), [fd])).toBe(false);
  });

  test('a descriptor that is no memory, or none', () => {
    const talk = converse();
    talk.negotiate();
    expect(talk.accepts('SET_INFLIGHT_FD', area({ size: 4096 }), [createEventFd()])).toBe(false);
    expect(talk.accepts('SET_INFLIGHT_FD', area({ size: 4096 }))).toBe(false);
  });

  /** Writes into the region of queue 0 what a front-end might. */
  const spoil = (fd: OwnedFd, at: number, ...bytes: number[]) =>
    writeAt(fd, at, new Uint8Array(bytes), 0, bytes.length);
  const R = PACKED_REGION.offset;
  const [S, SE] = [SPLIT_REGION.offset, SPLIT_ENTRY.offset];

  test.each([
    ['another version', VERSION_1, [S.version, 2, 0]],
    ['another size', VERSION_1, [S.entries, 9, 0]],
    ['another version', PACKED, [R.version, 7, 0]],
    ['a position beyond the ring', PACKED, [R.usedIndex, 8, 0]],
    ['an old position beyond the ring', PACKED, [R.oldUsedIndex, 0xff, 0xff]],
    ['a wrap counter that is none', PACKED, [R.usedWrap, 2]],
    // Nothing of the driver's is at the place of the second.
    [
      'buffers in flight that are not the next',
      VERSION_1,
      [SPLIT_REGION.size + 7 * SPLIT_ENTRY.size + SE.inflight, 1],
    ],
  ] as const)('%s', (_, features, [at, ...bytes]) => {
    const { talk, ring, fd, payload } = begin(features);
    talk.device.keeps.add(0);
    ring.offer(1);
    talk.device.serveQueue(0);
    spoil(fd, at, ...bytes);
    const next = goOn(talk, ring, features, payload, fd);
    expect(next.talk.refused).toHaveLength(1);
    expect(next.talk.device.running.size).toBe(0);
    fd.close();
  });

  test.each(KINDS)('any bytes in the memory of a %s ring: it is refused, or goes on', (_, features) => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 288, maxLength: 288 }), bytes => {
        const { talk, ring, fd, payload } = begin(features);
        talk.device.keeps.add(0);
        ring.offer(2);
        talk.device.serveQueue(0);
        // The header says that it counts; all else is noise.
        writeAt(fd, 10, bytes, 10, bytes.length - 10);
        spoil(fd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 0);
        const next = goOn(talk, ring, features, payload, fd);
        expect(next.talk.refused.length + next.talk.device.running.size).toBe(1);
        fd.close();
      }),
      { seed: SEED, numRuns: 60 },
    );
  });
});

test('is offered', () => {
  const talk = converse();
  expect(talk.ask('GET_PROTOCOL_FEATURES') & PROTOCOL_FEATURE.INFLIGHT_SHMFD).not.toBe(0n);
});

// Back-ends that go at any write ------------------------------------------------------------------------------

class Death extends Error {}

/** Writes are counted; one of them is the last. */
class Mortality {
  left = Number.POSITIVE_INFINITY;
  readonly write = (): void => {
    if (--this.left < 0) throw new Death();
  };
}

class MortalView extends DataView<ArrayBuffer> {
  mortality = new Mortality();
  override setUint8(at: number, value: number): void {
    this.mortality.write();
    super.setUint8(at, value);
  }
  override setUint16(at: number, value: number, little?: boolean): void {
    this.mortality.write();
    super.setUint16(at, value, little);
  }
  override setUint32(at: number, value: number, little?: boolean): void {
    this.mortality.write();
    super.setUint32(at, value, little);
  }
  override setBigUint64(at: number, value: bigint, little?: boolean): void {
    this.mortality.write();
    super.setBigUint64(at, value, little);
  }
}

class MortalMemory extends GuestMemory {
  mortality = new Mortality();
  override setU16(gpa: number, value: number): void {
    this.mortality.write();
    super.setU16(gpa, value);
  }
  override setU32(gpa: number, value: number): void {
    this.mortality.write();
    super.setU32(gpa, value);
  }
  override atomicStoreU16(gpa: number, value: number): void {
    this.mortality.write();
    super.atomicStoreU16(gpa, value);
  }
}

const SIZE = 4;

/**
 * Lives through offers, services and deaths; every buffer comes back once, in the order in which they were offered. A back-end
 * that is `kept` has a state of its own: each next one finds that both say the same, and goes on by its own, or by what is in
 * flight where the keeper of the other has gone, too.
 */
function live(features: bigint, steps: readonly number[], kept: boolean): void {
  const packed = hasFeature(features, RING_PACKED);
  const backing = new HeapBacking(65_536);
  const region = new MemoryRegion({ guestAddress: 0, size: backing.size, userAddress: 0 }, backing);
  const [mine, memory] = [new GuestMemory([region]), new MortalMemory([region])];
  const view = new MortalView(new ArrayBuffer(inflightRegionBytes(packed, SIZE)));
  const { mortality } = view;
  memory.mortality = mortality;
  const config: QueueConfig = { size: SIZE, descriptorArea: 0, driverArea: 4096, deviceArea: 8192, features };
  const driver = createDriverQueue(config);
  driver.initialize(mine);
  const recover = packed ? recoverPacked : recoverSplit;
  const logView = new MortalView(new ArrayBuffer(RING_LOG_BYTES));
  logView.mortality = mortality;
  const log = kept ? new RingLog(logView, 0) : undefined;
  let opened = 0;
  const open = (): DeviceQueue => {
    const used = SPLIT_REGION.read(view).version !== 0;
    let state = used ? recover(view, config, memory) : undefined;
    if (state !== undefined && kept) {
      const { base } = RingPlace.unreturned(config, memory, log);
      const own = stateFromVringBase(memory, config, base);
      expect(own).toEqual(state);
      if (opened++ % 3 < 2) state = own;
    }
    if (!packed) return new SplitInflightQueue(createDeviceQueue(config, state), view, SIZE);
    const noted = new PackedInflight(view, config, SIZE);
    return new PackedInflightQueue(createDeviceQueue(config, state, heardByBoth(log, noted)), noted);
  };
  let queue: DeviceQueue | undefined;
  const chain = new DescriptorChain();
  const held: ReturnType<DescriptorChain['hold']>[] = [];
  const alive = (act: (queue: DeviceQueue) => void): void => {
    try {
      queue ??= open();
      act(queue);
    } catch (error) {
      if (!(error instanceof Death)) throw error;
      queue = undefined;
      held.length = 0;
      mortality.left = Number.POSITIVE_INFINITY;
    }
  };
  const take = (most: number) => (of: DeviceQueue) => {
    for (let at = 0; at < most && of.pop(memory, chain); at++) held.push(chain.hold());
  };
  const giveBack = (most: number) => (of: DeviceQueue) => {
    for (let at = 0; at < most && held.length > 0; at++) of.pushUsed(memory, held.shift()!, 0);
    of.publish(memory);
  };
  const segments = new SegmentList();
  let [offered, back] = [0, 0];
  const used = { token: 0, written: 0 };
  const collect = (): void => {
    while (driver.popUsed(mine, used)) expect(used.token).toBe(back++);
  };
  for (const step of steps) {
    const [choice, amount] = [step % 5, Math.floor(step / 5)];
    if (choice === 0) {
      segments.clear();
      for (let at = 0; at <= amount % 2; at++) segments.addReadable(16_384, 8);
      if (driver.addBuffer(mine, segments, offered)) offered++;
      driver.publish(mine);
    } else if (choice === 1) alive(take(1 + (amount % 3)));
    else if (choice === 2) alive(giveBack(1 + (amount % 3)));
    else if (choice === 3) mortality.left = amount;
    else collect();
  }
  mortality.left = Number.POSITIVE_INFINITY;
  for (let turn = 0; turn < SIZE + 2; turn++) {
    alive(take(SIZE));
    alive(giveBack(SIZE));
    collect();
  }
  expect(back).toBe(offered);
}

describe.each([
  ['a back-end', false],
  ['a back-end whose guest is kept, with or without its keeper,', true],
])(`%s that goes at any write has each buffer come back once (seed ${SEED}):`, (_, kept) => {
  test.each([
    ['split', VERSION_1],
    ['split, in order', VERSION_1 | IN_ORDER],
    ['packed', PACKED],
    ['packed, in order', PACKED | IN_ORDER | RING_EVENT_IDX],
  ])('%s', (__, features) => {
    const steps = fc.array(fc.integer({ min: 0, max: 199 }), { minLength: 10, maxLength: 60 });
    fc.assert(
      fc.property(steps, each => live(features, each, kept)),
      { seed: SEED, numRuns: 400 },
    );
  });
});

describe('our front-end', () => {
  const join = joins();

  test.each(KINDS)(
    'keeps what is in flight, and a %s ring goes on by it when a back-end vanished',
    async (_, features) => {
      const joined = join();
      const frontend = await joined.connect({ keepsInflight: true, reconnects: true });
      expect(frontend.protocolFeatures & PROTOCOL_FEATURE.INFLIGHT_SHMFD).not.toBe(0n);
      const [ring] = await joined.start(frontend, features);
      await ring.exchange(5);
      const { device: former } = joined;
      former.keeps.add(0);
      ring.offer(2);
      await joined.loop.turnUntil(() => former.served[0] === 7);
      const device = new RingDevice();
      await joined.loop.until(frontend.reconnect(joined.serve(device)));
      await joined.loop.turnUntil(() => device.served[0] === 2);
      expect(ring.collect()).toBe(2);
      expect(device.served[0]).toBe(2);
      expect(joined.refused).toEqual([]);
    },
  );
});
