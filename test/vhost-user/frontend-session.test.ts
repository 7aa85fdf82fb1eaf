/** The front-end on our own back-end, in one thread; test/peers has it on QEMU's. */
import { describe, expect, it, vi } from 'vitest';
import { HeapBacking } from '../../src/memory/backing.ts';
import { GuestMemory, MemoryRegion } from '../../src/memory/guest-memory.ts';
import { createEventFd } from '../../src/sys/fd.ts';
import { monotonicMs } from '../../src/sys/poll.ts';
import { BackendRequests } from '../../src/vhost-user/backend-requests.ts';
import { Connection, type Message } from '../../src/vhost-user/connection.ts';
import {
  VhostUserDisconnectedError,
  VhostUserRefusedError,
  VhostUserTimeoutError,
  VhostUserUnsupportedError,
} from '../../src/vhost-user/frontend-errors.ts';
import {
  FRONTEND_PROTOCOL_FEATURES,
  VhostUserFrontend,
  VRING_SIZE_MAX,
} from '../../src/vhost-user/frontend-session.ts';
import {
  F_PROTOCOL_FEATURES,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FRONTEND_REQUEST,
  PROTOCOL_FEATURE,
  U64,
} from '../../src/vhost-user/protocol.ts';
import { createSharedMemory } from '../../src/vhost-user/shared-memory.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import { VirtqueueError } from '../../src/virtio/queue.ts';
import { DEVICE_STATUS } from '../../src/virtio/transport.ts';
import { MIB } from './conversation.ts';
import { type Joined, joins, Ring } from './joined.ts';
import { RingDevice } from './ring-device.ts';

const join = joins();

const without = (...features: bigint[]): bigint =>
  features.reduce((left, feature) => left & ~feature, FRONTEND_PROTOCOL_FEATURES);

const PROTOCOLS: [string, bigint][] = [
  ['all of the protocol', FRONTEND_PROTOCOL_FEATURES],
  ['no acknowledgements', without(PROTOCOL_FEATURE.REPLY_ACK)],
  ['one memory table', without(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS)],
  ['no status', without(PROTOCOL_FEATURE.STATUS)],
  ['neither status nor reset', without(PROTOCOL_FEATURE.STATUS, PROTOCOL_FEATURE.RESET_DEVICE)],
  ['nothing but the base protocol', 0n],
];

describe.each(PROTOCOLS)('a driver over %s', (_, protocolFeatures) => {
  it('negotiates, exchanges buffers over several rings, resets and starts again', async () => {
    const joined = join();
    const frontend = await joined.connect({ protocolFeatures });
    for (const features of [VERSION_1, VERSION_1 | RING_PACKED, VERSION_1 | RING_EVENT_IDX | IN_ORDER]) {
      const rings = await joined.start(frontend, features, 3);
      expect(joined.device.driverFeatures).toBe(features);
      for (const ring of rings) await ring.exchange(11);
    }
    expect(joined.device.served).toEqual([33, 33, 33]);
    expect(joined.refused).toEqual([]);
    // The device touches no memory any more once it is reset.
    joined.device.takeCalls();
    await joined.loop.until(frontend.reset());
    expect(joined.device.takeCalls().slice(0, 3)).toEqual([
      'stop 0 paused',
      'stop 1 paused',
      'stop 2 paused',
    ]);
    expect(() => frontend.kick(0)).toThrow('before its time');
  });
});

