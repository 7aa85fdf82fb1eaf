/**
 * What split and packed queues have in common: how one is configured and checked, the state that outlives it, and
 * the interface of each side. Everything works on a guest memory that is an argument of every call and never kept.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { AerostatError } from '../sys/error.ts';
import type { DescriptorChain, PoppedBuffer, SegmentList } from './chain.ts';
import { hasFeature, RING_EVENT_IDX, RING_PACKED } from './features.ts';
import { packedLayout, type QueueLayout, splitLayout } from './layout.ts';

/** A ring that makes no sense, or a configuration or state that can be no ring. The queue is to be stopped. */
export class VirtqueueError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_VIRTQUEUE', `virtqueue refused: ${message}`);
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

export const layoutOf = ({ size, features }: Pick<QueueConfig, 'size' | 'features'>): QueueLayout =>
  hasFeature(features, RING_PACKED)
    ? packedLayout(size)
    : splitLayout(size, hasFeature(features, RING_EVENT_IDX));

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

/** The host's side of a queue. One thread owns it. */
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
   * with `chain.fault` set and without segments, to be returned with length 0.
   * @throws VirtqueueError when the ring itself is nonsense; the caller stops it
   * @throws MemoryAccessError when the ring is no longer guest memory ({@link validate} was not called)
   */
  pop(memory: GuestMemory, chain: DescriptorChain): boolean;

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

/** The state of a driver's side: the positions, and the buffers that the device has. */
export interface DriverQueueState extends QueueState {
  readonly outstanding: readonly OutstandingBuffer[];
}

/** A buffer that the driver made available and the device has not returned. */
export interface OutstandingBuffer {
  readonly id: number;
  readonly token: number;
  /** Where its first descriptor lies in the table or ring. */
  readonly firstDescriptor: number;
  readonly descriptorCount: number;
  readonly writableBytes: number;
}

/** The guest's side of a queue. */
export interface DriverQueue {
  readonly size: number;
  /** Descriptors that are free, out of {@link size}. */
  readonly freeCount: number;
  /** Buffers that the device has, not yet published ones included. */
  readonly outstandingCount: number;

  /** Writes what the driver must initialise in a new ring: all three parts to zero. */
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
   * Asks for an interrupt when the next buffer is returned, or, with `after`, when that many more are. Returns true
   * when that happened meanwhile, in which case no interrupt may come: take them before waiting.
   */
  requestInterrupts(memory: GuestMemory, after?: number): boolean;

  save(): DriverQueueState;

  /**
   * Takes back every outstanding buffer and forgets it. Only after the device was reset: it must not touch them any
   * more. The rings must be initialised again before the queue is used again.
   */
  detachUnused(visit: (token: number) => void): void;
}
