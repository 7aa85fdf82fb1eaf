/** Rings as the back-end runs them: started, kicked, stopped, moved, and described by front-ends of all manners. */
import { openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { closeAll, createEventFd, createPipe, OwnedFd, ring as ringDoorbell } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { F_PROTOCOL_FEATURES, type FrontendRequest, VRING_FD_NONE } from '../../src/vhost-user/protocol.ts';
import { USER_ADDRESS_OFFSET } from '../../src/vhost-user/shared-memory.ts';
import { SegmentList } from '../../src/virtio/chain.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import { RING_HEADER } from '../../src/virtio/layout.ts';
import {
  type Conversation,
  conversations,
  fileOf,
  MIB,
  payloads,
  regionFields,
  type TestRing,
  wasRung,
} from './conversation.ts';

const converse = conversations();

const KINDS: [string, bigint][] = [
  ['a split ring', VERSION_1],
  ['a split ring with event indices', VERSION_1 | RING_EVENT_IDX],
  ['a split ring in order', VERSION_1 | IN_ORDER],
  ['a packed ring', VERSION_1 | RING_PACKED],
  ['a packed ring with event indices', VERSION_1 | RING_PACKED | RING_EVENT_IDX],
];

const FRESH_PACKED = 0x8000_8000;
const isPacked = (features: bigint): boolean => (features & RING_PACKED) !== 0n;

/** Sends `count` buffers one by one through the ring, and sees each come back. */
async function exchange(talk: Conversation, ring: TestRing, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    ring.offer();
    ring.ringKick();
    await talk.loop.turnUntil(() => ring.collect() === 1);
  }
}

describe.each(KINDS)('%s', (_, features) => {
  it('is served when it is kicked, and its driver interrupted', async () => {
    const talk = converse();
    const ring = talk.start(features);
    expect(ring.offer(3)).toBe(true);
    ring.ringKick();
    await talk.loop.turnUntil(() => talk.device.served[0] === 3);
    expect(await wasRung(talk.loop, ring.call)).toBe(true);
    expect(ring.collect()).toBe(3);
    expect(talk.refused).toEqual([]);
  });

  it('is served for what was offered before it started', () => {
    const talk = converse();
    talk.negotiate(features);
    talk.handOver();
    const ring = talk.ring(0, features);
    ring.offer(2);
    talk.startRing(0, ring, isPacked(features) ? FRESH_PACKED : 0);
    expect(talk.device.served[0]).toBe(2);
  });

  it('stops and goes on where it was, at any place and over the end of the ring', async () => {
    const talk = converse();
    const ring = talk.start(features);
    for (let lap = 0; lap < 5; lap++) {
      await exchange(talk, ring, 3);
      const base = talk.stopRing(0);
      // Offered while the ring is not served.
      ring.offer(2);
      expect(talk.session.ringsRunning).toBe(0);
      talk.startRing(0, ring, base);
      await talk.loop.turnUntil(() => ring.collect() === 2);
    }
    expect(talk.device.served[0]).toBe(25);
    expect(talk.refused).toEqual([]);
  });

  it('goes on after it was disabled and enabled', async () => {
    const talk = converse();
    const ring = talk.start(features);
    await exchange(talk, ring, 5);
    talk.say('SET_VRING_ENABLE', payloads.state(0, 0));
    expect(talk.device.takeCalls()).toEqual(['suspend 0']);
    ring.offer();
    ring.ringKick();
    await talk.loop.settle();
    expect(talk.device.served[0]).toBe(5);
    talk.say('SET_VRING_ENABLE', payloads.state(0, 1));
    expect(talk.device.served[0]).toBe(6);
  });

  it('goes on when its region is replaced by another on the same memory', async () => {
    const talk = converse();
    const ring = talk.start(features);
    await exchange(talk, ring, 5);
    // The region ends earlier now: for the back-end it is another one.
    const [region] = talk.memory.regions;
    const shorter = { ...regionFields(region), size: MIB - 4096 };
    talk.say('SET_MEM_TABLE', payloads.table([shorter]), { fds: [fileOf(region)] });
    expect(talk.device.takeCalls()).toEqual(['stop 0 paused', 'region- 0x0', 'region+ 0x0', 'start 0']);
    await exchange(talk, ring, 5);
    expect(talk.refused).toEqual([]);
  });

  it('waits for its memory when that is taken away, and then goes on', async () => {
    const talk = converse();
    const ring = talk.start(features);
    await exchange(talk, ring, 5);
    const [region] = talk.memory.regions;
    talk.say('REM_MEM_REG', payloads.region(region));
    expect(talk.session.ringsRunning).toBe(0);
    expect(talk.refused).toMatchObject([{ ringIndex: 0, message: expect.stringMatching('taken away') }]);
    ring.offer();
    ring.ringKick();
    await talk.loop.settle();
    talk.say('ADD_MEM_REG', payloads.region(region), { fds: [fileOf(region)] });
    await talk.loop.turnUntil(() => ring.collect() === 1);
    await exchange(talk, ring, 5);
  });

  it('runs on while other regions come and go', async () => {
    const talk = converse({
      regions: [
        { guestAddress: 0, size: MIB },
        { guestAddress: 2 ** 32, size: MIB },
      ],
    });
    const ring = talk.start(features);
    const [low, high] = talk.memory.regions;
    talk.say('REM_MEM_REG', payloads.region(high));
    await exchange(talk, ring, 2);
    talk.say('SET_MEM_TABLE', payloads.table([low, high].map(regionFields)), {
      fds: [low, high].map(fileOf),
    });
    await exchange(talk, ring, 2);
    expect(talk.device.takeCalls()).toEqual(['region- 0x100000000', 'region+ 0x100000000']);
  });

  it('is described anew without a stop when a driver starts over that announces no reset', async () => {
    const talk = converse();
    const old = talk.start(features);
    await exchange(talk, old, 3);
    talk.device.takeCalls();
    talk.say('SET_FEATURES', payloads.u64(features | F_PROTOCOL_FEATURES));
    expect(talk.device.takeCalls()).toEqual([
      'stop 0 abandoned',
      'reset',
      `features 0x${features.toString(16)}`,
    ]);
    const ring = talk.ring(0, features, 8, 0x2_0000);
    talk.startRing(0, ring, isPacked(features) ? FRESH_PACKED : 0);
    await exchange(talk, ring, 3);
    expect(talk.device.served[0]).toBe(6);
  });
});

