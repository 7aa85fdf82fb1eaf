/**
 * The same as `split-inflight.ts` for packed queues, which do not say themselves where they stand. The region has copies of
 * the descriptors in flight: a used descriptor is written over an available one, and what that destroys is put right from
 * there when the back-end went in between.
 *
 * Each used descriptor is a batch of its own to the region: the driver may look at each as soon as its flags are written.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { readU64 } from '../sys/struct.ts';
import type { DescriptorChain, PoppedBuffer } from '../virtio/chain.ts';
import { ForwardingQueue } from '../virtio/forwarding-queue.ts';
import { PACKED_DESCRIPTOR } from '../virtio/layout.ts';
import { advance, descriptorAt, isAvailable } from '../virtio/packed-ring.ts';
import {
  type DeviceQueue,
  type QueueConfig,
  type QueueState,
  VirtqueueError,
  WRAP,
} from '../virtio/queue.ts';
import type { UsedLog } from '../virtio/ring-log.ts';
import { INFLIGHT_VERSION, PACKED_ENTRY, PACKED_REGION } from './inflight-layout.ts';

const { length: LENGTH, id: ID, flags: FLAGS } = PACKED_DESCRIPTOR.offset;
const REGION = PACKED_REGION.offset;
const ENTRY = PACKED_ENTRY.offset;

const entryAt = (index: number): number => PACKED_REGION.size + index * PACKED_ENTRY.size;
const positionOf = (index: number, wrap: number): number => index + (wrap === 0 ? 0 : WRAP);

/**
 * Where the queue goes on: behind the last buffer that it returned. A descriptor that is half written is as it was.
 * @throws VirtqueueError when the region is another queue's, or buffers in flight are not the next ones of the ring;
 *   MemoryAccessError
 */
export function recoverPacked(
  region: DataView,
  { size, descriptorArea }: QueueConfig,
  memory: GuestMemory,
): QueueState {
  const said = PACKED_REGION.read(region);
  if (said.usedIndex >= size || said.oldUsedIndex >= size || said.usedWrap > 1 || said.oldUsedWrap > 1) {
    throw new VirtqueueError(
      `its region says positions ${said.usedIndex} and ${said.oldUsedIndex} of ${size} entries`,
    );
  }
  const old = positionOf(said.oldUsedIndex, said.oldUsedWrap);
  let position = positionOf(said.usedIndex, said.usedWrap);
  const flagsAt = (at: number): number => memory.atomicLoadU16(descriptorAt(descriptorArea, at) + FLAGS);
  // Whether the descriptor between the two was written whole, its flags say.
  const written = position !== old && !isAvailable(flagsAt(old), old);
  if (!written) position = old;
  let at = position;
  let first = true;
  const free = freeEntries(region, said.entries, written ? said.freeHead : said.oldFreeHead);
  for (const head of inFlight(region, said.entries, free)) {
    const entry = PACKED_ENTRY.read(region, entryAt(head));
    const descriptor = descriptorAt(descriptorArea, at);
    if (!isAvailable(flagsAt(at), at)) {
      throw new VirtqueueError(
        `a buffer is in flight that is not the next one of the ring: its back-end returned buffers in another order`,
      );
    }
    if (first) {
      memory.setU32(descriptor + LENGTH, entry.length);
      memory.setU16(descriptor + ID, entry.id);
    }
    first = false;
    at = advance(at, Math.min(Math.max(entry.count, 1), size), size);
  }
  return { nextAvail: position, nextUsed: position };
}

function freeEntries(region: DataView, entries: number, freeHead: number): ReadonlySet<number> {
  const free = new Set<number>();
  for (let index = freeHead; index < entries && !free.has(index); ) {
    free.add(index);
    index = region.getUint16(entryAt(index) + ENTRY.next, true);
  }
  return free;
}

