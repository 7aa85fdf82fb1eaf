/**
 * Conversations in the manner of real front-ends, message by message, with what is peculiar to each.
 * test/peers holds the ones that can be run here.
 */
import { describe, expect, it } from 'vitest';
import { createPipe } from '../../src/sys/fd.ts';
import {
  CONFIG_HEADER,
  F_PROTOCOL_FEATURES,
  FLAG_NEED_REPLY,
  MEM_TABLE_REGIONS_MAX,
  PROTOCOL_FEATURE,
} from '../../src/vhost-user/protocol.ts';
import { RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1 } from '../../src/virtio/features.ts';
import {
  type Conversation,
  conversations,
  fileOf,
  payloads,
  regionFields,
  type TestRing,
  wasRung,
} from './conversation.ts';
import { CONFIG_BYTES } from './ring-device.ts';

const converse = conversations();

const { MQ, REPLY_ACK, BACKEND_REQ, CONFIG, CONFIGURE_MEM_SLOTS, STATUS } = PROTOCOL_FEATURE;
const FEATURES = VERSION_1 | RING_EVENT_IDX | RING_INDIRECT_DESC;

async function exchange(talk: Conversation, ring: TestRing, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    if (ring.offer()) ring.ringKick();
    await talk.loop.turnUntil(() => ring.collect() === 1);
  }
}

describe('User Mode Linux', () => {
  /** From the probe to a running ring; every request wants an acknowledgement. Ends with the call pipe's reader. */
  function probe(talk: Conversation, ring: TestRing) {
    setUp(talk);
    return bringUp(talk, ring);
  }

  function setUp(talk: Conversation): void {
    talk.say('SET_OWNER');
    const offered = talk.ask('GET_FEATURES');
    expect(offered & F_PROTOCOL_FEATURES).not.toBe(0n);
    const protocol = talk.ask('GET_PROTOCOL_FEATURES') & (REPLY_ACK | BACKEND_REQ | CONFIG);
    // It believes in acknowledgements as soon as it has decided for them.
    expect(talk.accepts('SET_PROTOCOL_FEATURES', payloads.u64(protocol))).toBe(true);
    const channel = createPipe();
    expect(talk.accepts('SET_BACKEND_REQ_FD', undefined, [channel.writer])).toBe(true);
    channel.reader.close();
  }

  function bringUp(talk: Conversation, ring: TestRing) {
    expect(talk.accepts('SET_FEATURES', payloads.u64(FEATURES | F_PROTOCOL_FEATURES))).toBe(true);
    // Its message has room for two regions, used or not.
    const { regions } = talk.memory;
    const table = new Uint8Array(8 + 2 * 32);
    table.set(payloads.table(regions.map(regionFields)));
    expect(talk.accepts('SET_MEM_TABLE', table, regions.map(fileOf))).toBe(true);
    const call = createPipe();
    expect(talk.accepts('SET_VRING_CALL', payloads.u64(0), [call.writer])).toBe(true);
    expect(talk.accepts('SET_VRING_NUM', payloads.state(0, 8))).toBe(true);
    expect(talk.accepts('SET_VRING_BASE', payloads.state(0, 0))).toBe(true);
    expect(talk.accepts('SET_VRING_ADDR', payloads.addresses(ring.config, 0))).toBe(true);
    expect(talk.accepts('SET_VRING_KICK', payloads.u64(0), [ring.kick.duplicate()])).toBe(true);
    expect(talk.accepts('SET_VRING_ENABLE', payloads.state(0, 1))).toBe(true);
    return call.reader;
  }

  it('asks for an acknowledgement while it negotiates them, and is interrupted through a pipe', async () => {
    const talk = converse();
    const ring = talk.ring(0, FEATURES);
    const call = probe(talk, ring);
    await exchange(talk, ring, 3);
    expect(await wasRung(talk.loop, call)).toBe(true);
    expect(talk.refused).toEqual([]);
    call.close();
  });

  it('reads the configuration from 0 and wants all of it back, size and offset exact', () => {
    const talk = converse();
    setUp(talk);
    const reply = talk.say('GET_CONFIG', payloads.config(0, CONFIG_BYTES))!;
    expect(reply.byteLength).toBe(CONFIG_HEADER.size + CONFIG_BYTES);
    expect(CONFIG_HEADER.read(reply)).toEqual({ offset: 0, size: CONFIG_BYTES, flags: 0 });
  });

  it('starts over without a word when its driver is loaded again', async () => {
    const talk = converse();
    const first = talk.ring(0, FEATURES);
    const call = probe(talk, first);
    await exchange(talk, first, 3);
    call.close();
    const second = talk.ring(0, FEATURES, 8, 0x2_0000);
    const nextCall = bringUp(talk, second);
    expect(talk.device.takeCalls()).toContain('reset');
    await exchange(talk, second, 12);
    expect(talk.refused).toEqual([]);
    nextCall.close();
  });
});