describe('a front-end', () => {
  it('names itself after the socket’s path, and says when no back-end is there', async () => {
    const joined = join();
    const attempt = VhostUserFrontend.connect('/nonexistent/socket', {
      reactor: joined.loop.reactor,
      memory: joined.memory,
    });
    await expect(attempt).rejects.toThrow('ENOENT');
  });

  it('leaves the protocol’s own bits out of the features', async () => {
    const joined = join({ device: new RingDevice({ features: VERSION_1 | (1n << 26n) }) });
    const frontend = await joined.connect();
    expect(await joined.loop.until(frontend.getFeatures())).toBe(VERSION_1);
    expect(frontend.protocolFeatures).toBe(FRONTEND_PROTOCOL_FEATURES);
  });

  it('knows how many queues there are with MQ, and does not without', async () => {
    const joined = join();
    const frontend = await joined.connect();
    expect(await joined.loop.until(frontend.queueSizeMax(2))).toBe(VRING_SIZE_MAX);
    expect(await joined.loop.until(frontend.queueSizeMax(3))).toBe(0);
    const other = await joined.connect({ protocolFeatures: without(PROTOCOL_FEATURE.MQ) });
    expect(await joined.loop.until(other.queueSizeMax(255))).toBe(VRING_SIZE_MAX);
    expect(await joined.loop.until(other.queueSizeMax(256))).toBe(0);
  });

  it.each([
    ['kept by the back-end', FRONTEND_PROTOCOL_FEATURES],
    ['kept here where the back-end has none', without(PROTOCOL_FEATURE.STATUS)],
  ])('has a status, %s', async (_, protocolFeatures) => {
    const joined = join();
    const frontend = await joined.connect({ protocolFeatures });
    const { loop } = joined;
    await loop.until(frontend.writeStatus(DEVICE_STATUS.ACKNOWLEDGE));
    expect(await loop.until(frontend.readStatus())).toBe(1);
    await loop.until(frontend.writeStatus(0));
    expect(await loop.until(frontend.readStatus())).toBe(0);
    expect(joined.device.calls.filter(call => call === 'reset').length).toBeGreaterThan(0);
  });

  it('says which request the back-end refused, and goes on', async () => {
    const joined = join();
    const frontend = await joined.connect();
    const refusal = joined.loop.until(frontend.setFeatures(1n << 60n));
    await expect(refusal).rejects.toThrow(VhostUserRefusedError);
    await expect(refusal).rejects.toMatchObject({
      request: 'SET_FEATURES',
      code: 'AEROSTAT_VHOST_USER_REFUSED',
    });
    const [ring] = await joined.start(frontend, VERSION_1);
    await ring.exchange(2);
  });

  it('reads and writes the configuration at any place', async () => {
    const joined = join();
    joined.device.config.set([1, 2, 3, 4, 5, 6, 7, 8]);
    const frontend = await joined.connect();
    const { loop } = joined;
    expect([...(await loop.until(frontend.readConfig(2, 3)))]).toEqual([3, 4, 5]);
    await loop.until(frontend.writeConfig(4, new Uint8Array([9, 9])));
    expect([...(await loop.until(frontend.readConfig(0, 8)))]).toEqual([1, 2, 3, 4, 9, 9, 7, 8]);
    await expect(frontend.readConfig(250, 7)).rejects.toThrow(VhostUserUnsupportedError);
    await expect(frontend.readConfig(-1, 2)).rejects.toThrow(VhostUserUnsupportedError);
    await expect(frontend.writeConfig(256, new Uint8Array(1))).rejects.toThrow(VhostUserUnsupportedError);
  });

  it('has no configuration where the back-end has none', async () => {
    const joined = join();
    const frontend = await joined.connect({ protocolFeatures: without(PROTOCOL_FEATURE.CONFIG) });
    await expect(frontend.readConfig(0, 4)).rejects.toThrow('CONFIG');
  });

  it('hears of configuration changes until it stops listening', async () => {
    const joined = join();
    const frontend = await joined.connect();
    let heard = 0;
    const stop = frontend.onConfigChange(() => heard++);
    expect(joined.backend?.configChanged()).toBe(true);
    await joined.loop.turnUntil(() => heard === 1);
    stop();
    joined.backend?.configChanged();
    await joined.loop.settle();
    expect(heard).toBe(1);
  });

  it('is not told of changes without a channel for them', async () => {
    const joined = join();
    await joined.connect({ protocolFeatures: without(PROTOCOL_FEATURE.BACKEND_REQ) });
    expect(joined.backend?.configChanged()).toBe(false);
  });

  it('is told when the device gives a ring up', async () => {
    const joined = join();
    const frontend = await joined.connect();
    const [ring] = await joined.start(frontend, VERSION_1);
    const failures: number[] = [];
    frontend.onRingFailure(index => failures.push(index));
    joined.memory.setU16(ring.config.driverArea + 2, 1000);
    frontend.kick(0);
    await joined.loop.turnUntil(() => failures.length > 0);
    expect(failures).toEqual([0]);
  });

  it('refuses rings that are none, that run already, or that the protocol cannot number', async () => {
    const joined = join();
    const frontend = await joined.connect();
    const [ring] = await joined.start(frontend, VERSION_1);
    await expect(frontend.enableQueue(0, ring.config)).rejects.toThrow('until a reset');
    await expect(frontend.enableQueue(256, ring.config)).rejects.toThrow(VhostUserUnsupportedError);
    await expect(frontend.enableQueue(1, { ...ring.config, size: 7 })).rejects.toThrow(VirtqueueError);
    await expect(frontend.enableQueue(1, { ...ring.config, deviceArea: MIB })).rejects.toThrow(
      VirtqueueError,
    );
    await expect(joined.loop.until(frontend.enableQueue(9, ring.config))).rejects.toThrow(
      VhostUserRefusedError,
    );
    expect(() => frontend.kick(1)).toThrow('before its time');
  });

  it('pauses its rings and resumes them', async () => {
    const joined = join();
    const frontend = await joined.connect();
    for (const features of [VERSION_1, VERSION_1 | RING_PACKED | RING_EVENT_IDX]) {
      const [ring] = await joined.start(frontend, features);
      await ring.exchange(5);
      await joined.loop.until(frontend.pause());
      expect(joined.device.running.size).toBe(0);
      ring.offer(2);
      await joined.loop.until(frontend.resume());
      await joined.loop.turnUntil(() => ring.collect() === 2);
      await ring.exchange(9);
    }
  });

  it.each([
    ['slots', FRONTEND_PROTOCOL_FEATURES],
    ['tables', without(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS)],
  ])('adds and removes memory while rings run, by %s', async (_, protocolFeatures) => {
    const joined = join();
    const frontend = await joined.connect({ protocolFeatures });
    const [ring] = await joined.start(frontend, VERSION_1);
    const more = createSharedMemory({ regions: [{ guestAddress: 2 ** 32, size: MIB }] });
    const [region] = more.regions;
    await joined.loop.until(frontend.addRegion(region));
    expect(joined.backend?.session.memory.size).toBe(2 * MIB);
    await ring.exchange(2);
    await joined.loop.until(frontend.removeRegion(region));
    expect(joined.backend?.session.memory.size).toBe(MIB);
    expect(frontend.memory.regions.length).toBe(1);
    await ring.exchange(2);
    more.close();
  });

  it('does not keep a region that the back-end refuses, as too much', async () => {
    const joined = join();
    const frontend = await joined.connect();
    const size = 2 ** 42;
    const sparse = createSharedMemory({
      regions: [1, 2, 3, 4].map(index => ({ guestAddress: index * size, size })),
    });
    const [first, second, third, fourth] = sparse.regions;
    for (const region of [first, second, third]) await joined.loop.until(frontend.addRegion(region));
    await expect(joined.loop.until(frontend.addRegion(fourth))).rejects.toThrow(VhostUserRefusedError);
    expect(frontend.memory.regions.length).toBe(4);
    for (const region of [first, second, third]) await joined.loop.until(frontend.removeRegion(region));
    sparse.close();
  });

  it('keeps a region that the back-end does not let go of', async () => {
    const joined = join();
    const frontend = await joined.connect();
    const more = createSharedMemory({ regions: [{ guestAddress: 2 ** 32, size: MIB }] });
    const [region] = more.regions;
    await joined.loop.until(frontend.addRegion(region));
    // It has lost it, and refuses to remove what it does not know.
    const theirs = joined.backend!.session.memory.remove(joined.backend!.session.memory.regions[1])!;
    await expect(joined.loop.until(frontend.removeRegion(region))).rejects.toThrow(VhostUserRefusedError);
    expect(frontend.memory.regions).toContain(region);
    joined.backend!.session.memory.add(theirs);
    await joined.loop.until(frontend.removeRegion(region));
    expect(frontend.memory.regions).not.toContain(region);
    more.close();
  });

  it('cannot hand over memory that is no file, or more regions than a table holds', async () => {
    const joined = join();
    const { reactor } = joined.loop;
    const heap = new GuestMemory([
      new MemoryRegion({ guestAddress: 0, size: MIB, userAddress: 0 }, new HeapBacking(MIB)),
    ]);
    await expect(
      joined.loop.until(VhostUserFrontend.connect(joined.serve(), { reactor, memory: heap })),
    ).rejects.toThrow('no file');
    const regions = Array.from({ length: 9 }, (_, i) => ({ guestAddress: i * MIB, size: MIB }));
    const memory = createSharedMemory({ regions });
    const protocolFeatures = without(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS);
    await expect(
      joined.loop.until(VhostUserFrontend.connect(joined.serve(), { reactor, memory, protocolFeatures })),
    ).rejects.toThrow('9 regions');
    await joined.connect({ memory });
    memory.close();
  });

  it('fails whatever is under way when it is closed, and everything after', async () => {
    const joined = join();
    const frontend = await joined.connect();
    const underWay = frontend.readConfig(0, 4);
    frontend.close();
    frontend.close();
    await expect(underWay).rejects.toThrow(VhostUserDisconnectedError);
    await expect(frontend.readStatus()).rejects.toThrow(VhostUserDisconnectedError);
    expect((await frontend.ended).message).toMatch('was closed');
    await joined.loop.turnUntil(() => joined.ends.length === 1);
    expect(joined.ends).toEqual([undefined]);
    expect(joined.device.calls.at(-1)).toBe('region- 0x0');
  });
});