/** Heads of buffers that count as in flight and are not `free`, in the order in which they were taken. */
function inFlight(region: DataView, entries: number, free: ReadonlySet<number> = new Set()): number[] {
  const heads: number[] = [];
  for (let index = 0; index < entries; index++) {
    if (region.getUint8(entryAt(index) + ENTRY.inflight) !== 0 && !free.has(index)) heads.push(index);
  }
  const counterOf = (head: number): number => readU64(region, entryAt(head) + ENTRY.counter);
  return heads.sort((a, b) => counterOf(a) - counterOf(b));
}

/** What is noted of one queue; its own copy of the free list counts, for the region can be written by others. */
export class PackedInflight implements UsedLog {
  readonly #region: DataView;
  readonly #entries: number;
  readonly #size: number;
  readonly #ring: number;
  /** Each free entry's next one. */
  readonly #next: Uint16Array;
  /** The last entry of each head's buffer, and its descriptors. */
  readonly #last: Uint16Array;
  readonly #count: Uint16Array;
  /** The head of the buffer whose list begins at an offset of the ring. */
  readonly #headAt: Uint16Array;
  /** Heads of buffers that were pushed, in that order: those up to {@link #moved} are in the free list. */
  readonly #pushed: Uint16Array;
  #pushedCount = 0;
  #moved = 0;
  /** Those that the driver has not seen when another used descriptor is written. */
  #seen = 0;
  #freeHead = 0;
  #used = 0;
  #counter = 0;

  constructor(region: DataView, { size, descriptorArea }: QueueConfig, entries: number) {
    this.#region = region;
    this.#entries = entries;
    this.#size = size;
    this.#ring = descriptorArea;
    this.#next = new Uint16Array(entries);
    this.#last = new Uint16Array(entries);
    this.#count = new Uint16Array(entries);
    this.#headAt = new Uint16Array(size);
    this.#pushed = new Uint16Array(size);
  }