describe('Cloud Hypervisor', () => {
  it('takes a few features, writes and reads the configuration, and hands over its channel last', async () => {
    const talk = converse();
    talk.device.config.set([1, 2, 3, 4]);
    talk.say('SET_OWNER');
    talk.ask('GET_FEATURES');
    const protocol = talk.ask('GET_PROTOCOL_FEATURES') & (MQ | CONFIG | REPLY_ACK | CONFIGURE_MEM_SLOTS);
    talk.say('SET_PROTOCOL_FEATURES', payloads.u64(protocol));
    // It panics where a configuration access fails, or echoes anything but what was asked.
    const WRITABLE = 1;
    const reply = talk.say('GET_CONFIG', payloads.config(0, CONFIG_BYTES, undefined, WRITABLE))!;
    expect(CONFIG_HEADER.read(reply)).toEqual({ offset: 0, size: CONFIG_BYTES, flags: WRITABLE });

    expect(talk.accepts('SET_FEATURES', payloads.u64(VERSION_1 | F_PROTOCOL_FEATURES))).toBe(true);
    const { regions } = talk.memory;
    const table = payloads.table(regions.map(regionFields));
    expect(talk.accepts('SET_MEM_TABLE', table, regions.map(fileOf))).toBe(true);
    const ring = talk.ring(0);
    talk.startRing(0, ring);
    const channel = createPipe();
    expect(talk.accepts('SET_BACKEND_REQ_FD', undefined, [channel.writer])).toBe(true);
    await exchange(talk, ring, 3);
    expect(talk.accepts('SET_CONFIG', payloads.config(4, 4, new Uint8Array([5, 6, 7, 8])))).toBe(true);
    expect([...talk.device.config.subarray(0, 8)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(talk.refused).toEqual([]);
    channel.reader.close();
  });

  it('pauses by disabling rings and goes on by enabling them', async () => {
    const talk = converse();
    const ring = talk.start(FEATURES);
    await exchange(talk, ring, 3);
    talk.say('SET_VRING_ENABLE', payloads.state(0, 0));
    talk.say('SET_VRING_ENABLE', payloads.state(0, 1));
    await exchange(talk, ring, 9);
    expect(talk.device.takeCalls()).toEqual(['suspend 0', 'resume 0']);
  });
});

describe('QEMU’s generic device', () => {
  function initialize(talk: Conversation, protocolFeatures: bigint): void {
    talk.ask('GET_FEATURES');
    const protocol = talk.ask('GET_PROTOCOL_FEATURES') & protocolFeatures;
    talk.say('SET_PROTOCOL_FEATURES', payloads.u64(protocol));
    talk.ask('GET_QUEUE_NUM');
    const channel = createPipe();
    expect(talk.accepts('SET_BACKEND_REQ_FD', undefined, [channel.writer])).toBe(true);
    channel.reader.close();
    expect(talk.ask('GET_MAX_MEM_SLOTS')).toBeGreaterThan(BigInt(MEM_TABLE_REGIONS_MAX));
    talk.say('SET_OWNER');
  }

  function start(talk: Conversation, ring: TestRing, base: number, memory: boolean): void {
    expect(talk.accepts('SET_FEATURES', payloads.u64(FEATURES | F_PROTOCOL_FEATURES))).toBe(true);
    for (const region of memory ? talk.memory.regions : []) {
      expect(talk.accepts('ADD_MEM_REG', payloads.region(region), [fileOf(region)])).toBe(true);
    }
    talk.say('SET_VRING_NUM', payloads.state(0, 8));
    talk.say('SET_VRING_BASE', payloads.state(0, base));
    talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, 0));
    talk.say('SET_VRING_KICK', payloads.u64(0), { fds: [ring.kick.duplicate()] });
    talk.say('SET_VRING_CALL', payloads.u64(0), { fds: [ring.call.duplicate()] });
    talk.say('SET_VRING_ENABLE', payloads.state(0, 1), { flags: FLAG_NEED_REPLY });
  }

  const ALL = MQ | REPLY_ACK | BACKEND_REQ | CONFIG | CONFIGURE_MEM_SLOTS;

  it('sets call descriptors before it says anything else about rings, and writes all of the configuration', async () => {
    const talk = converse();
    initialize(talk, ALL);
    const ring = talk.ring(0, FEATURES);
    for (const index of [0, 1, 2]) {
      talk.say('SET_VRING_CALL', payloads.u64(index), { fds: [ring.call.duplicate()] });
    }
    start(talk, ring, 0, true);
    await exchange(talk, ring, 3);
    const whole = new Uint8Array(CONFIG_BYTES).fill(3);
    expect(talk.accepts('SET_CONFIG', payloads.config(0, CONFIG_BYTES, whole))).toBe(true);
    expect(talk.device.config).toEqual(whole);
    expect(talk.refused).toEqual([]);
  });

  it('stops and continues a guest, whose device is still what it was', async () => {
    const talk = converse();
    initialize(talk, ALL);
    const ring = talk.ring(0, FEATURES);
    start(talk, ring, 0, true);
    await exchange(talk, ring, 5);
    talk.device.takeCalls();
    talk.say('SET_VRING_ENABLE', payloads.state(0, 0));
    const base = talk.stopRing(0);
    expect(base).toBe(5);
    start(talk, ring, base, false);
    expect(talk.device.takeCalls()).not.toContain('reset');
    await exchange(talk, ring, 20);
    expect(talk.refused).toEqual([]);
  });

  it('resets a guest by the status, and its next driver starts from nothing', async () => {
    const talk = converse();
    initialize(talk, ALL | STATUS);
    const ring = talk.ring(0, FEATURES);
    for (const status of [0, 1, 3, 11]) talk.say('SET_STATUS', payloads.u64(status));
    start(talk, ring, 0, true);
    talk.say('SET_STATUS', payloads.u64(15));
    await exchange(talk, ring, 5);
    talk.stopRing(0);
    talk.device.takeCalls();
    talk.say('SET_STATUS', payloads.u64(0));
    expect(talk.device.takeCalls()).toEqual(['reset']);
    const next = talk.ring(0, FEATURES);
    start(talk, next, 0, false);
    await exchange(talk, next, 5);
  });
});

