/**
 * One virtqueue while it runs: the ring, the memory that it lies in, and the two reusable objects into which
 * its buffers are taken. What the buffers mean is the business of whoever serves the queue.
 */
import type { QueueRole } from '../balloon/features.ts';
import type { PageList } from '../balloon/page-list.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { DescriptorChain } from '../virtio/chain.ts';
import type { Doorbell } from '../virtio/device.ts';
import type { DeviceQueue } from '../virtio/queue.ts';
import { ListWalk } from './list-walk.ts';

export class RunningQueue {
  readonly index: number;
  readonly role: QueueRole;
  readonly queue: DeviceQueue;
  readonly memory: GuestMemory;
  readonly doorbell: Doorbell;
  readonly chain = new DescriptorChain();
  /** The ring stands still: nothing of it is read or written. */
  suspended = false;
  /** Its last batch is not published yet, since discards have to end before the driver may hear of it. */
  kept = false;
  /** Buffers of that batch. */
  keptBuffers = 0;
  /** When it was begun, on the clock of the process. */
  keptSinceMs = 0;
  /** The list of the buffer in {@link chain}, and how far it is taken. */
  readonly walk = new ListWalk();

  constructor(index: number, role: QueueRole, queue: DeviceQueue, memory: GuestMemory, doorbell: Doorbell) {
    this.index = index;
    this.role = role;
    this.queue = queue;
    this.memory = memory;
    this.doorbell = doorbell;
  }

  /**
   * Copies the chain's readable bytes and notes its writable segments: from here on the guest cannot change
   * what is decoded. Not while another list is on its way.
   * @throws PageListError `too-long`
   */
  readList(): PageList {
    const { chain } = this;
    const { list } = this.walk;
    list.clear();
    const { readableBytes } = chain;
    if (readableBytes > 0) {
      list.reserve(readableBytes);
      list.length = readableBytes;
      // Nearly every list is one segment of whole words.
      const inWords =
        chain.readableCount === 1 &&
        readableBytes % 4 === 0 &&
        this.memory.readWords(chain.address(0), list.u32, readableBytes / 4);
      if (!inWords) chain.read(this.memory, 0, list.bytes, 0, readableBytes);
    }
    for (let index = chain.readableCount; index < chain.count; index++) {
      list.addExtent(chain.address(index), chain.length(index));
    }
    return list;
  }
}
