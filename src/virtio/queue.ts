/**
 * What split and packed queues have in common: how one is configured and checked, the state that outlives it, and
 * the interface of each side. Everything works on a guest memory that is an argument of every call and never kept.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { AerostatError } from '../sys/error.ts';
import { BUFFER_BYTES_MAX, type DescriptorChain, type PoppedBuffer, type SegmentList } from './chain.ts';
import { hasFeature, IN_ORDER, RING_EVENT_IDX, RING_INDIRECT_DESC, RING_PACKED } from './features.ts';
import { layoutOf } from './layout.ts';

/** A ring whose indices are nonsense, or a configuration or state that can be no ring. The queue is to be stopped. */
export class VirtqueueError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_VIRTQUEUE', `virtqueue refused: ${message}`);
  }
}

/** A call that breaks the rules of the interface: the caller's mistake, never the other side's. */
export class VirtqueueUsageError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_VIRTQUEUE_USAGE', `virtqueue used wrongly: ${message}`);
  }
}

/** Where a queue lies and what was negotiated for it. Addresses are guest physical. */
export interface QueueConfig {
  /** Entries: for split queues a power of two. */
  readonly size: number;
  /** Descriptor table (split) or descriptor ring (packed). */
  readonly descriptorArea: number;
  /** Available ring (split) or driver event suppression (packed). */
  readonly driverArea: number;
  /** Used ring (split) or device event suppression (packed). */
  readonly deviceArea: number;
  /** The negotiated features; RING_PACKED says which kind of queue it is. */
  readonly features: bigint;
}

/** The largest size of both kinds: indices (split) must tell full from empty, offsets (packed) have 15 bits. */
export const QUEUE_SIZE_MAX = 2 ** 15;

/**
 * What a side must know to go on where another left off. Split: free-running 16-bit indices. Packed: bits 0-14 an
 * offset in the ring, bit 15 the wrap counter there; both as vhost-user and the specification write them.
 */
export interface QueueState {
  /** The next available buffer: to be taken by the device, to be added by the driver. */
  readonly nextAvail: number;
  /** The next used entry: to be written by the device, to be taken by the driver. */
  readonly nextUsed: number;
}

/** The wrap counter in a packed position. */
export const WRAP = 0x8000;

/** The state of a queue that was never used. */
export const initialState = (features: bigint): QueueState => {
  const start = hasFeature(features, RING_PACKED) ? WRAP : 0;
  return { nextAvail: start, nextUsed: start };
};

/**
 * Checks size and alignments (2.7, 2.7.1, 2.8.10.1, 2.8.11).
 * @throws VirtqueueError
 */
export function checkConfig(config: QueueConfig): void {
  const { size } = config;
  if (!Number.isInteger(size) || size < 1 || size > QUEUE_SIZE_MAX) {
    throw new VirtqueueError(`its size ${size} is not between 1 and ${QUEUE_SIZE_MAX}`);
  }
  if (!hasFeature(config.features, RING_PACKED) && (size & (size - 1)) !== 0) {
    throw new VirtqueueError(`its size ${size} is not a power of two`);
  }
  const layout = layoutOf(config);
  for (const part of PARTS) {
    const address = config[part];
    if (!Number.isSafeInteger(address) || address < 0 || address % layout[part].alignment !== 0) {
      throw new VirtqueueError(
        `its ${PART_NAMES[part]} at 0x${address.toString(16)} is not aligned to ${layout[part].alignment} bytes`,
      );
    }
  }
}

/**
 * What both sides of a queue go by, as its features say it.
 * @throws VirtqueueError as {@link checkConfig}, VirtqueueUsageError for a queue of the other kind
 */
export function queueTraits(config: QueueConfig, kind: 'split' | 'packed') {
  checkConfig(config);
  const { size, features } = config;
  const actual = hasFeature(features, RING_PACKED) ? 'packed' : 'split';
  if (actual !== kind) throw new VirtqueueUsageError(`a ${actual} queue as ${kind}`);
  return {
    size,
    eventIndex: hasFeature(features, RING_EVENT_IDX),
    indirect: hasFeature(features, RING_INDIRECT_DESC),
    inOrder: hasFeature(features, IN_ORDER),
  };
}