  /** The queue begins at `position`, and has nothing in flight. */
  begin(position: number): void {
    const region = this.#region;
    // The last first: those that are left are always the next ones of the ring.
    for (const head of inFlight(region, this.#entries).reverse())
      region.setUint8(entryAt(head) + ENTRY.inflight, 0);
    for (let index = 0; index < this.#entries; index++) {
      this.#next[index] = index + 1;
      PACKED_ENTRY.write(this.#region, entryAt(index), { ...NO_ENTRY, next: index + 1 });
    }
    this.#used = position;
    const index = position % WRAP;
    const wrap = position < WRAP ? 0 : 1;
    const { version } = PACKED_REGION.read(this.#region);
    PACKED_REGION.write(this.#region, 0, {
      features: 0n,
      version,
      entries: this.#entries,
      freeHead: 0,
      oldFreeHead: 0,
      usedIndex: index,
      oldUsedIndex: index,
      usedWrap: wrap,
      oldUsedWrap: wrap,
    });
    // Last: without it nothing of the region counts.
    this.#region.setUint16(REGION.version, INFLIGHT_VERSION, true);
  }

  /** A buffer was taken. */
  taken({ position, descriptorCount }: PoppedBuffer, memory: GuestMemory): void {
    const region = this.#region;
    const head = this.#freeHead;
    let entry = head;
    for (let at = 0; at < descriptorCount; at++) {
      entry = at === 0 ? head : this.#next[entry];
      const descriptor = descriptorAt(this.#ring, advance(position, at, this.#size));
      const to = entryAt(entry);
      region.setUint32(to + ENTRY.length, memory.u32(descriptor + LENGTH), true);
      region.setUint16(to + ENTRY.id, memory.u16(descriptor + ID), true);
      region.setUint16(to + ENTRY.flags, memory.u16(descriptor + FLAGS), true);
      const address = memory.u64(descriptor);
      region.setUint32(to + ENTRY.address, address % 2 ** 32, true);
      region.setUint32(to + ENTRY.address + 4, Math.floor(address / 2 ** 32), true);
    }
    this.#last[head] = entry;
    this.#count[head] = descriptorCount;
    this.#headAt[position % WRAP] = head;
    const to = entryAt(head);
    region.setUint16(to + ENTRY.last, entry, true);
    region.setUint16(to + ENTRY.count, descriptorCount, true);
    region.setUint32(to + ENTRY.counter, this.#counter++ % 2 ** 32, true);
    region.setUint8(to + ENTRY.inflight, 1);
    this.#freeHead = this.#next[entry];
    region.setUint16(REGION.freeHead, this.#freeHead, true);
    region.setUint16(REGION.oldFreeHead, this.#freeHead, true);
  }

  /** The buffer that was taken last is available again. */
  undone({ position }: PoppedBuffer): void {
    this.#free(this.#headAt[position % WRAP]);
    this.#region.setUint16(REGION.oldFreeHead, this.#freeHead, true);
  }

  pushed({ position }: PoppedBuffer): void {
    this.#pushed[this.#pushedCount++] = this.#headAt[position % WRAP];
  }

  /** The used descriptor at `position` is about to be written; those before it were. */
  writing(_memory: GuestMemory, _ring: number, position: number, next: number): void {
    this.#saw(position);
    for (let at = position; at !== next && this.#moved < this.#pushedCount; ) {
      const head = this.#pushed[this.#moved++];
      at = advance(at, this.#count[head], this.#size);
      this.#free(head, false);
    }
    this.#region.setUint16(REGION.freeHead, this.#freeHead, true);
    this.#region.setUint16(REGION.usedIndex, next % WRAP, true);
    this.#region.setUint8(REGION.usedWrap, next < WRAP ? 0 : 1);
    this.#used = next;
  }

  /** All that was pushed was written. */
  published(): void {
    this.#saw(this.#used);
    this.#pushedCount = 0;
    this.#moved = 0;
    this.#seen = 0;
  }

  /** The driver sees all used descriptors before `position`. */
  #saw(position: number): void {
    const region = this.#region;
    for (; this.#seen < this.#moved; this.#seen++) {
      region.setUint8(entryAt(this.#pushed[this.#seen]) + ENTRY.inflight, 0);
    }
    region.setUint16(REGION.oldFreeHead, this.#freeHead, true);
    region.setUint16(REGION.oldUsedIndex, position % WRAP, true);
    region.setUint8(REGION.oldUsedWrap, position < WRAP ? 0 : 1);
  }

  #free(head: number, shown = true): void {
    const region = this.#region;
    const last = this.#last[head];
    this.#next[last] = this.#freeHead;
    region.setUint16(entryAt(last) + ENTRY.next, this.#freeHead, true);
    this.#freeHead = head;
    if (!shown) return;
    region.setUint8(entryAt(head) + ENTRY.inflight, 0);
    region.setUint16(REGION.freeHead, head, true);
  }
}

const NO_ENTRY = { inflight: 0, last: 0, count: 0, counter: 0, id: 0, flags: 0, length: 0, address: 0 };

/**
 * Each of the two says at any moment where the queue stands, and both the same: they hear of a used descriptor before it is
 * written, and whether it was, its flags say.
 */
export function heardByBoth(log: UsedLog | undefined, noted: UsedLog): UsedLog {
  if (log === undefined) return noted;
  return {
    begin(position) {
      log.begin(position);
      noted.begin(position);
    },
    writing(...written) {
      log.writing(...written);
      noted.writing(...written);
    },
  };
}

/** A queue of which it is noted what is in flight; it was made with `noted` as its log. */
export class PackedInflightQueue extends ForwardingQueue {
  readonly #noted: PackedInflight;

  constructor(queue: DeviceQueue, noted: PackedInflight) {
    super(queue);
    this.#noted = noted;
  }

  override pop(memory: GuestMemory, chain: DescriptorChain): boolean {
    if (!super.pop(memory, chain)) return false;
    this.#noted.taken(chain, memory);
    return true;
  }

  override undoPop(buffer: PoppedBuffer): void {
    super.undoPop(buffer);
    this.#noted.undone(buffer);
  }

  override pushUsed(memory: GuestMemory, buffer: PoppedBuffer, written: number): void {
    super.pushUsed(memory, buffer, written);
    this.#noted.pushed(buffer);
  }

  override publish(memory: GuestMemory): boolean {
    const wanted = super.publish(memory);
    this.#noted.published();
    return wanted;
  }
}
