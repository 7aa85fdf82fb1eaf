/** Rings that were disabled or stopped and start again: the same guest's that goes on, or another driver's. */
import { describe, expect, it } from 'vitest';
import { F_PROTOCOL_FEATURES } from '../../src/vhost-user/protocol.ts';
import { USER_ADDRESS_OFFSET } from '../../src/vhost-user/shared-memory.ts';
import { RING_EVENT_IDX, RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import {
  type Conversation,
  conversations,
  fileOf,
  MIB,
  payloads,
  regionFields,
  type TestRing,
} from './conversation.ts';

const converse = conversations();
const FEATURES_CALL = `features 0x${VERSION_1.toString(16)}`;

/** Sends `count` buffers one by one through ring `index`, and sees each come back. */
async function exchange(talk: Conversation, ring: TestRing, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    ring.offer();
    ring.ringKick();
    await talk.loop.turnUntil(() => ring.collect() === 1);
  }
}

/** Two rings that run, of which the first has `used` buffers behind it. */
async function twoRings(used = 3): Promise<{ talk: Conversation; rings: [TestRing, TestRing] }> {
  const talk = converse();
  const first = talk.start();
  const second = talk.ring(1);
  talk.startRing(1, second);
  await exchange(talk, first, used);
  talk.device.takeCalls();
  return { talk, rings: [first, second] };
}

function disable(talk: Conversation, ...indices: readonly number[]): void {
  for (const index of indices) talk.say('SET_VRING_ENABLE', payloads.state(index, 0));
}

function enable(talk: Conversation, ...indices: readonly number[]): void {
  for (const index of indices) talk.say('SET_VRING_ENABLE', payloads.state(index, 1));
}

/** All that describes a ring, but for SET_VRING_ENABLE. */
function describeRing(talk: Conversation, index: number, ring: TestRing, base: number): void {
  talk.say('SET_VRING_NUM', payloads.state(index, ring.config.size));
  talk.say('SET_VRING_BASE', payloads.state(index, base));
  talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, index));
  talk.kickWith(index, ring.kick);
}

const sayFeatures = (talk: Conversation, features = VERSION_1) =>
  talk.say('SET_FEATURES', payloads.u64(features | F_PROTOCOL_FEATURES));

/** Each kind of ring, and the base of one that was never used. */
const RINGS: readonly [string, features: bigint, base: number][] = [
  ['split rings', VERSION_1, 0],
  ['packed rings', VERSION_1 | RING_PACKED, 0x8000_8000],
];

/** Two rings that run: nothing was done on the first, and of the second the device keeps the only buffer. */
async function keptBuffer(features: bigint, base: number): Promise<{ talk: Conversation; kept: TestRing }> {
  const talk = converse();
  talk.start(features);
  talk.device.keeps.add(1);
  const kept = talk.ring(1, features);
  talk.startRing(1, kept, base);
  kept.offer();
  kept.ringKick();
  await talk.loop.turnUntil(() => talk.device.served[1] === 1);
  talk.device.takeCalls();
  return { talk, kept };
}

