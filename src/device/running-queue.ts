/**
 * One virtqueue while it runs: the ring, the memory that it lies in, and the two reusable objects into which
 * its buffers are taken. What the buffers mean is the part's.
 */
import type { QueueRole } from '../balloon/features.ts';
import type { PageList } from '../balloon/page-list.ts';
import { type GuestMemory, MemoryAccessError } from '../memory/guest-memory.ts';
import { SystemError } from '../sys/error.ts';
import { DescriptorChain, type PoppedBuffer } from '../virtio/chain.ts';
import type { Doorbell } from '../virtio/device.ts';
import { type DeviceQueue, VirtqueueError } from '../virtio/queue.ts';
import type { DeviceCounters } from './counters.ts';
import { ListWalk } from './list-walk.ts';

/** What the back-end started. */
interface StartedRing {
  readonly index: number;
  readonly role: QueueRole;
  readonly queue: DeviceQueue;
  readonly memory: GuestMemory;
  readonly doorbell: Doorbell;
}

export class RunningQueue {
  readonly index: number;
  readonly role: QueueRole;
  readonly queue: DeviceQueue;
  readonly memory: GuestMemory;
  readonly chain = new DescriptorChain();
  /** The list of the buffer in {@link chain}, and how far it is taken. */
  readonly walk = new ListWalk();
  /** The ring stands still: nothing of it is read or written. */
  suspended = false;
  /** Its last batch is not published yet, since discards have to end before the driver may hear of it. */
  kept = false;
  /** Buffers of the last batch. */
  batchBuffers = 0;
  /** When it was begun, where its part wants to know. */
  batchSinceMs = 0;
  readonly #doorbell: Doorbell;
  readonly #counters: DeviceCounters;

  constructor({ index, role, queue, memory, doorbell }: StartedRing, counters: DeviceCounters) {
    this.index = index;
    this.role = role;
    this.queue = queue;
    this.memory = memory;
    this.#doorbell = doorbell;
    this.#counters = counters;
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

  /** Puts a buffer back, `written` bytes of it written; {@link publish} shows it to the driver. */
  giveBack(buffer: PoppedBuffer, written: number): void {
    this.queue.pushUsed(this.memory, buffer, written);
  }

  /** Shows the driver what was given back, and interrupts it if it wants that. */
  publish(): void {
    if (!this.queue.publish(this.memory)) return;
    this.#counters.notifications++;
    this.#doorbell.interrupt();
  }

  /** Does `act` unless the ring stands still. What of it proves the ring broken breaks it, and goes no further. */
  attempt(act: () => void): void {
    if (this.suspended) return;
    try {
      act();
    } catch (error) {
      this.break(error);
    }
  }

  /**
   * A ring that goes on elsewhere is saved as "all taken is returned", so buffers that were kept go back before it stops.
   * False when the ring is no longer in guest memory, and nothing can go back.
   */
  returns(...buffers: readonly PoppedBuffer[]): boolean {
    try {
      for (const buffer of buffers) this.giveBack(buffer, 0);
      if (buffers.length > 0) this.publish();
      return true;
    } catch (error) {
      if (!isRingFault(error)) throw error;
      return false;
    }
  }

  /** Has the ring stopped because of `error`. Throws an error that is no ring's fault again. */
  break(error: unknown): void {
    if (!isRingFault(error)) throw error;
    this.#counters.brokenRings++;
    this.#doorbell.fail(error);
  }
}

/** Whether a ring or its memory is to blame: its indices are nonsense, or it lies in no memory that can be mapped. */
const isRingFault = (error: unknown): error is Error =>
  error instanceof VirtqueueError || error instanceof MemoryAccessError || error instanceof SystemError;
