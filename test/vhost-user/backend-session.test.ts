/** What the back-end answers, request by request; memory and rings have suites of their own. */
import { describe, expect, it } from 'vitest';
import { closeAll, createEventFd, type OwnedFd } from '../../src/sys/fd.ts';
import { BACKEND_PROTOCOL_FEATURES } from '../../src/vhost-user/backend-features.ts';
import {
  CONFIG_HEADER,
  F_LOG_ALL,
  F_PROTOCOL_FEATURES,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FRONTEND_REQUEST,
  type FrontendRequest,
  PROTOCOL_FEATURE,
  REPLY_SHAPES,
  REQUEST_SHAPES,
} from '../../src/vhost-user/protocol.ts';
import { VERSION_1 } from '../../src/virtio/features.ts';
import { type Conversation, conversations, fileOf, payloads } from './conversation.ts';
import { CONFIG_BYTES, RingDevice } from './ring-device.ts';

const converse = conversations();

describe('features', () => {
  it('offers the device’s features and the protocol’s own bits', () => {
    const talk = converse();
    expect(talk.ask('GET_FEATURES')).toBe(talk.device.features | F_PROTOCOL_FEATURES | F_LOG_ALL);
  });

  it('tells the device what the driver took, without the protocol’s own bit', () => {
    const talk = converse();
    talk.negotiate(VERSION_1);
    expect(talk.device.driverFeatures).toBe(VERSION_1);
    expect(talk.session.features).toBe(VERSION_1 | F_PROTOCOL_FEATURES);
  });

  it('refuses features that were not offered, and keeps those that were negotiated', () => {
    const talk = converse();
    talk.negotiate(VERSION_1);
    expect(talk.accepts('SET_FEATURES', payloads.u64(1n << 63n))).toBe(false);
    expect(talk.device.driverFeatures).toBe(VERSION_1);
    expect(talk.refused.at(-1)?.message).toMatch('0x8000000000000000');
  });

  it('offers its protocol features and refuses others', () => {
    const talk = converse();
    expect(talk.ask('GET_PROTOCOL_FEATURES')).toBe(BACKEND_PROTOCOL_FEATURES);
    talk.negotiate();
    expect(talk.accepts('SET_PROTOCOL_FEATURES', payloads.u64(PROTOCOL_FEATURE.INBAND_NOTIFICATIONS))).toBe(
      false,
    );
  });

  it('says how many rings and memory slots it has', () => {
    const talk = converse({ device: new RingDevice({ queueCount: 5 }) });
    expect(talk.ask('GET_QUEUE_NUM')).toBe(5n);
    expect(talk.ask('GET_MAX_MEM_SLOTS')).toBe(509n);
  });
});

describe('an acknowledgement', () => {
  it('comes when it is asked for, and only then', () => {
    const talk = converse();
    talk.negotiate();
    expect(talk.say('SET_OWNER')).toBeUndefined();
    expect(talk.accepts('SET_OWNER')).toBe(true);
    expect(talk.accepts('RESET_OWNER')).toBe(true);
  });

  it('does not come before it was negotiated', () => {
    const talk = converse();
    expect(talk.say('SET_OWNER', undefined, { flags: FLAG_NEED_REPLY })).toBeUndefined();
    talk.negotiate(VERSION_1, PROTOCOL_FEATURE.MQ);
    expect(talk.say('SET_OWNER', undefined, { flags: FLAG_NEED_REPLY })).toBeUndefined();
  });

  it('comes for the very request that negotiates it, as User Mode Linux asks', () => {
    const talk = converse();
    expect(talk.accepts('SET_PROTOCOL_FEATURES', payloads.u64(PROTOCOL_FEATURE.REPLY_ACK))).toBe(true);
  });

  it('is not added to a reply that comes anyway', () => {
    const talk = converse();
    talk.negotiate();
    const reply = talk.say('GET_QUEUE_NUM', undefined, { flags: FLAG_NEED_REPLY });
    expect(reply?.getBigUint64(0, true)).toBe(3n);
  });

  it('of a refused request says so', () => {
    const talk = converse();
    talk.negotiate();
    expect(talk.accepts(99)).toBe(false);
    expect(talk.accepts('SET_LOG_BASE', new Uint8Array(16))).toBe(false);
    expect(talk.accepts('SET_VRING_NUM', new Uint8Array(7))).toBe(false);
    expect(talk.refused.map(({ request }) => request)).toEqual([
      'unknown request',
      'SET_LOG_BASE',
      'SET_VRING_NUM',
    ]);
  });

  it('has the request’s number and the reply flag', () => {
    const talk = converse();
    talk.negotiate();
    const reply = talk.session.serve({
      request: FRONTEND_REQUEST.SET_OWNER,
      flags: 1 | FLAG_NEED_REPLY,
      payload: new DataView(new ArrayBuffer(0)),
      fds: [],
    });
    expect(reply).toMatchObject({ request: FRONTEND_REQUEST.SET_OWNER, flags: FLAG_REPLY });
  });
});

