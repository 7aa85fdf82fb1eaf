/**
 * The device's side of a packed virtqueue (VIRTIO 1.4, section 2.8): takes lists from the descriptor ring and writes
 * used descriptors over them. Every number that the driver writes is read once and bounded before it is used.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { DescriptorChain, PoppedBuffer } from './chain.ts';
import { IndirectTable } from './indirect.ts';
import { DESCRIPTOR_FLAG, PACKED_DESCRIPTOR } from './layout.ts';
import {
  advance,
  descriptorAt,
  isAvailable,
  requestEvents,
  suppressEvents,
  usedFlags,
  wantsEvent,
} from './packed-ring.ts';
import {
  checkMemory,
  checkWritten,
  type DeviceQueue,
  initialState,
  lengthField,
  type QueueConfig,
  type QueueState,
  queueTraits,
  VirtqueueError,
  VirtqueueUsageError,
} from './queue.ts';
import type { UsedLog } from './ring-log.ts';

const { NEXT, WRITE, INDIRECT } = DESCRIPTOR_FLAG;
const { address: ADDRESS, length: LENGTH, id: ID, flags: FLAGS } = PACKED_DESCRIPTOR.offset;

export class PackedDeviceQueue implements DeviceQueue {
  readonly size: number;
  readonly #config: QueueConfig;
  readonly #eventIndex: boolean;
  readonly #indirectAllowed: boolean;
  readonly #inOrder: boolean;
  readonly #ring: number;
  readonly #driverArea: number;
  readonly #deviceArea: number;
  readonly #table = new IndirectTable();
  readonly #log: UsedLog | undefined;

  #nextAvail: number;
  /** Position of the buffer that must be returned next (IN_ORDER). */
  #nextReturn: number;
  #nextUsed: number;
  /** Where the driver looks for the next used descriptor: until its flags are written, it sees none after it. */
  #publishedUsed: number;
  /**
   * Used descriptors that were pushed. They are written when they are published and not before, for they take the place
   * of available ones: a device that dies in between has returned nothing, and the next one finds every list intact.
   */
  readonly #positions: Uint16Array;
  readonly #ids: Uint16Array;
  readonly #lengths: Uint32Array;
  readonly #flags: Uint16Array;
  #pushed = 0;
  /** Descriptors that they give back. */
  #unpublished = 0;
  /** Descriptors popped and not published as used; the driver cannot have added others in their place. */
  #unreturned = 0;
  /** Whether the driver was told of what is before {@link #publishedUsed} is not known: tell it. */
  #interruptOwed: boolean;
  /** The next buffer may be folded into the used descriptor that was pushed last (IN_ORDER). */
  #folding = false;

  /**
   * Goes on from `state` when given one; then the first publish asks for an interrupt unless the driver wants none,
   * because it is not known whether the last one arrived. Where it stands is in `log` from then on, if there is one.
   * @throws VirtqueueError when size or alignment are wrong
   */
  constructor(config: QueueConfig, state?: QueueState, log?: UsedLog) {
    const { size, eventIndex, indirect, inOrder } = queueTraits(config, 'packed');
    this.#config = config;
    this.size = size;
    this.#eventIndex = eventIndex;
    this.#indirectAllowed = indirect;
    this.#inOrder = inOrder;
    this.#ring = config.descriptorArea;
    this.#driverArea = config.driverArea;
    this.#deviceArea = config.deviceArea;
    const { nextAvail, nextUsed } = state ?? initialState(config.features);
    this.#positions = new Uint16Array(size);
    this.#ids = new Uint16Array(size);
    this.#lengths = new Uint32Array(size);
    this.#flags = new Uint16Array(size);
    this.#nextAvail = nextAvail;
    this.#nextReturn = nextAvail;
    this.#nextUsed = nextUsed;
    this.#publishedUsed = nextUsed;
    this.#interruptOwed = state !== undefined;
    this.#log = log;
    log?.begin(nextUsed);
  }

  get nextAvail(): number {
    return this.#nextAvail;
  }

  validate(memory: GuestMemory): void {
    checkMemory(this.#config, memory);
  }

  pop(memory: GuestMemory, chain: DescriptorChain): boolean {
    const position = this.#nextAvail;
    const first = descriptorAt(this.#ring, position);
    // 2.8.21: the driver writes the first descriptor's flags after everything else of the list.
    const flags = memory.atomicLoadU16(first + FLAGS);
    if (!isAvailable(flags, position)) return false;
    this.#walk(memory, chain, position, flags);
    const { descriptorCount } = chain;
    if (descriptorCount > this.size - this.#unreturned) {
      throw new VirtqueueError(`more than its ${this.size} descriptors are available`);
    }
    this.#unreturned += descriptorCount;
    this.#nextAvail = advance(position, descriptorCount, this.size);
    return true;
  }

  undoPop(buffer: PoppedBuffer): void {
    if (advance(buffer.position, buffer.descriptorCount, this.size) !== this.#nextAvail) {
      throw new VirtqueueUsageError('a buffer put back that was not the last');
    }
    this.#nextAvail = buffer.position;
    this.#unreturned -= buffer.descriptorCount;
  }

  pushUsed(_memory: GuestMemory, buffer: PoppedBuffer, written: number): void {
    checkWritten(buffer, written);
    let at = this.#pushed;
    let position = this.#nextUsed;
    if (this.#inOrder) {
      if (buffer.position !== this.#nextReturn)
        throw new VirtqueueUsageError('a buffer returned out of order');
      this.#nextReturn = advance(this.#nextReturn, buffer.descriptorCount, this.size);
      if (this.#folding) position = this.#positions[--at];
      // A driver takes the buffers that a batch skips for completely written (2.8.8); others need their own length.
      this.#folding = written === buffer.writableBytes && buffer.fault === undefined;
    }
    this.#positions[at] = position;
    this.#ids[at] = buffer.id;
    this.#lengths[at] = lengthField(written);
    this.#flags[at] = usedFlags(position) | (written > 0 ? WRITE : 0);
    this.#pushed = at + 1;
    this.#nextUsed = advance(this.#nextUsed, buffer.descriptorCount, this.size);
    this.#unpublished += buffer.descriptorCount;
  }

  publish(memory: GuestMemory): boolean {
    const from = this.#publishedUsed;
    const moved = this.#unpublished;
    if (moved === 0) return false;
    // In order, and the flags of each after all else of it: the driver may look at any time, and the device die.
    const log = this.#log;
    for (let at = 0; at < this.#pushed; at++) {
      const position = this.#positions[at];
      const descriptor = descriptorAt(this.#ring, position);
      if (log !== undefined) {
        const next = at + 1 < this.#pushed ? this.#positions[at + 1] : this.#nextUsed;
        log.writing(memory, this.#ring, position, next);
      }
      memory.setU16(descriptor + ID, this.#ids[at]);
      memory.setU32(descriptor + LENGTH, this.#lengths[at]);
      // Sequentially consistent, as the loads of the driver's wish that follow are.
      memory.atomicStoreU16(descriptor + FLAGS, this.#flags[at]);
    }
    this.#publishedUsed = this.#nextUsed;
    this.#unreturned -= moved;
    this.#unpublished = 0;
    this.#pushed = 0;
    this.#folding = false;
    const owed = this.#interruptOwed;
    this.#interruptOwed = false;
    return wantsEvent(memory, this.#driverArea, this.#eventIndex, owed, from, moved, this.size);
  }

  suppressKicks(memory: GuestMemory): void {
    suppressEvents(memory, this.#deviceArea);
  }

  requestKicks(memory: GuestMemory): boolean {
    requestEvents(memory, this.#deviceArea, this.#eventIndex, this.#nextAvail);
    const flags = memory.atomicLoadU16(descriptorAt(this.#ring, this.#nextAvail) + FLAGS);
    return isAvailable(flags, this.#nextAvail);
  }

  save(): QueueState {
    if (this.#unpublished > 0) throw new VirtqueueUsageError('saved with buffers not published');
    return { nextAvail: this.#nextAvail, nextUsed: this.#nextUsed };
  }

  /**
   * Reads the list that begins at `position`. Its id stands in its last descriptor (2.8.6), so a list that is
   * nonsense is followed to its end all the same, and one without an end leaves the ring without meaning.
   */
  #walk(memory: GuestMemory, chain: DescriptorChain, position: number, flags: number): void {
    chain.begin(0, position, this.size);
    const linked = (flags & NEXT) !== 0;
    for (let walked = 1; ; walked++) {
      const descriptor = descriptorAt(this.#ring, position);
      const address = memory.u64(descriptor + ADDRESS);
      const length = memory.u32(descriptor + LENGTH);
      if (chain.fault === undefined) {
        if ((flags & INDIRECT) === 0) chain.append(memory, address, length, (flags & WRITE) !== 0);
        else if (!this.#indirectAllowed) chain.fail('indirect-refused');
        else if (linked) chain.fail('indirect-linked');
        else this.#walkTable(memory, chain, address, length);
      }
      if ((flags & NEXT) === 0) {
        chain.id = memory.u16(descriptor + ID);
        chain.descriptorCount = walked;
        return;
      }
      if (walked === this.size) throw new VirtqueueError(`a list goes on for its ${this.size} descriptors`);
      position = advance(position, 1, this.size);
      flags = memory.u16(descriptorAt(this.#ring, position) + FLAGS);
      if (!isAvailable(flags, position))
        throw new VirtqueueError('a list ends in a descriptor not available');
    }
  }

  /** Every entry of the table is a segment; WRITE is the only flag with a meaning there (2.8.7). */
  #walkTable(memory: GuestMemory, chain: DescriptorChain, address: number, length: number): void {
    const table = this.#table;
    const fault = table.load(memory, address, length, this.size);
    if (fault !== undefined) {
      chain.fail(fault);
      return;
    }
    chain.tableEntries = table.count;
    for (let index = 0; index < table.count; index++) {
      const writable = (table.packedFlags(index) & WRITE) !== 0;
      if (!chain.append(memory, table.address(index), table.length(index), writable)) return;
    }
  }
}
