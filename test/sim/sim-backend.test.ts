/** The device behind its session, when a new driver's rings lie just where the last one's did and start as those had. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { SimBackend } from '../../src/sim/sim-backend.ts';
import { SegmentList } from '../../src/virtio/chain.ts';
import { createDriverQueue } from '../../src/virtio/create.ts';
import { RING_PACKED } from '../../src/virtio/features.ts';
import type { DriverQueue } from '../../src/virtio/queue.ts';
import { type DeviceRig, openRig, FIRST_PAGE as P, pfns, type RigOptions } from '../support/device-rig.ts';
import { HUGE_PAGE_SIZE } from '../support/huge-pages.ts';

const FRESH_PACKED = 0x8000_8000;
const H = HUGE_PAGE_SIZE / PAGE_SIZE;

class Bench {
  readonly rig: DeviceRig;
  readonly backend: SimBackend;
  readonly complaints: string[] = [];
  drivers: DriverQueue[] = [];
  readonly #base: number;
  readonly #segments = new SegmentList();

  constructor(options: RigOptions) {
    this.rig = openRig(options);
    this.#base = options.ringFeatures === RING_PACKED ? FRESH_PACKED : 0;
    const { device, memory, features } = this.rig;
    this.backend = SimBackend.begin(device, memory, {
      offered: features,
      interrupted: () => {},
      kicked: () => {},
      complain: what => this.complaints.push(what),
      settle: () => {},
    });
    onTestFinished(() => this.backend.close());
    this.startDriver();
  }

  /** A driver that is loaded, with its rings where all drivers have theirs. */
  startDriver(): void {
    const { memory, features, queues } = this.rig;
    this.backend.setFeatures(features);
    this.drivers = queues.map(({ config }) => createDriverQueue(config));
    for (const { index, config } of queues) {
      this.drivers[index].initialize(memory);
      this.backend.startRing(index, config, this.#base);
    }
  }

  disableAll(): void {
    for (const { index } of this.rig.queues) this.backend.enable(index, false);
  }

  enableAll(): void {
    for (const { index } of this.rig.queues) this.backend.enable(index, true);
  }

  /** Makes a buffer available; nothing serves it yet. */
  offer(index: number, address: number, length: number, writable = false): void {
    const segments = this.#segments.clear();
    if (writable) segments.addWritable(address, length);
    else segments.addReadable(address, length);
    expect(this.drivers[index].addBuffer(this.rig.memory, segments, 0)).toBe(true);
    this.drivers[index].publish(this.rig.memory);
  }

  serve(index: number, work?: number): void {
    this.rig.device.serveQueue(index, work);
  }

  returned(index: number): number {
    const used = { token: 0, written: 0 };
    let count = 0;
    while (this.drivers[index].popUsed(this.rig.memory, used)) count++;
    return count;
  }
}

describe.each([
  ['split rings', 0n],
  ['packed rings', RING_PACKED],
])('on %s', (_, ringFeatures) => {
  test('a request is written into no buffer of a driver that is gone', () => {
    const bench = new Bench({ profile: 'page-chunks', ringFeatures });
    const { rig } = bench;
    const { index } = rig.queue('request');
    bench.offer(index, P * PAGE_SIZE, PAGE_SIZE, true);
    bench.serve(index);
    bench.disableAll();
    // The next kernel has something else there.
    rig.touch(P, 1, 0x42);
    bench.startDriver();
    rig.device.requests.send(1);
    expect(rig.contentOf(P)).toBe(0x42);
    bench.offer(index, (P + 1) * PAGE_SIZE, PAGE_SIZE, true);
    bench.serve(index);
    rig.device.requests.send(1);
    expect(bench.returned(index)).toBe(1);
    expect(rig.contentOf(P)).toBe(0x42);
    expect([...bench.complaints, ...rig.host.brokenRings]).toEqual([]);
  });

  describe('a list that is taken in part when the rings are disabled', () => {
    /** The first buffer of a driver names nearly a huge page, and some of that is in the account. */
    const begun = () => {
      const bench = new Bench({ ringFeatures, discardUnit: HUGE_PAGE_SIZE, memoryBytes: 8 * HUGE_PAGE_SIZE });
      const { rig } = bench;
      const scattered = Array.from({ length: H - 12 }, (_, at) => P + ((at * 7) % (H - 12)));
      const list = rig.place(pfns(...scattered));
      bench.offer(0, list, (H - 12) * 4);
      bench.serve(0, 4000);
      expect(rig.balloonedPages).toBeGreaterThan(0);
      expect(rig.balloonedPages).toBeLessThan(H - 12);
      bench.disableAll();
      return bench;
    };

    test('is nothing that the next driver has given', () => {
      const bench = begun();
      const { rig } = bench;
      bench.startDriver();
      expect(rig.balloonedPages).toBe(0);
      bench.serve(0);
      expect(bench.returned(0)).toBe(0);
      expect([...bench.complaints, ...rig.host.brokenRings, ...rig.host.badInputs]).toEqual([]);
    });

    test('is taken whole when its guest goes on', () => {
      const bench = begun();
      bench.enableAll();
      bench.serve(0);
      expect(bench.rig.balloonedPages).toBe(H - 12);
      expect(bench.returned(0)).toBe(1);
    });
  });
});
