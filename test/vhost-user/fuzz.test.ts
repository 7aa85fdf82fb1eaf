/** Conversations that make no sense, or too much of it: whatever a peer says, nothing throws and nothing leaks. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { targets } from '../../fuzz/vhost-user.ts';
import { F_PROTOCOL_FEATURES, FLAG_NEED_REPLY } from '../../src/vhost-user/protocol.ts';
import { RING_EVENT_IDX, RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import { openDescriptors } from '../support/descriptors.ts';
import { Conversation, fileOf, MIB, payloads, regionFields, type TestRing } from './conversation.ts';
import { RingDevice } from './ring-device.ts';

const RUNS = 300;

let before: unknown;
beforeAll(() => {
  before = openDescriptors();
});
afterAll(() => {
  expect(openDescriptors()).toEqual(before);
});

describe('arbitrary bytes', () => {
  it.each(Object.entries(targets))('break no promise of %s', (_, target) => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600, size: 'max' }), bytes => target(bytes)),
      { numRuns: RUNS },
    );
  });
});

/** Steps that each make sense, in orders that need not. */
type Step = (talk: Conversation, rings: readonly TestRing[]) => void;

const RING_COUNT = 2;
const index = fc.integer({ min: 0, max: RING_COUNT });
const FEATURE_SETS = [
  VERSION_1,
  VERSION_1 | RING_EVENT_IDX,
  VERSION_1 | RING_PACKED,
  VERSION_1 | RING_PACKED | RING_EVENT_IDX,
];

const ringOf = (rings: readonly TestRing[], at: number): TestRing => rings[at % rings.length];

type RingStep = (talk: Conversation, ring: TestRing, at: number) => void;

const DEVICE_STEPS: readonly [string, Step][] = [
  ['table', talk => talk.handOver()],
  ['empty table', talk => talk.say('SET_MEM_TABLE', payloads.table([]))],
  [
    'shorter table',
    talk => {
      const [region] = talk.memory.regions;
      const shorter = { ...regionFields(region), size: MIB / 2 };
      talk.say('SET_MEM_TABLE', payloads.table([shorter]), { fds: [fileOf(region)] });
    },
  ],
  [
    'add',
    talk => {
      const [region] = talk.memory.regions;
      talk.say('ADD_MEM_REG', payloads.region(region), { fds: [fileOf(region)] });
    },
  ],
  ['remove', talk => talk.say('REM_MEM_REG', payloads.region(talk.memory.regions[0]))],
  ['reset', talk => talk.say('RESET_DEVICE')],
  ['status 0', talk => talk.say('SET_STATUS', payloads.u64(0))],
  ['status 15', talk => talk.say('SET_STATUS', payloads.u64(15), { flags: FLAG_NEED_REPLY })],
  ['no protocol', talk => talk.say('SET_PROTOCOL_FEATURES', payloads.u64(0))],
  ['protocol', talk => talk.negotiate()],
  ...FEATURE_SETS.map((features): [string, Step] => [
    `features 0x${features.toString(16)}`,
    talk => talk.say('SET_FEATURES', payloads.u64(features | F_PROTOCOL_FEATURES)),
  ]),
];

const RING_STEPS: readonly [string, RingStep][] = [
  ['size', (talk, _, at) => talk.say('SET_VRING_NUM', payloads.state(at, 8))],
  ['odd size', (talk, _, at) => talk.say('SET_VRING_NUM', payloads.state(at, 5))],
  ['base 0', (talk, _, at) => talk.say('SET_VRING_BASE', payloads.state(at, 0))],
  ['base far', (talk, _, at) => talk.say('SET_VRING_BASE', payloads.state(at, 0x8003_8003))],
  ['addresses', (talk, ring, at) => talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, at))],
  ['kick', (talk, ring, at) => talk.kickWith(at, ring.kick)],
  ['no kick', (talk, _, at) => talk.withoutKick(at)],
  ['enable', (talk, _, at) => talk.say('SET_VRING_ENABLE', payloads.state(at, 1))],
  ['disable', (talk, _, at) => talk.say('SET_VRING_ENABLE', payloads.state(at, 0))],
  ['stop', (talk, _, at) => talk.say('GET_VRING_BASE', payloads.state(at))],
  ['start', (talk, ring, at) => talk.startRing(at, ring, 0)],
  [
    'kicked',
    (talk, ring) => {
      ring.ringKick();
      talk.loop.reactor.turn(0);
    },
  ],
  ['garbled', (talk, ring) => talk.memory.setU16(ring.config.driverArea + 2, 0x7777)],
  ['emptied', (talk, ring) => talk.memory.fill(ring.config.descriptorArea, 0, 0x3000)],
];

/** The name is what a failure shows. */
const steps: fc.Arbitrary<[string, Step]> = fc.oneof(
  fc.constantFrom(...DEVICE_STEPS),
  fc
    .tuple(index, fc.constantFrom(...RING_STEPS))
    .map(([at, [name, step]]): [string, Step] => [
      `${name} ${at}`,
      (talk, rings) => step(talk, ringOf(rings, at), at),
    ]),
);

describe('sensible steps in senseless orders', () => {
  it('break no promise to the device, and leave nothing open', () => {
    fc.assert(
      fc.property(fc.array(steps, { maxLength: 80, size: 'max' }), sequence => {
        const device = new RingDevice({ queueCount: RING_COUNT });
        check(device);
        const talk = new Conversation({ device });
        try {
          talk.negotiate();
          talk.handOver();
          const rings = [talk.ring(0), talk.ring(1)];
          for (const [, step] of sequence) step(talk, rings);
        } finally {
          talk.close();
        }
        expect(device.running.size).toBe(0);
      }),
      { numRuns: RUNS },
    );
  });
});

/** From now on the device checks what it is told: rings start and stop in turns, and nothing changes under them. */
function check(device: RingDevice): void {
  const startQueue = device.startQueue.bind(device);
  device.startQueue = (at, queue, memory, doorbell) => {
    expect(device.running.has(at)).toBe(false);
    startQueue(at, queue, memory, doorbell);
  };
  const stopQueue = device.stopQueue.bind(device);
  device.stopQueue = (at, reason) => {
    expect(device.running.has(at)).toBe(true);
    expect(reason === 'undecided' && !suspended.has(at)).toBe(false);
    suspended.delete(at);
    stopQueue(at, reason);
  };
  const suspended = new Set<number>();
  const suspendQueue = device.suspendQueue.bind(device);
  device.suspendQueue = at => {
    expect(device.running.has(at) && !suspended.has(at)).toBe(true);
    suspended.add(at);
    suspendQueue(at);
  };
  const resumeQueue = device.resumeQueue.bind(device);
  device.resumeQueue = at => {
    expect(device.running.has(at) && suspended.delete(at)).toBe(true);
    resumeQueue(at);
  };
  const serveQueue = device.serveQueue.bind(device);
  device.serveQueue = at => {
    expect(suspended.has(at)).toBe(false);
    serveQueue(at);
  };
  const setFeatures = device.setFeatures.bind(device);
  device.setFeatures = features => {
    expect(device.running.size).toBe(0);
    setFeatures(features);
  };
}