describe('the base of a packed ring', () => {
  const features = VERSION_1 | RING_PACKED;

  it('0 means a fresh ring where nothing is used, as front-ends say that do not know packed rings', async () => {
    const talk = converse();
    talk.negotiate(features);
    talk.handOver();
    const ring = talk.ring(0, features);
    talk.startRing(0, ring, 0);
    await exchange(talk, ring, 20);
    expect(talk.refused).toEqual([]);
  });

  it('0 means both wrap counters flipped where descriptor 0 was used, as the specification has it', async () => {
    const talk = converse();
    const ring = talk.start(features);
    // One lap of eight descriptors: both counters flip from 1 to 0, both positions are 0 again.
    await exchange(talk, ring, 8);
    const base = talk.stopRing(0);
    expect(base).toBe(0);
    talk.startRing(0, ring, base);
    await exchange(talk, ring, 20);
  });

  it('0 means the same where descriptor 0 was within a buffer (failed before: it was taken for a fresh ring)', async () => {
    const talk = converse();
    const ring = talk.start(features);
    await exchange(talk, ring, 15);
    // The last descriptor and, one lap on, the first: the device writes the last one only.
    const parts = new SegmentList();
    for (const at of [0x8_0000, 0x8_0004]) parts.addReadable(at, 4);
    expect(ring.queue.addBuffer(talk.memory, parts, 0)).toBe(true);
    ring.queue.publish(talk.memory);
    ring.ringKick();
    await talk.loop.turnUntil(() => ring.collect() === 1);
    await exchange(talk, ring, 7);
    const base = talk.stopRing(0);
    expect(base).toBe(0);
    talk.startRing(0, ring, base);
    await exchange(talk, ring, 20);
    expect(talk.refused).toEqual([]);
  });

  it('is refused when it names a descriptor that the ring has not', () => {
    const talk = converse();
    talk.negotiate(features);
    talk.handOver();
    talk.startRing(0, talk.ring(0, features), 9);
    expect(talk.session.ringsRunning).toBe(0);
    expect(talk.refused).toMatchObject([{ ringIndex: 0 }]);
  });
});