describe('a malformed request', () => {
  const names = Object.keys(FRONTEND_REQUEST) as FrontendRequest[];

  it.each(names)('%s with a surplus descriptor or byte is refused, and the descriptor closed', name => {
    const talk = converse();
    talk.negotiate();
    const size = REQUEST_SHAPES[name]?.size ?? 0;
    const surplus = Array.from({ length: 9 }, createEventFd);
    talk.say(name, new Uint8Array(size), { fds: surplus });
    expect(talk.refused.length).toBe(1);
    expect(surplus.every(fd => !fd.open)).toBe(true);

    if (REQUEST_SHAPES[name]?.exact === true) {
      talk.say(name, new Uint8Array(4096));
      expect(talk.refused.length).toBe(2);
    }
    // What follows is understood as ever.
    expect(talk.ask('GET_QUEUE_NUM')).toBe(3n);
  });

  it('that has the reply flag is refused', () => {
    const talk = converse();
    expect(talk.say('GET_FEATURES', undefined, { flags: FLAG_REPLY })).toBeUndefined();
    expect(talk.refused[0].message).toMatch('came as a reply');
  });

  it('never gets a reply of another shape than the one that the request has', () => {
    const talk = converse();
    for (const [name, { size }] of Object.entries(REPLY_SHAPES)) {
      const reply = talk.say(name as FrontendRequest, new Uint8Array(3));
      if (reply !== undefined) expect(reply.byteLength).toBe(size);
    }
  });
});

describe('the configuration space', () => {
  it('is read with the offset and size that were asked for', () => {
    const talk = converse();
    talk.device.config.set([1, 2, 3, 4, 5, 6, 7, 8]);
    const reply = talk.say('GET_CONFIG', payloads.config(2, 4, undefined, 1))!;
    expect(CONFIG_HEADER.read(reply)).toEqual({ offset: 2, size: 4, flags: 1 });
    expect(new Uint8Array(reply.buffer, CONFIG_HEADER.size)).toEqual(new Uint8Array([3, 4, 5, 6]));
  });

  it('is zero beyond the device’s own, up to the protocol’s limit, and refused beyond that with size 0', () => {
    const talk = converse();
    talk.device.config.fill(7);
    const reply = talk.say('GET_CONFIG', payloads.config(0, 256))!;
    const bytes = new Uint8Array(reply.buffer, CONFIG_HEADER.size);
    expect(bytes.length).toBe(256);
    expect(bytes.subarray(CONFIG_BYTES).every(byte => byte === 0)).toBe(true);
    for (const [offset, size] of [
      [1, 256],
      [256, 1],
      [0, 0xffff_ffff],
      [0xffff_ffff, 4],
    ]) {
      const refusal = talk.say('GET_CONFIG', payloads.config(offset, size, new Uint8Array(0)))!;
      expect(CONFIG_HEADER.read(refusal)).toEqual({ offset: 0, size: 0, flags: 0 });
      expect(refusal.byteLength).toBe(CONFIG_HEADER.size);
    }
  });

  it('is written where the request says', () => {
    const talk = converse();
    talk.negotiate();
    expect(talk.accepts('SET_CONFIG', payloads.config(4, 4, new Uint8Array([9, 8, 7, 6])))).toBe(true);
    expect([...talk.device.config.subarray(2, 10)]).toEqual([0, 0, 9, 8, 7, 6, 0, 0]);
  });

  it('is not written by a request whose size and payload disagree', () => {
    const talk = converse();
    talk.negotiate();
    const bytes = new Uint8Array(8).fill(1);
    for (const [offset, size] of [
      [0, 7],
      [0, 9],
      [253, 8],
    ]) {
      expect(talk.accepts('SET_CONFIG', payloads.config(offset, size, bytes))).toBe(false);
    }
    expect(talk.device.config.every(byte => byte === 0)).toBe(true);
  });
});

describe('reset and status', () => {
  it('keeps the status that the driver writes, and resets the device when that is 0', () => {
    const talk = converse();
    const ring = talk.start();
    expect(talk.accepts('SET_STATUS', payloads.u64(15))).toBe(true);
    expect(talk.ask('GET_STATUS')).toBe(15n);
    talk.device.takeCalls();
    talk.say('SET_STATUS', payloads.u64(0));
    expect(talk.device.takeCalls()).toEqual(['stop 0 abandoned', 'reset']);
    expect(talk.ask('GET_STATUS')).toBe(0n);
    expect(talk.session.features).toBe(0n);
    ring.ringKick();
    expect(talk.session.ringsRunning).toBe(0);
  });

  it('resets the device on RESET_DEVICE, and starts over with the same memory', async () => {
    const talk = converse();
    talk.start();
    talk.say('RESET_DEVICE');
    expect(talk.device.takeCalls()).toEqual(['stop 0 abandoned', 'reset']);
    talk.say('SET_FEATURES', payloads.u64(VERSION_1 | F_PROTOCOL_FEATURES));
    const ring = talk.ring(0);
    talk.startRing(0, ring);
    expect(ring.offer()).toBe(true);
    ring.ringKick();
    await talk.loop.turnUntil(() => ring.collect() === 1);
  });

  it('starts no ring of the last life when memory or features come, before it is described again', () => {
    const talk = converse();
    const ring = talk.start();
    ring.offer();
    talk.say('RESET_DEVICE');
    talk.say('SET_FEATURES', payloads.u64(VERSION_1 | F_PROTOCOL_FEATURES));
    talk.handOver();
    talk.say('SET_VRING_ENABLE', payloads.state(0, 1));
    expect(talk.session.ringsRunning).toBe(0);
    expect(talk.device.served[0]).toBe(0);
  });
});