describe('a front-end in a thread that its reactor blocks', () => {
  it('needs nothing but the reactor’s turns: answers, timeouts and kicks come in them', async () => {
    const joined = join();
    const { reactor } = joined.loop;
    const work = async () => {
      const frontend = await VhostUserFrontend.connect(joined.serve(), { reactor, memory: joined.memory });
      await frontend.setFeatures(VERSION_1);
      const ring = new Ring(joined, frontend, 0, VERSION_1);
      await frontend.enableQueue(0, ring.config);
      const interrupted = new Promise<number | null>(resolve => frontend.onInterrupt(resolve));
      ring.offer();
      const index = await interrupted;
      const [silent] = joined.socketPair();
      const attempt = VhostUserFrontend.connect(silent, { reactor, memory: joined.memory, answerMsMax: 1 });
      await expect(attempt).rejects.toThrow(VhostUserTimeoutError);
      frontend.close();
      return index;
    };
    const worked = work().finally(() => reactor.stop());
    await reactor.run();
    expect(await worked).toBe(0);
    expect(joined.device.served[0]).toBe(1);
  });
});

describe('a back-end that vanishes', () => {
  it('ends the transport with a reason, and fails what is under way', async () => {
    const joined = join();
    const frontend = await joined.connect();
    const underWay = frontend.readConfig(0, 4);
    joined.backend?.close();
    await expect(joined.loop.until(underWay)).rejects.toThrow(VhostUserDisconnectedError);
    expect((await frontend.ended).message).toMatch('closed the connection');
    expect(frontend.connected).toBe(false);
    expect(frontend.protocolFeatures).toBe(0n);
  });

  it.each([
    ['a split ring', VERSION_1],
    ['a split ring with event indices', VERSION_1 | RING_EVENT_IDX],
  ])('leaves %s that the next one goes on with', async (_, features) => {
    const joined = join();
    const frontend = await joined.connect({ reconnects: true });
    const reasons: Error[] = [];
    frontend.onDisconnect(reason => reasons.push(reason));
    const rings = await joined.start(frontend, features, 2);
    await rings[0].exchange(5);
    await rings[1].exchange(3);
    joined.backend?.close();
    await joined.loop.turnUntil(() => reasons.length === 1);
    // The driver notices nothing: it offers and kicks as ever.
    rings[0].offer(2);
    let news = 0;
    frontend.onConfigChange(() => news++);
    await joined.loop.until(frontend.reconnect(joined.serve()));
    await joined.loop.turnUntil(() => rings[0].collect() === 2);
    for (const ring of rings) await ring.exchange(12);
    expect(news).toBe(1);
    expect(await joined.loop.until(frontend.readStatus())).toBe(15);
    expect(joined.refused).toEqual([]);
  });

  it('leaves a packed ring whose base must be told, unless it was paused', async () => {
    const joined = join();
    const frontend = await joined.connect({ reconnects: true });
    const [ring] = await joined.start(frontend, VERSION_1 | RING_PACKED);
    await ring.exchange(5);
    await joined.loop.until(frontend.pause());
    await joined.loop.until(frontend.reconnect(joined.serve()));
    await ring.exchange(5);
    await expect(joined.loop.until(frontend.reconnect(joined.serve()))).rejects.toThrow('base');
    expect(frontend.connected).toBe(false);
    const { nextUsed } = ring.queue.save();
    const bases = new Map([[0, nextUsed + nextUsed * 0x1_0000]]);
    await joined.loop.until(frontend.reconnect(joined.serve(), bases));
    await ring.exchange(10);
  });

  it('is replaced by one that knows what the driver wrote into the configuration before a ring runs', async () => {
    const joined = join();
    const frontend = await joined.connect({ reconnects: true });
    const [ring] = await joined.start(frontend, VERSION_1);
    await joined.loop.until(frontend.writeConfig(8, Uint8Array.of(7, 7, 7, 7)));
    await ring.exchange(2);
    const next = new RingDevice();
    let shown = 0;
    next.onStart = () => {
      shown = next.config[8];
    };
    await joined.loop.until(frontend.reconnect(joined.serve(next)));
    expect(shown).toBe(7);
    // A reset is the end of that.
    await joined.loop.until(frontend.reset());
    const last = new RingDevice();
    await joined.loop.until(frontend.reconnect(joined.serve(last)));
    expect(last.config[8]).toBe(0);
  });

  it('that goes in the middle of a reset leaves nothing for the next one to take up', async () => {
    const joined = join();
    const frontend = await joined.connect({ reconnects: true });
    const [ring] = await joined.start(frontend, VERSION_1);
    await ring.exchange(1);
    const reset = frontend.reset();
    joined.backend?.close();
    await joined.loop.until(reset);
    const next = new RingDevice();
    await joined.loop.until(frontend.reconnect(joined.serve(next)));
    expect(next.running.size).toBe(0);
    const [again] = await joined.start(frontend, VERSION_1);
    await again.exchange(3);
  });

  it('is not replaced by one that lacks what the driver uses', async () => {
    const joined = join();
    const frontend = await joined.connect({ reconnects: true });
    await joined.start(frontend, VERSION_1 | RING_EVENT_IDX);
    const poorer = joined.serve(new RingDevice({ features: VERSION_1 }));
    await expect(joined.loop.until(frontend.reconnect(poorer))).rejects.toThrow('0x20000000');
    await joined.loop.until(frontend.reconnect(joined.serve()));
    const socket = joined.serve();
    frontend.close();
    await expect(frontend.reconnect(socket)).rejects.toThrow('is closed');
  });

  /** Serves `count` messages as our back-end does, then hangs up. */
  function vanishAfter(joined: Joined, count: number) {
    const [ours, theirs] = joined.socketPair();
    const inner = joined.serve();
    const outward = new Connection(theirs);
    const inward = new Connection(inner);
    const { reactor } = joined.loop;
    let left = count;
    const pump = (from: Connection, to: Connection, limit: boolean) => {
      for (;;) {
        const received = from.receive();
        if (received.kind !== 'message') return;
        if (limit && left-- === 0) {
          for (const fd of received.message.fds) fd.close();
          stop();
          return;
        }
        const { request, flags, payload, fds } = received.message;
        to.send(request, flags, new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength), fds);
        for (const fd of fds) fd.close();
      }
    };
    const watches = [
      reactor.watch(outward.fd, () => pump(outward, inward, true)),
      reactor.watch(inward.fd, () => pump(inward, outward, false)),
    ];
    const stop = () => {
      for (const watch of watches) watch.stop();
      outward.close();
      inward.close();
    };
    return { socket: ours, stop };
  }

  it('is noticed in every phase of the conversation, and nothing is left behind', async () => {
    let completed = false;
    for (let count = 0; !completed; count++) {
      expect(count).toBeLessThan(100);
      const joined = join();
      const { socket, stop } = vanishAfter(joined, count);
      try {
        const frontend = await joined.connect({}, socket);
        const [ring] = await joined.start(frontend, VERSION_1);
        await ring.exchange(1);
        await joined.loop.until(frontend.readConfig(0, 4));
        await joined.loop.until(frontend.reset());
        completed = true;
      } catch (error) {
        expect(error).toBeInstanceOf(VhostUserDisconnectedError);
      }
      stop();
    }
  });
});