describe('a driver that begins without saying so', () => {
  it('resets the device once, before the first of its rings starts', async () => {
    const { talk } = await twoRings();
    disable(talk, 0, 1);
    expect(talk.device.takeCalls()).toEqual(['suspend 0', 'suspend 1']);
    sayFeatures(talk);
    for (const index of [0, 1]) describeRing(talk, index, talk.ring(index), 0);
    expect(talk.device.takeCalls()).toEqual([]);
    enable(talk, 0, 1);
    expect(talk.device.takeCalls()).toEqual([
      'stop 0 abandoned',
      'stop 1 abandoned',
      'reset',
      FEATURES_CALL,
      'start 0',
      'start 1',
    ]);
  });

  it('is found by any of its rings, when the first had stopped just where a new one begins', async () => {
    const { talk } = await twoRings();
    talk.stopRing(0);
    talk.stopRing(1);
    sayFeatures(talk);
    talk.device.takeCalls();
    // Ring 1, which was never used, comes first; the front-end says nothing yet of ring 0.
    const second = talk.ring(1);
    talk.startRing(1, second);
    expect(talk.device.takeCalls()).toEqual(['start 1']);
    const first = talk.ring(0);
    talk.startRing(0, first);
    expect(talk.device.takeCalls()).toEqual([
      'stop 1 abandoned',
      'reset',
      FEATURES_CALL,
      'start 1',
      'start 0',
    ]);
    await exchange(talk, first, 2);
    await exchange(talk, second, 2);
    expect(talk.refused).toEqual([]);
  });

  it('is found by the size of a ring', async () => {
    const { talk } = await twoRings(0);
    disable(talk, 0, 1);
    talk.say('SET_VRING_NUM', payloads.state(0, 4));
    enable(talk, 0, 1);
    expect(talk.device.takeCalls()).toContain('reset');
  });

  it('with other features is reset once, when it says them', async () => {
    const { talk } = await twoRings();
    talk.stopRing(0);
    disable(talk, 1);
    const features = VERSION_1 | RING_EVENT_IDX;
    talk.say('SET_FEATURES', payloads.u64(features | F_PROTOCOL_FEATURES));
    for (const index of [0, 1]) talk.startRing(index, talk.ring(index, features));
    expect(talk.device.takeCalls().filter(call => call === 'reset')).toEqual(['reset']);
  });

  it('has in the configuration what it wrote before its rings started', async () => {
    const { talk } = await twoRings();
    talk.say('SET_CONFIG', payloads.config(8, 4, new Uint8Array([7, 7, 7, 7])));
    disable(talk, 0, 1);
    talk.say('SET_CONFIG', payloads.config(4, 2, new Uint8Array([1, 2])));
    talk.device.reset = () => talk.device.config.fill(0);
    describeRing(talk, 0, talk.ring(0), 0);
    enable(talk, 0);
    expect([...talk.device.config.subarray(2, 14)]).toEqual([0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it.each(RINGS)(
    'brings its buffers anew where the last one’s only buffer was kept: %s',
    async (_, features, base) => {
      const { talk } = await keptBuffer(features, base);
      disable(talk, 0, 1);
      sayFeatures(talk, features);
      for (const index of [0, 1]) {
        const ring = talk.ring(index, features);
        describeRing(talk, index, ring, base);
        enable(talk, index);
        ring.offer();
        ring.ringKick();
      }
      expect(talk.device.takeCalls()).toEqual([
        'suspend 0',
        'suspend 1',
        'resume 0',
        'stop 1 undecided',
        'start 1',
      ]);
      await talk.loop.turnUntil(() => talk.device.served[0] === 1 && talk.device.served[1] === 2);
      expect(talk.refused).toEqual([]);
    },
  );

  it('on packed rings is found by a base of 0, where a ring had stopped at 0 after a lap', async () => {
    const features = VERSION_1 | RING_PACKED;
    const talk = converse();
    const old = talk.start(features);
    await exchange(talk, old, 8);
    expect(talk.stopRing(0)).toBe(0);
    talk.device.takeCalls();
    const ring = talk.ring(0, features);
    talk.startRing(0, ring, 0);
    expect(talk.device.takeCalls()).toEqual(['reset', `features 0x${features.toString(16)}`, 'start 0']);
    await exchange(talk, ring, 20);
  });
});

describe('a guest that was paused', () => {
  it('goes on at the bases that were replied, with the same features and memory said again', async () => {
    const { talk, rings } = await twoRings();
    const bases = [talk.stopRing(0), talk.stopRing(1)];
    sayFeatures(talk);
    talk.handOver();
    for (const index of [0, 1]) talk.startRing(index, rings[index], bases[index]);
    expect(talk.device.takeCalls()).toEqual(['stop 0 paused', 'stop 1 paused', 'start 0', 'start 1']);
    await exchange(talk, rings[0], 9);
  });

  it('goes on when its disabled rings are described as they were', async () => {
    const { talk, rings } = await twoRings();
    disable(talk, 0, 1);
    for (const index of [0, 1]) describeRing(talk, index, rings[index], index === 0 ? 3 : 0);
    enable(talk, 0, 1);
    expect(talk.device.takeCalls()).toEqual(['suspend 0', 'suspend 1', 'resume 0', 'resume 1']);
    await exchange(talk, rings[0], 9);
  });

  it.each(RINGS)(
    'gets a buffer that was kept taken again, where its front-end goes by what was returned: %s',
    async (_, features, base) => {
      const { talk, kept } = await keptBuffer(features, base);
      disable(talk, 0, 1);
      describeRing(talk, 1, kept, base);
      enable(talk, 0, 1);
      expect(talk.device.served).toEqual([0, 2, 0]);
      talk.device.keeps.clear();
      kept.offer();
      kept.ringKick();
      await talk.loop.turnUntil(() => kept.collect() > 0);
      expect(talk.refused).toEqual([]);
    },
  );

  it.each(RINGS)('leaves a buffer that was kept with the device: %s', async (_, features, base) => {
    const { talk } = await keptBuffer(features, base);
    disable(talk, 0, 1);
    sayFeatures(talk, features);
    enable(talk, 0, 1);
    expect(talk.device.takeCalls()).toEqual(['suspend 0', 'suspend 1', 'resume 0', 'resume 1']);
    expect(talk.device.served).toEqual([0, 1, 0]);
  });

  it('is stopped when its front-end asks for the base of a disabled ring', async () => {
    const { talk } = await twoRings();
    disable(talk, 0);
    expect(talk.stopRing(0)).toBe(3);
    expect(talk.device.takeCalls()).toEqual(['suspend 0', 'stop 0 paused']);
  });

  it('is not served while it is, and told what it missed when it goes on', async () => {
    const { talk, rings } = await twoRings();
    disable(talk, 0);
    rings[0].offer(2);
    rings[0].ringKick();
    await talk.loop.settle();
    expect(talk.device.served[0]).toBe(3);
    enable(talk, 0);
    await talk.loop.turnUntil(() => rings[0].collect() === 2);
  });

  it('goes on when its memory comes back at another address of the front-end’s', async () => {
    const { talk, rings } = await twoRings();
    const bases = [talk.stopRing(0), talk.stopRing(1)];
    const [region] = talk.memory.regions;
    const moved = { ...regionFields(region), userAddress: USER_ADDRESS_OFFSET * 2 };
    talk.say('SET_MEM_TABLE', payloads.table([moved]), { fds: [fileOf(region)] });
    talk.device.takeCalls();
    for (const index of [0, 1]) {
      const { config } = rings[index];
      const shift = ({ descriptorArea, driverArea, deviceArea }: typeof config) => ({
        ...config,
        descriptorArea: descriptorArea + USER_ADDRESS_OFFSET,
        driverArea: driverArea + USER_ADDRESS_OFFSET,
        deviceArea: deviceArea + USER_ADDRESS_OFFSET,
      });
      talk.say('SET_VRING_NUM', payloads.state(index, config.size));
      talk.say('SET_VRING_BASE', payloads.state(index, bases[index]));
      talk.say('SET_VRING_ADDR', payloads.addresses(shift(config), index));
      talk.kickWith(index, rings[index].kick);
    }
    enable(talk, 0, 1);
    expect(talk.device.takeCalls()).toEqual(['start 0', 'start 1']);
    await exchange(talk, rings[0], 9);
  });

  it('by disabling its rings waits for memory that is taken away meanwhile, and nothing is touched', async () => {
    const { talk, rings } = await twoRings();
    disable(talk, 0, 1);
    const [region] = talk.memory.regions;
    const shorter = { ...regionFields(region), size: MIB - 4096 };
    talk.say('SET_MEM_TABLE', payloads.table([shorter]), { fds: [fileOf(region)] });
    expect(talk.device.takeCalls()).toEqual([
      'suspend 0',
      'suspend 1',
      'stop 0 undecided',
      'stop 1 undecided',
      'region- 0x0',
      'region+ 0x0',
    ]);
    enable(talk, 0, 1);
    expect(talk.device.takeCalls()).toEqual(['start 0', 'start 1']);
    await exchange(talk, rings[0], 9);
  });
});