/**
 * Checks that every part of the queue is guest memory.
 * @throws VirtqueueError
 */
export function checkMemory(config: QueueConfig, memory: GuestMemory): void {
  const layout = layoutOf(config);
  for (const part of PARTS) {
    if (memory.contains(config[part], layout[part].size)) continue;
    throw new VirtqueueError(
      `its ${PART_NAMES[part]}, 0x${config[part].toString(16)} + ${layout[part].size} bytes, is not guest memory`,
    );
  }
}

const PARTS = ['descriptorArea', 'driverArea', 'deviceArea'] as const;
const PART_NAMES = {
  descriptorArea: 'descriptor area',
  driverArea: 'driver area',
  deviceArea: 'device area',
} as const;

/**
 * Whether going from index `from` to `to` passed the point that the other side asked to be told about: whether the
 * entry number `event` was among those written (2.7.7.2, 2.7.10.1). All are 16-bit indices that wrap.
 */
export const passedEvent = (event: number, to: number, from: number): boolean =>
  ((to - event - 1) & 0xffff) < ((to - from) & 0xffff);

/**
 * The host's side of a queue. One thread owns it. Every call throws MemoryAccessError when the ring that it touches is
 * no longer guest memory, which {@link DeviceQueue.validate} would have said.
 */
export interface DeviceQueue {
  readonly size: number;
  /** See {@link QueueState}. */
  readonly nextAvail: number;

  /**
   * To be called before the queue runs, and again whenever the regions of guest memory changed.
   * @throws VirtqueueError when a part of the queue is not guest memory
   */
  validate(memory: GuestMemory): void;

  /**
   * Takes the next available buffer into `chain`; false when there is none. A buffer that is nonsense is taken too,
   * with `chain.fault` set and without segments, to be returned with length 0. However the driver cheats, no more
   * than {@link size} buffers can be taken between two calls of {@link publish}.
   * @throws VirtqueueError when the ring itself is nonsense; the caller stops it
   */
  pop(memory: GuestMemory, chain: DescriptorChain): boolean;

  /** Makes the buffer that was popped last available again, as if it had not been popped. */
  undoPop(buffer: PoppedBuffer): void;

  /**
   * Returns a buffer of which the first `written` device-writable bytes were written; the driver does not see it
   * before {@link publish}. Takes the chain itself, or what its `hold()` returned.
   */
  pushUsed(memory: GuestMemory, buffer: PoppedBuffer, written: number): void;

  /** Shows the driver what was pushed; true when it wants an interrupt for that. */
  publish(memory: GuestMemory): boolean;

  /** Tells the driver that kicks are not needed. A hint: kicks may come all the same. */
  suppressKicks(memory: GuestMemory): void;

  /**
   * Asks for a kick when the next buffer becomes available. Returns true when one did meanwhile, for which no kick
   * may come: pop again before waiting.
   */
  requestKicks(memory: GuestMemory): boolean;

  /** The state, from which the constructor goes on. Everything pushed must have been published. */
  save(): QueueState;
}

/** A buffer that came back to the driver. Filled again by every {@link DriverQueue.popUsed}. */
export interface UsedBuffer {
  /** What the driver gave to `addBuffer`. */
  token: number;
  /** Bytes that the device says it wrote; never more than the buffer has room for. */
  written: number;
}

/** A buffer that the driver added and did not get back. */
export interface OutstandingBuffer {
  /** The head's index in the descriptor table (split) or the buffer id (packed). */
  readonly id: number;
  readonly token: number;
  /** Descriptors that it occupies in the table or ring. */
  readonly descriptorCount: number;
  readonly writableBytes: number;
}

