/** One queue of a device rig: a {@link HandQueue} with a role, whose buffers lie in the rig's room for lists. */
import type { QueueRole } from '../../src/balloon/features.ts';
import type { BalloonDevice } from '../../src/device/balloon-device.ts';
import type { GuestMemory } from '../../src/memory/guest-memory.ts';
import { type GuestBuffer, HandQueue, type Returned } from '../../src/testing/hand-queue.ts';
import type { QueueConfig } from '../../src/virtio/queue.ts';

/** What a queue needs of the rig that it is on. */
export interface QueueWorld {
  readonly device: BalloonDevice;
  readonly memory: GuestMemory;
  /** Hears which rings broke. */
  readonly host: { readonly brokenRings: { index: number; error: Error }[] };
  /** Puts bytes somewhere in guest memory; returns where. */
  place(bytes: Uint8Array): number;
  /** The room for lists is free again. */
  forgetLists(): void;
}

export class RigQueue extends HandQueue {
  readonly role: QueueRole;
  readonly #rig: QueueWorld;

  constructor(rig: QueueWorld, index: number, role: QueueRole, config: QueueConfig) {
    super({
      device: rig.device,
      memory: rig.memory,
      index,
      config,
      place: bytes => rig.place(bytes),
      broken: error => rig.host.brokenRings.push({ index, error }),
    });
    this.#rig = rig;
    this.role = role;
  }

  override exchange(buffer: GuestBuffer): Returned[] {
    this.#rig.forgetLists();
    return super.exchange(buffer);
  }
}
