/** A device that answers buffers, moved by hand, and the queue of questions and answers that a driver has for it. */
import { describe, expect, test } from 'vitest';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { HandQueue } from '../../src/testing/hand-queue.ts';
import { heapMemory, placer } from '../../src/testing/heap-memory.ts';
import { BufferDevice } from '../../src/virtio/buffer-device.ts';
import type { DescriptorChain } from '../../src/virtio/chain.ts';
import { createDeviceQueue } from '../../src/virtio/create.ts';
import { ExchangeQueue } from '../../src/virtio/exchange-queue.ts';
import { IN_ORDER, RING_FEATURES, VERSION_1 } from '../../src/virtio/features.ts';
import { DEVICE_STATUS, type VirtioTransport } from '../../src/virtio/transport.ts';

const ANSWER_AT = 0x9000;

/** Answers with the same bytes, each one higher. */
class Incrementer extends BufferDevice {
  readonly later: (() => void)[];
  answered = 0;

  constructor() {
    const later: (() => void)[] = [];
    super({ schedule: (_delayMs, run) => later.push(run) });
    this.later = later;
  }

  answer(buffer: DescriptorChain, memory: GuestMemory): number {
    this.answered++;
    const bytes = new Uint8Array(buffer.readableBytes);
    buffer.read(memory, 0, bytes, 0, bytes.length);
    return buffer.write(
      memory,
      0,
      bytes.map(byte => byte + 1),
    );
  }
}

function world(size = 8) {
  const memory = heapMemory(2 ** 20);
  const device = new Incrementer();
  const config = {
    size,
    features: VERSION_1,
    descriptorArea: 0x1000,
    driverArea: 0x6000,
    deviceArea: 0x8000,
  };
  const place = placer(memory, 0x10000, 0x20000);
  const queue = new HandQueue({ device, memory, index: 0, config, place }).start();
  return { memory, device, queue };
}

const question = (...bytes: number[]) => ({
  out: [Uint8Array.from(bytes)],
  in: [[ANSWER_AT, 16]] as [number, number][],
});

describe('a device that answers buffers', () => {
  test('returns each with what its subclass wrote', () => {
    const { memory, queue } = world();
    expect(queue.exchange(question(1, 2))).toEqual([{ token: 0, written: 2 }]);
    expect(memory.u32(ANSWER_AT) & 0xffff).toBe(0x0302);
    expect(queue.interrupts).toBe(1);
  });

  test('returns nonsense with length 0, and asks its subclass nothing', () => {
    const { device, queue } = world();
    queue.add({ outAt: [[2 ** 40, 8]], in: [[ANSWER_AT, 16]] });
    queue.kick();
    expect(queue.collect()).toEqual([{ token: 0, written: 0 }]);
    expect(device.answered).toBe(0);
  });

  test('serves no ring that is suspended, and goes on when it is resumed', () => {
    const { device, queue } = world();
    device.suspendQueue(0);
    expect(queue.exchange(question(1))).toEqual([]);
    device.resumeQueue(0);
    device.serveQueue(0);
    expect(queue.collect()).toHaveLength(1);
  });

  test('gives up a ring whose indices are invalid', () => {
    const { device, queue } = world();
    queue.forgeOffer(...Array.from({ length: 9 }, () => 0));
    expect(queue.failures).toBe(1);
    expect(queue.exchange(question(1))).toEqual([]);
    expect(device.answered).toBe(0);
  });

  test('leaves the loop to others after 256 buffers, and is back for the rest', () => {
    const { device, queue } = world(512);
    for (let count = 0; count < 256; count++) queue.add({ in: [[ANSWER_AT, 16]] });
    queue.kick();
    expect(queue.collect()).toHaveLength(256);
    for (let count = 0; count < 300; count++) queue.add({ in: [[ANSWER_AT, 16]] });
    queue.kick();
    expect(queue.collect()).toHaveLength(256);
    for (const run of device.later.splice(0)) run();
    expect(queue.collect()).toHaveLength(44);
    device.stopQueue(0);
    for (const run of device.later.splice(0)) run();
    expect(device.answered).toBe(556);
  });

  test('has no configuration space', () => {
    const bytes = new Uint8Array(4).fill(7);
    new Incrementer().readConfig(0, bytes);
    expect([...bytes]).toEqual([0, 0, 0, 0]);
  });
});

/** A device in the same memory, as far as {@link ExchangeQueue} asks for one. */
function transportTo(device: BufferDevice, memory: GuestMemory, { refuses = false, offered = ~0n } = {}) {
  let status = 0;
  let interrupt = (): void => {};
  let end: (error: Error) => void = () => {};
  const transport = {
    description: 'a device here',
    ended: new Promise<Error>(resolve => {
      end = resolve;
    }),
    reset: async () => {},
    readStatus: async () => (refuses ? status & ~DEVICE_STATUS.FEATURES_OK : status),
    writeStatus: async (bits: number) => {
      status = bits;
    },
    getFeatures: async () => device.features & offered,
    setFeatures: async () => {},
    enableQueue: async (index, config) =>
      device.startQueue(index, createDeviceQueue(config), memory, {
        interrupt: () => interrupt(),
        fail: error => {
          throw error;
        },
      }),
    kick: index => device.serveQueue(index),
    onInterrupt: listener => {
      interrupt = () => listener(0);
      return () => {
        interrupt = () => {};
      };
    },
  } satisfies Partial<VirtioTransport>;
  return { transport: transport as unknown as VirtioTransport, lose: (error: Error) => end(error) };
}

describe('a queue of questions and answers', () => {
  test.each([
    ['split', VERSION_1],
    ['packed, in order, with event indices', VERSION_1 | RING_FEATURES | IN_ORDER],
  ])('has one answer for each (%s)', async (_, offered) => {
    const memory = heapMemory(2 ** 20);
    const device = transportTo(new Incrementer(), memory, { offered }).transport;
    const queue = await ExchangeQueue.open({ device, memory, address: 1, bytesMax: 5000 });
    for (let byte = 0; byte < 9; byte++) {
      const answer = await queue.exchange(new Uint8Array(5000).fill(byte));
      expect([answer.length, answer[0], answer.at(-1)]).toEqual([5000, byte + 1, byte + 1]);
    }
  });

  test('says why there is none', async () => {
    const memory = heapMemory(2 ** 20);
    const incrementer = new Incrementer();
    const refusing = transportTo(incrementer, memory, { refuses: true }).transport;
    await expect(ExchangeQueue.open({ device: refusing, memory, address: 0, bytesMax: 64 })).rejects.toThrow(
      'refused the features',
    );
    const { transport, lose } = transportTo(incrementer, memory);
    const queue = await ExchangeQueue.open({ device: transport, memory, address: 0, bytesMax: 64 });
    await expect(queue.exchange(new Uint8Array(65))).rejects.toThrow('1 to 64 are possible');
    incrementer.suspendQueue(0);
    const unanswered = queue.exchange(new Uint8Array(1));
    await expect(queue.exchange(new Uint8Array(1))).rejects.toThrow('under way already');
    lose(new Error('the device is gone'));
    await expect(unanswered).rejects.toThrow('the device is gone');
  });
});