/** The state of a driver's side: all of it, because the rings are the device's to write and not to be believed. */
export interface DriverQueueState extends QueueState {
  readonly outstanding: readonly OutstandingBuffer[];
  /** For every descriptor (split) or buffer id (packed) the one that follows it in its chain or in the free list. */
  readonly links: readonly number[];
  /** Where the free list begins. */
  readonly firstFree: number;
}

/** The guest's side of a queue. */
export interface DriverQueue {
  readonly size: number;
  /** Descriptors that are free, out of {@link size}. */
  readonly freeCount: number;
  /** Buffers that the device has, not yet published ones included. */
  readonly outstandingCount: number;

  /** Zeroes all three parts, as a driver must before the device may use the queue (2.7.10.1, 2.8.13). */
  initialize(memory: GuestMemory): void;

  /**
   * Adds a buffer, which the device sees after {@link publish}. `token` (an integer below 2^53) comes back with it.
   * With `indirectTable`, the address of 16 bytes of guest memory per segment that the driver owns until the buffer
   * returns, the segments are listed there and cost one descriptor of the ring; RING_INDIRECT_DESC must be
   * negotiated. Returns false, changing nothing, when the ring has too few free descriptors.
   */
  addBuffer(memory: GuestMemory, segments: SegmentList, token: number, indirectTable?: number): boolean;

  /** Shows the device what was added; true when it wants a kick for that. */
  publish(memory: GuestMemory): boolean;

  /**
   * Takes the next buffer that the device returned into `used`; false when there is none.
   * @throws VirtqueueError when the device returns what it does not have
   */
  popUsed(memory: GuestMemory, used: UsedBuffer): boolean;

  /** Tells the device that interrupts are not needed. A hint: they may come all the same. */
  suppressInterrupts(memory: GuestMemory): void;

  /**
   * Asks for an interrupt when the next buffer is returned or, with `after`, not before about that many more were
   * (with RING_EVENT_IDX; else `after` does not count). Returns true when buffers are there for which no interrupt
   * may come any more: take them before waiting.
   */
  requestInterrupts(memory: GuestMemory, after?: number): boolean;

  /** The state, from which the constructor goes on. Everything added must have been published. */
  save(): DriverQueueState;

  /**
   * Takes back every outstanding buffer and starts anew. Only after the device was reset: it must not touch them any
   * more. {@link initialize} comes before the next use.
   */
  detachUnused(visit: (token: number) => void): void;
}

/** Zeroes every part of the queue. */
export function clearParts(config: QueueConfig, memory: GuestMemory): void {
  const layout = layoutOf(config);
  for (const part of PARTS) memory.fill(config[part], 0, layout[part].size);
}

/** @throws VirtqueueUsageError when the segments can be no buffer of a queue of `size` (2.7.5.2, 2.7.5.3.1, 2.8.17) */
export function requireListable(segments: SegmentList, size: number): void {
  if (segments.count < 1 || segments.count > size) {
    throw new VirtqueueUsageError(`a buffer of ${segments.count} segments in a queue of ${size}`);
  }
  if (segments.readableBytes + segments.writableBytes > BUFFER_BYTES_MAX) {
    throw new VirtqueueUsageError(`a buffer of more than ${BUFFER_BYTES_MAX} bytes`);
  }
}

/** @throws VirtqueueUsageError when the device was not told that there may be indirect tables */
export function requireIndirect({ features }: QueueConfig): void {
  if (hasFeature(features, RING_INDIRECT_DESC)) return;
  throw new VirtqueueUsageError('an indirect table that was not negotiated');
}

/** @throws VirtqueueUsageError when a device claims to have written what it could not */
export function checkWritten(buffer: PoppedBuffer, written: number): void {
  if (written >= 0 && written <= buffer.writableBytes) return;
  throw new VirtqueueUsageError(`${written} bytes written into ${buffer.writableBytes}`);
}

/** What a used entry says: 2^32 bytes do not fit its field, and too little is permitted (2.7.8.2). */
export const lengthField = (written: number): number => Math.min(written, 0xffff_ffff);