describe('crosvm', () => {
  it('describes two rings without MQ, the base after the addresses', async () => {
    const talk = converse();
    talk.say('SET_OWNER');
    talk.ask('GET_FEATURES');
    talk.say('SET_FEATURES', payloads.u64(FEATURES | F_PROTOCOL_FEATURES));
    talk.say(
      'SET_PROTOCOL_FEATURES',
      payloads.u64(talk.ask('GET_PROTOCOL_FEATURES') & (CONFIG | BACKEND_REQ)),
    );
    talk.handOver();
    const rings = [talk.ring(0, FEATURES), talk.ring(1, FEATURES)];
    for (const [index, ring] of rings.entries()) {
      talk.say('SET_VRING_NUM', payloads.state(index, 8));
      talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, index));
      talk.say('SET_VRING_BASE', payloads.state(index, 0));
      talk.say('SET_VRING_CALL', payloads.u64(index), { fds: [ring.call.duplicate()] });
      talk.say('SET_VRING_KICK', payloads.u64(index), { fds: [ring.kick.duplicate()] });
      talk.say('SET_VRING_ENABLE', payloads.state(index, 1));
    }
    for (const ring of rings) await exchange(talk, ring, 3);
    expect(talk.device.served).toEqual([3, 3, 0]);
    expect(talk.refused).toEqual([]);
  });

  it('goes on with a ring from a snapshot: no ring starts before its base is known', async () => {
    const talk = converse();
    const ring = talk.start(FEATURES);
    await exchange(talk, ring, 5);
    const base = talk.stopRing(0);
    ring.offer();
    talk.say('SET_VRING_NUM', payloads.state(0, 8));
    talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, 0));
    talk.say('SET_VRING_BASE', payloads.state(0, base));
    talk.kickWith(0, ring.kick);
    await talk.loop.turnUntil(() => ring.collect() === 1);
    expect(talk.device.served[0]).toBe(6);
  });
});

describe('libkrun', () => {
  it('has no back-end request channel, and is served all the same', async () => {
    const talk = converse();
    talk.say('SET_OWNER');
    talk.ask('GET_FEATURES');
    talk.ask('GET_PROTOCOL_FEATURES');
    talk.say('SET_PROTOCOL_FEATURES', payloads.u64(CONFIG));
    talk.say('SET_FEATURES', payloads.u64(VERSION_1 | F_PROTOCOL_FEATURES));
    talk.handOver();
    const ring = talk.ring(0);
    talk.startRing(0, ring);
    await exchange(talk, ring, 3);
    expect(talk.channel).toBeUndefined();
  });
});
