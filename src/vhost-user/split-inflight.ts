/**
 * Notes which buffers of a split queue are in flight, in a region that outlives the back-end, and finds the place of a queue
 * whose back-end went. Our devices return buffers in the order in which they came: those in flight are the next ones of the
 * available ring, and are taken from there again. The front-end can write into the region at any time: what is read of it is
 * read when the queue begins.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { writeU64 } from '../sys/struct.ts';
import type { DescriptorChain, PoppedBuffer } from '../virtio/chain.ts';
import { ForwardingQueue } from '../virtio/forwarding-queue.ts';
import { AVAIL_ELEMENT, RING_HEADER } from '../virtio/layout.ts';
import { type DeviceQueue, type QueueConfig, type QueueState, VirtqueueError } from '../virtio/queue.ts';
import { usedIndexOf } from '../virtio/vring-base.ts';
import { INFLIGHT_VERSION, SPLIT_ENTRY, SPLIT_REGION } from './inflight-layout.ts';

const { lastBatchHead: LAST_BATCH_HEAD, usedIndex: USED_INDEX } = SPLIT_REGION.offset;
const { inflight: INFLIGHT, next: NEXT, counter: COUNTER } = SPLIT_ENTRY.offset;

const entryAt = (head: number): number => SPLIT_REGION.size + head * SPLIT_ENTRY.size;

/**
 * Where the queue goes on: behind the last buffer that it returned.
 * @throws VirtqueueError when the region is another queue's, or buffers in flight are not the next ones of the ring
 */
export function recoverSplit(region: DataView, config: QueueConfig, memory: GuestMemory): QueueState {
  const { size } = config;
  const { usedIndex, lastBatchHead } = SPLIT_REGION.read(region);
  const used = usedIndexOf(memory, config);
  const heads = new Set(inFlight(region, size));
  // The last batch was returned, and not all of it was noted.
  const batch = Math.min((used - usedIndex) & 0xffff, size);
  for (let at = 0, head = lastBatchHead; at < batch && head < size; at++) {
    heads.delete(head);
    head = SPLIT_ENTRY.read(region, entryAt(head)).next;
  }
  const ring = config.driverArea + RING_HEADER.size;
  [...heads].forEach((head, at) => {
    const next = memory.u16(ring + ((used + at) % size) * AVAIL_ELEMENT.size);
    if (next === head) return;
    throw new VirtqueueError(
      `buffer ${head} is in flight, and the next one of the ring is ${next}: its back-end returned buffers in another order`,
    );
  });
  return { nextAvail: used, nextUsed: used };
}

/** Heads of buffers that count as in flight, in the order in which they were taken. */
function inFlight(region: DataView, entries: number): number[] {
  const counters = new Map<number, number>();
  for (let head = 0; head < entries; head++) {
    const { inflight, counter } = SPLIT_ENTRY.read(region, entryAt(head));
    if (inflight !== 0) counters.set(head, counter);
  }
  return [...counters].sort(([, a], [, b]) => a - b).map(([head]) => head);
}

/** A queue of which it is noted what is in flight. */
export class SplitInflightQueue extends ForwardingQueue {
  readonly #region: DataView;
  /** Heads that were pushed and not published. */
  readonly #batch: Uint16Array;
  #pushed = 0;
  /** Buffers that they are, with those that have no head in the table. */
  #returned = 0;
  #lastHead = 0;
  #usedIndex: number;
  #counter = 0;

  /** Begins the region anew: the queue has nothing in flight. */
  constructor(queue: DeviceQueue, region: DataView, entries: number) {
    super(queue);
    this.#region = region;
    this.#batch = new Uint16Array(queue.size);
    this.#usedIndex = queue.save().nextUsed;
    // The last first: those that are left are always the next ones of the ring.
    for (const head of inFlight(region, entries).reverse()) region.setUint8(entryAt(head) + INFLIGHT, 0);
    const { version } = SPLIT_REGION.read(region);
    const usedIndex = this.#usedIndex;
    SPLIT_REGION.write(region, 0, { features: 0n, version, entries, lastBatchHead: 0, usedIndex });
    // Last: without it nothing of the region counts.
    region.setUint16(SPLIT_REGION.offset.version, INFLIGHT_VERSION, true);
  }

  override pop(memory: GuestMemory, chain: DescriptorChain): boolean {
    if (!super.pop(memory, chain)) return false;
    // One without a head in the table is nonsense, and is returned as such once more.
    if (chain.id < this.size) {
      writeU64(this.#region, entryAt(chain.id) + COUNTER, this.#counter++);
      this.#region.setUint8(entryAt(chain.id) + INFLIGHT, 1);
    }
    return true;
  }

  override undoPop(buffer: PoppedBuffer): void {
    super.undoPop(buffer);
    if (buffer.id < this.size) this.#region.setUint8(entryAt(buffer.id) + INFLIGHT, 0);
  }

  override pushUsed(memory: GuestMemory, buffer: PoppedBuffer, written: number): void {
    super.pushUsed(memory, buffer, written);
    this.#returned++;
    const { id } = buffer;
    if (id >= this.size || this.#pushed === this.#batch.length) return;
    this.#region.setUint16(entryAt(id) + NEXT, this.#lastHead, true);
    this.#region.setUint16(LAST_BATCH_HEAD, id, true);
    this.#lastHead = id;
    this.#batch[this.#pushed++] = id;
  }

  override publish(memory: GuestMemory): boolean {
    const wanted = super.publish(memory);
    for (let at = 0; at < this.#pushed; at++) this.#region.setUint8(entryAt(this.#batch[at]) + INFLIGHT, 0);
    this.#usedIndex = (this.#usedIndex + this.#returned) & 0xffff;
    this.#region.setUint16(USED_INDEX, this.#usedIndex, true);
    this.#pushed = 0;
    this.#returned = 0;
    return wanted;
  }
}