describe('a session that begins again on its connection, as QEMU’s does when its device is plugged in anew', () => {
  /** What QEMU says in front of SET_OWNER, and up to the memory. */
  function beginAgain(talk: Conversation): OwnedFd {
    talk.ask('GET_FEATURES');
    talk.say('SET_PROTOCOL_FEATURES', payloads.u64(talk.ask('GET_PROTOCOL_FEATURES')));
    const channel = createEventFd();
    expect(talk.accepts('SET_BACKEND_REQ_FD', undefined, [channel])).toBe(true);
    expect(talk.accepts('SET_OWNER')).toBe(true);
    talk.say('SET_FEATURES', payloads.u64(VERSION_1 | F_PROTOCOL_FEATURES));
    return channel;
  }

  it('starts with an empty memory table: the same addresses do not overlap what the former one left', async () => {
    const talk = converse();
    talk.start();
    beginAgain(talk);
    expect(talk.device.takeCalls()).toEqual([
      'stop 0 abandoned',
      'reset',
      'region- 0x0',
      `features 0x${VERSION_1.toString(16)}`,
    ]);
    expect(talk.begunAnew).toBe(1);
    expect(talk.session.memory.regions).toEqual([]);
    const [region] = talk.memory.regions;
    expect(talk.accepts('ADD_MEM_REG', payloads.region(region), [fileOf(region)])).toBe(true);
    const ring = talk.ring(0);
    talk.startRing(0, ring);
    ring.offer();
    ring.ringKick();
    await talk.loop.turnUntil(() => ring.collect() === 1);
    expect(talk.refused).toEqual([]);
  });

  it('starts with rings that are not described, and without the former one’s descriptors', () => {
    const talk = converse();
    const former = talk.start();
    former.offer();
    beginAgain(talk);
    talk.handOver();
    // Everything of the former session but its doorbell, which alone shall not start its ring.
    talk.kickWith(0, former.kick);
    talk.say('SET_VRING_ENABLE', payloads.state(0, 1));
    expect(talk.session.ringsRunning).toBe(0);
    talk.say('SET_VRING_ADDR', payloads.addresses(former.config, 0));
    expect(talk.session.ringsRunning).toBe(0);
    expect(talk.device.served[0]).toBe(0);
  });

  it('keeps the channel and the protocol features that came in front of SET_OWNER', () => {
    const talk = converse();
    talk.start();
    const channel = beginAgain(talk);
    expect(channel.open).toBe(true);
    expect(talk.channel).toBe(channel);
    expect(talk.accepts('SET_VRING_NUM', payloads.state(0, 8))).toBe(true);
  });

  it('is no news in a session that has only begun', () => {
    const talk = converse();
    talk.negotiate();
    expect(talk.device.takeCalls()).toEqual([`features 0x${VERSION_1.toString(16)}`]);
  });
});

describe('the back-end request channel', () => {
  it('is handed on, replaced, and taken back when the front-end is gone', () => {
    const talk = converse();
    const channels = [createEventFd(), createEventFd()];
    for (const fd of channels) talk.say('SET_BACKEND_REQ_FD', undefined, { fds: [fd] });
    expect(channels.map(fd => fd.open)).toEqual([false, true]);
    talk.session.close();
    expect(talk.channel).toBeUndefined();
    expect(channels[1].open).toBe(false);
  });

  it('needs just one descriptor', () => {
    const talk = converse();
    talk.negotiate();
    expect(talk.accepts('SET_BACKEND_REQ_FD')).toBe(false);
    const fds = [createEventFd(), createEventFd()];
    expect(talk.accepts('SET_BACKEND_REQ_FD', undefined, fds)).toBe(false);
    expect(talk.channel).toBeUndefined();
    closeAll(fds);
  });
});

describe('the end of a conversation', () => {
  it('stops the rings, resets the device, and lets go of memory, in this order', () => {
    const talk = converse();
    talk.start();
    talk.session.close();
    expect(talk.device.takeCalls()).toEqual(['stop 0 abandoned', 'reset', 'region- 0x0']);
    expect(talk.session.memory.regions).toEqual([]);
  });

  it('lets mistakes of our own through: they are no front-end’s', () => {
    const talk = converse();
    talk.device.readConfig = () => {
      throw new TypeError('a bug');
    };
    expect(() => talk.say('GET_CONFIG', payloads.config(0, 4))).toThrow(TypeError);
  });
});