describe('a ring', () => {
  const ALL: readonly [string, FrontendRequest][] = [
    ['kick', 'SET_VRING_KICK'],
    ['address', 'SET_VRING_ADDR'],
    ['enable', 'SET_VRING_ENABLE'],
    ['memory', 'SET_MEM_TABLE'],
    ['size', 'SET_VRING_NUM'],
    ['features', 'SET_FEATURES'],
  ];

  it.each(ALL)('does not run without its %s, and starts when that comes last', (_, last) => {
    const talk = converse();
    const ring = talk.ring(0);
    const steps: [FrontendRequest, () => void][] = [
      ['SET_FEATURES', () => talk.say('SET_FEATURES', payloads.u64(VERSION_1 | F_PROTOCOL_FEATURES))],
      ['SET_MEM_TABLE', () => talk.handOver()],
      ['SET_VRING_NUM', () => talk.say('SET_VRING_NUM', payloads.state(0, 8))],
      ['SET_VRING_ADDR', () => talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, 0))],
      ['SET_VRING_KICK', () => talk.kickWith(0, ring.kick)],
      ['SET_VRING_ENABLE', () => talk.say('SET_VRING_ENABLE', payloads.state(0, 1))],
    ];
    for (const [name, step] of steps) if (name !== last) step();
    expect(talk.session.ringsRunning).toBe(0);
    steps.find(([name]) => name === last)?.[1]();
    // A size alone starts nothing; the front-end's next message does.
    if (last === 'SET_VRING_NUM') talk.kickWith(0, ring.kick);
    expect(talk.session.ringsRunning).toBe(1);
  });

  it('is enabled from the start for a front-end that knows no protocol features', async () => {
    const talk = converse();
    talk.say('SET_FEATURES', payloads.u64(VERSION_1));
    talk.handOver();
    const ring = talk.ring(0);
    talk.say('SET_VRING_NUM', payloads.state(0, 8));
    talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, 0));
    talk.kickWith(0, ring.kick);
    expect(talk.session.ringsRunning).toBe(1);
  });

  it.each<[string, (index: number) => Uint8Array, FrontendRequest]>([
    ['SET_VRING_NUM', index => payloads.state(index, 8), 'SET_VRING_NUM'],
    ['SET_VRING_BASE', index => payloads.state(index, 0), 'SET_VRING_BASE'],
    ['SET_VRING_ENABLE', index => payloads.state(index, 1), 'SET_VRING_ENABLE'],
    ['SET_VRING_KICK', index => payloads.u64(BigInt(index)), 'SET_VRING_KICK'],
    ['SET_VRING_CALL', index => payloads.u64(BigInt(index)), 'SET_VRING_CALL'],
    ['SET_VRING_ERR', index => payloads.u64(BigInt(index)), 'SET_VRING_ERR'],
  ])('that does not exist is refused by %s', (_, payload, name) => {
    const talk = converse();
    talk.negotiate();
    const withFd = name === 'SET_VRING_KICK' || name === 'SET_VRING_CALL' || name === 'SET_VRING_ERR';
    for (const index of [3, 255]) {
      expect(talk.accepts(name, payload(index), withFd ? [createEventFd()] : [])).toBe(false);
    }
    if (!withFd) expect(talk.accepts(name, payload(0xffff_ffff))).toBe(false);
  });

  it('that does not exist has no base', () => {
    const talk = converse();
    expect(talk.stopRing(77)).toBe(0);
    expect(talk.refused[0].message).toMatch('ring 77 does not exist');
  });

  it('has a sensible number of entries', () => {
    const talk = converse();
    talk.negotiate();
    for (const size of [0, 32769, 0xffff_ffff]) {
      expect(talk.accepts('SET_VRING_NUM', payloads.state(0, size))).toBe(false);
    }
    for (const size of [1, 7, 32768]) {
      expect(talk.accepts('SET_VRING_NUM', payloads.state(0, size))).toBe(true);
    }
  });

  it.each<[string, (talk: Conversation, ring: TestRing) => void]>([
    ['a size that is no power of two', talk => talk.say('SET_VRING_NUM', payloads.state(0, 7))],
    ['a base beyond 16 bits', talk => talk.say('SET_VRING_BASE', payloads.state(0, 0x1_0000))],
    [
      'parts that are not aligned',
      (talk, { config }) =>
        talk.say('SET_VRING_ADDR', payloads.addresses({ ...config, descriptorArea: 0x1008 }, 0)),
    ],
  ])('with %s does not run, and is named', (_, spoil) => {
    const talk = converse();
    talk.negotiate();
    talk.handOver();
    const ring = talk.ring(0);
    talk.say('SET_VRING_NUM', payloads.state(0, 8));
    talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, 0));
    spoil(talk, ring);
    talk.say('SET_VRING_ENABLE', payloads.state(0, 1));
    talk.kickWith(0, ring.kick);
    expect(talk.session.ringsRunning).toBe(0);
    expect(talk.refused).toMatchObject([{ ringIndex: 0 }]);
  });

  it('does not run while its addresses are nowhere in memory', () => {
    const talk = converse();
    talk.negotiate();
    talk.handOver();
    const ring = talk.ring(0);
    for (const deviceArea of [MIB - 4, 2 ** 40, -USER_ADDRESS_OFFSET + 4096]) {
      talk.say('SET_VRING_NUM', payloads.state(0, 8));
      talk.say('SET_VRING_ADDR', payloads.addresses({ ...ring.config, deviceArea }, 0));
      talk.kickWith(0, ring.kick);
      talk.say('SET_VRING_ENABLE', payloads.state(0, 1));
      expect(talk.session.ringsRunning).toBe(0);
    }
  });

  it('keeps running when the same addresses are sent again, as for logging', async () => {
    const talk = converse();
    const ring = talk.start();
    talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, 0));
    expect(talk.device.takeCalls()).toEqual([]);
    await exchange(talk, ring, 2);
  });

  it.each<[FrontendRequest, (talk: Conversation) => Uint8Array]>([
    ['SET_VRING_NUM', () => payloads.state(0, 8)],
    ['SET_VRING_BASE', () => payloads.state(0, 0)],
    ['SET_VRING_ADDR', talk => payloads.addresses(talk.ring(0, VERSION_1, 8, 0x2_0000).config, 0)],
  ])('that runs is abandoned by %s, and starts again with the next kick descriptor only', (name, payload) => {
    const talk = converse();
    const ring = talk.start();
    talk.say(name, payload(talk));
    expect(talk.device.takeCalls()).toEqual(['stop 0 abandoned']);
    talk.say('SET_VRING_ENABLE', payloads.state(0, 1));
    expect(talk.session.ringsRunning).toBe(0);
    talk.kickWith(0, ring.kick);
    expect(talk.session.ringsRunning).toBe(1);
  });

  it('answers the same base when it is stopped twice', async () => {
    const talk = converse();
    const ring = talk.start();
    await exchange(talk, ring, 11);
    expect(talk.stopRing(0)).toBe(11);
    expect(talk.stopRing(0)).toBe(11);
    expect(talk.device.takeCalls()).toEqual(['stop 0 paused']);
  });

  it('that was stopped is not started by being enabled', () => {
    const talk = converse();
    talk.start();
    talk.stopRing(0);
    talk.say('SET_VRING_ENABLE', payloads.state(0, 0));
    talk.say('SET_VRING_ENABLE', payloads.state(0, 1));
    expect(talk.session.ringsRunning).toBe(0);
    expect(talk.accepts('SET_VRING_ENABLE', payloads.state(0, 2))).toBe(false);
  });

  it('that makes no sense is broken once, says so to its driver, and waits to be described anew', async () => {
    const talk = converse();
    const ring = talk.start();
    // An available index far ahead of what the ring can hold.
    talk.memory.setU16(ring.config.driverArea + RING_HEADER.offset.index, 1000);
    ring.ringKick();
    await talk.loop.turnUntil(() => talk.refused.length > 0);
    expect(talk.refused).toMatchObject([{ ringIndex: 0 }]);
    expect(talk.device.takeCalls().filter(call => call.startsWith('stop'))).toEqual(['stop 0 abandoned']);
    expect(await wasRung(talk.loop, ring.error)).toBe(true);
    expect(talk.session.ringsRunning).toBe(0);
    // Neither kicks nor memory nor enabling bring it back.
    ring.ringKick();
    await talk.loop.settle();
    talk.handOver();
    talk.say('SET_VRING_ENABLE', payloads.state(0, 1));
    expect(talk.refused.length).toBe(1);
    const next = talk.ring(0);
    talk.startRing(0, next);
    await exchange(talk, next, 3);
  });
});

