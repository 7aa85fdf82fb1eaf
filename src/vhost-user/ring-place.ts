/**
 * Where a ring stopped, and whether one that starts is the same ring going on. A front-end whose guest was paused
 * and one whose guest runs another driver now may send the very same messages (SET_VRING_ENABLE 0, the same
 * features, SET_VRING_ENABLE 1); only the place tells them apart. What follows from the answer is not decided here.
 */

import type { GuestMemory } from '../memory/guest-memory.ts';
import { hasFeature, RING_PACKED } from '../virtio/features.ts';
import type { DeviceQueue, QueueConfig } from '../virtio/queue.ts';
import type { RingLog } from '../virtio/ring-log.ts';
import { stateToVringBase, usedIndexOf } from '../virtio/vring-base.ts';

export class RingPlace {
  readonly config: QueueConfig;
  /** The base from which another queue takes up what the device has not taken yet. */
  readonly base: number;
  /** The base from which another queue takes up what the device has not returned yet, too. */
  readonly unreturnedBase: number;

  constructor(config: QueueConfig, base: number, unreturnedBase: number) {
    this.config = config;
    this.base = base;
    this.unreturnedBase = unreturnedBase;
  }

  /** Where `queue`, which lies at `config`, is now. */
  static of(config: QueueConfig, queue: DeviceQueue): RingPlace {
    const { nextAvail, nextUsed } = queue.save();
    return new RingPlace(
      config,
      stateToVringBase(config.features, { nextAvail, nextUsed }),
      stateToVringBase(config.features, { nextAvail: nextUsed, nextUsed }),
    );
  }

  /**
   * Where a queue at `config` was when its process ended: behind the last buffer that it returned. A split ring says it, and of
   * a packed one its `log`.
   * @throws VirtqueueError, MemoryAccessError
   */
  static unreturned(config: QueueConfig, memory: GuestMemory, log?: RingLog): RingPlace {
    const packed = hasFeature(config.features, RING_PACKED);
    const used = packed && log !== undefined ? log.recover(config, memory) : usedIndexOf(memory, config);
    const base = stateToVringBase(config.features, { nextAvail: used, nextUsed: used });
    return new RingPlace(config, base, base);
  }

  /**
   * Whether a ring that starts at `base` is this one. A front-end that was not told the base reads it from the used
   * ring, where a buffer that the device keeps does not count.
   */
  hasBase(base: number): boolean {
    return base === this.base || base === this.unreturnedBase;
  }

  /**
   * Whether a ring that starts at `base` leaves with the device the buffers that it keeps. Of the other base that is right,
   * they are taken again: by the same guest's ring, or by a new one, whose buffers just there are others.
   */
  keepsBuffersAt(base: number): boolean {
    return base === this.base;
  }

  /** Whether a ring at `config`, which a queue would take up at `base`, is this one. */
  isAt(config: QueueConfig, base: number): boolean {
    const { size, descriptorArea, driverArea, deviceArea } = this.config;
    return (
      this.hasBase(base) &&
      config.size === size &&
      config.descriptorArea === descriptorArea &&
      config.driverArea === driverArea &&
      config.deviceArea === deviceArea
    );
  }
}
