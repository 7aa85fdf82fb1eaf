/**
 * Driver's side against device's side, over one memory, with random operations in random order: every buffer comes
 * back exactly once with the length that the device gave it, and neither side sleeps while there is something to do.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DescriptorChain, type PoppedBuffer, SegmentList } from '../../src/virtio/chain.ts';
import { createDeviceQueue, createDriverQueue } from '../../src/virtio/create.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_INDIRECT_DESC, RING_PACKED } from '../../src/virtio/features.ts';
import { DESCRIPTOR, RING_HEADER } from '../../src/virtio/layout.ts';
import type { DeviceQueue, DriverQueue, QueueConfig } from '../../src/virtio/queue.ts';
import { stateFromVringBase, stateToVringBase } from '../../src/virtio/vring-base.ts';
import { BUFFERS, configOf, DEVICE_AREA, DRIVER_AREA, testMemory } from './rings.ts';

const STEPS = 400;
const TOKEN_BYTES = 4;

/** A small generator of its own, so that one seed means the same run for ever. */
function randomOf(seed: number): (below: number) => number {
  let state = (seed ^ 0x9e3779b9) >>> 0;
  return below => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

interface HeldBuffer {
  readonly buffer: PoppedBuffer;
  readonly token: number;
}

class World {
  readonly memory = testMemory();
  readonly config: QueueConfig;
  readonly random: (below: number) => number;
  readonly inOrder: boolean;
  readonly indirect: boolean;
  driver: DriverQueue;
  device: DeviceQueue;

  readonly chain = new DescriptorChain();
  readonly segments = new SegmentList();
  readonly used = { token: 0, written: 0 };
  readonly bytes = new Uint8Array(TOKEN_BYTES);

  /** Lengths that the device gave, by token; what the driver did not get back yet. */
  readonly writtenOf = new Map<number, number>();
  readonly away = new Set<number>();
  readonly held: HeldBuffer[] = [];
  nextToken = 0;
  returned = 0;
  deviceAwake = true;
  driverAwake = true;

  constructor(config: QueueConfig, seed: number) {
    this.config = config;
    this.random = randomOf(seed);
    this.inOrder = (config.features & IN_ORDER) !== 0n;
    this.indirect = (config.features & RING_INDIRECT_DESC) !== 0n;
    this.driver = createDriverQueue(config);
    this.driver.initialize(this.memory);
    this.device = createDeviceQueue(config);
    if ((config.features & RING_PACKED) === 0n) this.startNearTheWrap();
  }

  /** Split indices wrap at 65536: begin a few buffers before that. */
  startNearTheWrap(): void {
    const start = 0xfff0;
    this.memory.setU16(DRIVER_AREA + RING_HEADER.offset.index, start);
    this.memory.setU16(DEVICE_AREA + RING_HEADER.offset.index, start);
    this.driver = createDriverQueue(this.config, {
      ...this.driver.save(),
      nextAvail: start,
      nextUsed: start,
    });
    this.device = createDeviceQueue(this.config, stateFromVringBase(this.memory, this.config, start));
  }

  /** A buffer whose first four bytes are its token, cut anywhere, then some room for the device to write. */
  add(): boolean {
    const token = this.nextToken;
    const slot = BUFFERS + (token % 256) * 0x100;
    new DataView(this.bytes.buffer).setUint32(0, token);
    this.memory.write(slot, this.bytes);
    const { segments } = this;
    segments.clear();
    const cut = this.random(2) === 0 ? TOKEN_BYTES : 1 + this.random(TOKEN_BYTES - 1);
    segments.addReadable(slot, cut);
    if (cut < TOKEN_BYTES && this.config.size > 1) segments.addReadable(slot + cut, TOKEN_BYTES - cut);
    else if (cut < TOKEN_BYTES) segments.clear().addReadable(slot, TOKEN_BYTES);
    for (let room = this.random(3); room > 0 && segments.count < this.config.size; room--) {
      segments.addWritable(slot + 0x10 * room, 1 + this.random(16));
    }
    const table = this.indirect && this.random(2) === 0 ? slot + 0x80 : undefined;
    if (!this.driver.addBuffer(this.memory, segments, token, table)) return false;
    this.away.add(token);
    this.nextToken++;
    return true;
  }

  publishAvail(): void {
    if (this.driver.publish(this.memory)) this.deviceAwake = true;
  }

  pop(): boolean {
    const { chain } = this;
    if (!this.device.pop(this.memory, chain)) return false;
    expect(chain.fault).toBeUndefined();
    expect(chain.read(this.memory, 0, this.bytes, 0, TOKEN_BYTES)).toBe(TOKEN_BYTES);
    const token = new DataView(this.bytes.buffer).getUint32(0);
    expect(this.away.has(token)).toBe(true);
    this.held.push({ buffer: chain.hold(), token });
    return true;
  }

  push(): void {
    const index = this.inOrder ? 0 : this.random(this.held.length);
    const [{ buffer, token }] = this.held.splice(index, 1);
    const written = this.random(2) === 0 ? buffer.writableBytes : this.random(buffer.writableBytes + 1);
    expect(this.writtenOf.has(token)).toBe(false);
    this.writtenOf.set(token, written);
    this.device.pushUsed(this.memory, buffer, written);
  }

  publishUsed(): void {
    if (this.device.publish(this.memory)) this.driverAwake = true;
  }

  take(): boolean {
    const { used } = this;
    if (!this.driver.popUsed(this.memory, used)) return false;
    expect(this.away.delete(used.token)).toBe(true);
    expect(used.written).toBe(this.writtenOf.get(used.token));
    this.returned++;
    return true;
  }

  deviceStep(): void {
    switch (this.random(5)) {
      case 0:
      case 1:
        this.pop();
        break;
      case 2:
        if (this.held.length > 0) this.push();
        break;
      case 3:
        this.publishUsed();
        if (this.held.length === 0 && this.random(8) === 0) this.restartDevice();
        break;
      default:
        // A device suppresses kicks while it works, and sleeps only when there was nothing more.
        if (this.random(2) === 0) this.device.suppressKicks(this.memory);
        else if (!this.device.requestKicks(this.memory)) {
          while (this.held.length > 0) this.push();
          this.publishUsed();
          this.deviceAwake = false;
        }
    }
  }

  driverStep(): void {
    switch (this.random(6)) {
      case 0:
      case 1:
        this.add();
        break;
      case 2:
        this.publishAvail();
        if (this.random(8) === 0) this.restartDriver();
        break;
      case 3:
        this.take();
        break;
      default:
        if (this.random(2) === 0) this.driver.suppressInterrupts(this.memory);
        else {
          this.publishAvail();
          const sleeps = !this.driver.requestInterrupts(this.memory, this.random(3));
          if (sleeps && this.away.size > 0) this.driverAwake = false;
        }
    }
  }

  restartDevice(): void {
    const { features } = this.config;
    const base = stateToVringBase(features, this.device.save());
    this.device = createDeviceQueue(this.config, stateFromVringBase(this.memory, this.config, base));
  }

  restartDriver(): void {
    while (this.take());
    this.driver = createDriverQueue(this.config, this.driver.save());
  }

  /** Runs only who was woken, until all buffers are home: where a notification got lost, that never happens. */
  drain(): void {
    this.publishAvail();
    for (let round = 0; this.away.size > 0; round++) {
      expect(this.deviceAwake || this.driverAwake, 'everybody sleeps, and buffers are away').toBe(true);
      expect(round).toBeLessThan(10_000);
      if (this.deviceAwake) {
        do {
          while (this.pop());
          while (this.held.length > 0) this.push();
          this.publishUsed();
        } while (this.device.requestKicks(this.memory));
        this.deviceAwake = false;
      }
      if (this.driverAwake) {
        do while (this.take());
        while (this.driver.requestInterrupts(this.memory));
        this.driverAwake = false;
      }
    }
  }

  run(): void {
    for (let step = 0; step < STEPS; step++) {
      if (this.driverAwake && (!this.deviceAwake || this.random(2) === 0)) this.driverStep();
      else if (this.deviceAwake) this.deviceStep();
      else throw new Error('everybody sleeps');
    }
    this.drain();
    expect(this.returned).toBe(this.nextToken);
    expect(this.driver.freeCount).toBe(this.config.size);
    expect(this.driver.outstandingCount).toBe(0);
    expect(this.held).toEqual([]);
  }
}

const KINDS = [
  { name: 'split', features: 0n, sizes: [1, 2, 8, 64] },
  { name: 'packed', features: RING_PACKED, sizes: [1, 2, 3, 7, 64] },
];
const OPTIONS = [
  { name: 'event indices', feature: RING_EVENT_IDX },
  { name: 'indirect tables', feature: RING_INDIRECT_DESC },
  { name: 'in-order use', feature: IN_ORDER },
];

describe('driver and device sides against each other', () => {
  for (const kind of KINDS) {
    for (let set = 0; set < 2 ** OPTIONS.length; set++) {
      const chosen = OPTIONS.filter((_, index) => (set & (1 << index)) !== 0);
      const name = [kind.name, ...chosen.map(option => option.name)].join(', ');
      const features = chosen.reduce((bits, { feature }) => bits | feature, kind.features);
      it(`return every buffer once and lose no notification: ${name}`, () => {
        fc.assert(
          fc.property(fc.nat(), fc.constantFrom(...kind.sizes), (seed, size) => {
            new World(configOf(size, features), seed).run();
          }),
          { numRuns: 40 },
        );
      });
    }
  }

  it('indirect tables of the model fit their buffers', () => {
    expect(4 * DESCRIPTOR.size).toBeLessThanOrEqual(0x80);
  });
});