describe('a kick descriptor', () => {
  it('is required: rings are not polled', () => {
    const talk = converse();
    talk.start();
    expect(talk.accepts('SET_VRING_KICK', payloads.u64(VRING_FD_NONE))).toBe(false);
    expect(talk.refused[0].message).toMatch('without a descriptor is not supported');
    // Refused, so the ring runs on with the descriptor that it has.
    expect(talk.session.ringsRunning).toBe(1);
  });

  it.each(['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const)(
    '%s comes just when the message says so, and reserved bits are none',
    name => {
      const talk = converse();
      talk.negotiate();
      expect(talk.accepts(name, payloads.u64(0))).toBe(false);
      expect(talk.accepts(name, payloads.u64(VRING_FD_NONE), [createEventFd()])).toBe(false);
      expect(talk.accepts(name, payloads.u64(0x200), [createEventFd()])).toBe(false);
      expect(talk.accepts(name, payloads.u64(1n << 63n), [createEventFd()])).toBe(false);
      expect(talk.accepts(name, payloads.u64(0), [createEventFd(), createEventFd()])).toBe(false);
      expect(talk.accepts(name, payloads.u64(0), [createEventFd()])).toBe(true);
    },
  );

  it.each(['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const)(
    '%s brings no file: rings would write into it',
    name => {
      const talk = converse();
      talk.negotiate();
      const file = createMemfd({ name: 'aerostat-test', size: 4096 });
      expect(talk.accepts(name, payloads.u64(0), [file])).toBe(false);
      expect(talk.refused[0].message).toMatch('no doorbell');
      expect(talk.accepts(name, payloads.u64(0), [createEventFd()])).toBe(true);
    },
  );

  it('can be replaced while the ring runs, and the old one is dead', async () => {
    const talk = converse();
    const ring = talk.start();
    const next = createEventFd();
    talk.kickWith(0, next);
    ring.offer();
    ring.ringKick();
    await talk.loop.settle();
    expect(talk.device.served[0]).toBe(0);
    ringDoorbell(next);
    await talk.loop.turnUntil(() => talk.device.served[0] === 1);
    next.close();
  });

  it.each<[string, () => OwnedFd]>([
    ['/dev/null', () => new OwnedFd(openSync('/dev/null', 'r+'))],
    ['/dev/zero', () => new OwnedFd(openSync('/dev/zero', 'r+'))],
    ['a file', () => new OwnedFd(openSync('/proc/self/exe', 'r'))],
    ['a directory', () => new OwnedFd(openSync('/', 'r'))],
    ['a descriptor good for nothing (O_PATH)', () => new OwnedFd(openSync('/', 0o10000000))],
    [
      'a pipe whose writer is closed',
      () => {
        const { reader, writer } = createPipe();
        writer.close();
        return reader;
      },
    ],
    [
      'the wrong end of a pipe',
      () => {
        const { reader, writer } = createPipe();
        reader.close();
        return writer;
      },
    ],
    [
      'a socket whose peer is gone',
      () => {
        const [ours, theirs] = UnixSocket.pair();
        theirs.close();
        return ours.fd;
      },
    ],
  ])('that is %s is refused, and the ring keeps the one it has', async (_, make) => {
    const talk = converse();
    const ring = talk.start();
    expect(talk.accepts('SET_VRING_KICK', payloads.u64(0), [make()])).toBe(false);
    expect(talk.refused[0].message).toMatch('no doorbell');
    await exchange(talk, ring, 2);
  });
});

describe('a call descriptor', () => {
  it('can be a pipe, also one without a reader or one that is full', async () => {
    const talk = converse();
    const ring = talk.start();
    const { reader, writer } = createPipe();
    talk.say('SET_VRING_CALL', payloads.u64(0), { fds: [writer.duplicate()] });
    await exchange(talk, ring, 2);
    while (ringDoorbell(writer) && talk.device.served[0] < 20_000) talk.device.served[0]++;
    ring.offer();
    ring.ringKick();
    await talk.loop.turnUntil(() => ring.collect() === 1);
    closeAll([reader, writer]);
    await exchange(talk, ring, 2);
  });

  it('can be taken away: the driver looks for itself', async () => {
    const talk = converse();
    const ring = talk.start();
    talk.say('SET_VRING_CALL', payloads.u64(VRING_FD_NONE));
    talk.say('SET_VRING_ERR', payloads.u64(VRING_FD_NONE));
    await exchange(talk, ring, 2);
    expect(await wasRung(talk.loop, ring.call)).toBe(false);
  });
});