describe('a back-end that keeps silent or talks nonsense', () => {
  type Answer = (
    message: Message,
    send: (request: number, flags: number, payload: Uint8Array) => void,
  ) => void;

  /** A back-end that is nothing but a function from messages to answers. */
  function scripted(joined: Joined, answer: Answer) {
    const [ours, theirs] = joined.socketPair();
    const connection = new Connection(theirs);
    joined.loop.reactor.watch(connection.fd, () => {
      for (;;) {
        const received = connection.receive();
        if (received.kind !== 'message') return;
        for (const fd of received.message.fds) fd.close();
        answer(received.message, (request, flags, payload) => connection.send(request, flags, payload));
      }
    });
    return ours;
  }

  const { GET_FEATURES } = FRONTEND_REQUEST;
  const u64 = (value: bigint) => U64.encode({ value });

  it('is given up after a while when it never answers', async () => {
    const joined = join();
    const socket = scripted(joined, () => {});
    const attempt = joined.connect({ answerMsMax: 20 }, socket);
    await expect(attempt).rejects.toThrow(VhostUserTimeoutError);
    await expect(attempt).rejects.toMatchObject({ request: 'GET_FEATURES' });
  });

  it('is not given up later when it answered', async () => {
    const joined = join();
    // The clock stands still while it connects: no host is too slow for that.
    let nowMs = monotonicMs();
    const clock = vi
      .spyOn(process, 'hrtime')
      .mockImplementation((() => [0, nowMs * 1e6]) as typeof process.hrtime);
    try {
      const frontend = await joined.connect({ answerMsMax: 40 });
      nowMs += 80;
      await joined.loop.settle();
      expect(frontend.connected).toBe(true);
    } finally {
      clock.mockRestore();
    }
  });

  it.each<[string, Answer]>([
    ['answers what was not asked', (_, send) => send(99, FLAG_REPLY, u64(0n))],
    ['answers with a request', ({ request }, send) => send(request, 0, u64(0n))],
    ['answers too shortly', ({ request }, send) => send(request, FLAG_REPLY, new Uint8Array(4))],
    ['answers too long', ({ request }, send) => send(request, FLAG_REPLY, new Uint8Array(12))],
    ['answers with another request’s number', (_, send) => send(GET_FEATURES + 1, FLAG_REPLY, u64(0n))],
  ])('is left when it %s', async (_, answer) => {
    const joined = join();
    const attempt = joined.connect({}, scripted(joined, answer));
    await expect(attempt).rejects.toThrow(VhostUserDisconnectedError);
  });

  it('is taken at its word when it says no with a configuration of size 0', async () => {
    const joined = join();
    const socket = scripted(joined, ({ request, flags }, send) => {
      if (request === FRONTEND_REQUEST.GET_FEATURES) send(request, FLAG_REPLY, u64(F_PROTOCOL_FEATURES));
      else if (request === FRONTEND_REQUEST.GET_PROTOCOL_FEATURES) {
        send(request, FLAG_REPLY, u64(PROTOCOL_FEATURE.CONFIG | PROTOCOL_FEATURE.REPLY_ACK));
      } else if (request === FRONTEND_REQUEST.GET_CONFIG) send(request, FLAG_REPLY, new Uint8Array(12));
      else if ((flags & FLAG_NEED_REPLY) !== 0) send(request, FLAG_REPLY, u64(0n));
    });
    const frontend = await joined.connect({}, socket);
    await expect(joined.loop.until(frontend.readConfig(0, 4))).rejects.toThrow(VhostUserRefusedError);
  });
});

describe('the back-end’s own requests', () => {
  it('are answered when they want it, and unknown ones refused', async () => {
    const joined = join();
    const [ours, theirs] = joined.socketPair();
    let changes = 0;
    const requests = new BackendRequests(ours, joined.loop.reactor, () => changes++);
    const backend = new Connection(theirs);
    const exchange = async (request: number, flags: number, payload = new Uint8Array(0)) => {
      const fd = createEventFd();
      backend.send(request, flags, payload, [fd]);
      fd.close();
      await joined.loop.settle();
      const result = backend.receive();
      return result.kind === 'message' ? U64.read(result.message.payload).value : result.kind;
    };
    expect(await exchange(2, 0)).toBe('wait');
    expect(changes).toBe(1);
    expect(await exchange(2, FLAG_NEED_REPLY)).toBe(0n);
    expect(changes).toBe(2);
    expect(await exchange(1, FLAG_NEED_REPLY)).toBe(1n);
    expect(await exchange(2, FLAG_NEED_REPLY, new Uint8Array(8))).toBe(1n);
    expect(changes).toBe(2);
    expect(await exchange(2, FLAG_REPLY)).toBe('closed');
    requests.close();
  });
});
