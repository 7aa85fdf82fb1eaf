/**
 * Guest physical memory as a set of regions, the way vhost-user hands it over: bounds-checked translation and
 * accesses that copy. Addresses come from a guest or a front-end and are hostile; every access is inside a
 * region or throws {@link MemoryAccessError}, and nothing here hands out a view of guest memory to keep.
 */
import { AerostatError } from '../sys/error.ts';
import { type Backing, WINDOW_BYTES, Window } from './backing.ts';
import { PAGE_SIZE } from './page.ts';

/** An address range that is not (all) guest memory, or an access that is not aligned to its width. */
export class MemoryAccessError extends AerostatError {
  readonly address: number;
  readonly length: number;

  constructor(address: number, length: number) {
    super('AEROSTAT_MEMORY_ACCESS', `0x${address.toString(16)} + ${length} bytes is not guest memory`);
    this.address = address;
    this.length = length;
  }
}

export interface RegionAddresses {
  readonly guestAddress: number;
  /** Bytes. */
  readonly size: number;
  /** The region's address in the front-end's own address space; what ring addresses are given in. */
  readonly userAddress: number;
}

/**
 * Bytes in one region at most: 4 TiB, 2^30 pages. Numbers of pages and bits of one region then stay positive in 32
 * bits, and the bitmaps that are kept for a region, one bit a page, below 128 MiB each. A front-end's file may be
 * sparse, so its size alone does not bound anything.
 */
export const REGION_BYTES_MAX = 2 ** 42;

// Dividing doubles costs more than all the rest of an access, and most offsets are in the first window.
const windowIndex = (offset: number): number =>
  offset < WINDOW_BYTES ? 0 : Math.floor(offset / WINDOW_BYTES);
const withinWindow = (offset: number): number =>
  offset < WINDOW_BYTES ? offset : offset - Math.floor(offset / WINDOW_BYTES) * WINDOW_BYTES;

/** One run of guest physical memory on one backing. Owns the backing. */
export class MemoryRegion implements RegionAddresses {
  readonly guestAddress: number;
  readonly size: number;
  readonly userAddress: number;
  readonly backing: Backing;
  readonly firstPfn: number;
  readonly pageCount: number;
  // Windows by number, so that the hot path indexes an array instead of asking the backing.
  readonly #windows: (Window | undefined)[] = [];

  /**
   * @throws AerostatError AEROSTAT_REGION_ADDRESS when an address is not page aligned or reaches 2^53, or the size is
   * not positive, no multiple of the backing's discard unit, or above {@link REGION_BYTES_MAX}
   */
  constructor({ guestAddress, size, userAddress }: RegionAddresses, backing: Backing) {
    const aligned =
      guestAddress % PAGE_SIZE === 0 && userAddress % PAGE_SIZE === 0 && size % backing.discardUnit === 0;
    const bounded =
      guestAddress + size <= Number.MAX_SAFE_INTEGER && userAddress + size <= Number.MAX_SAFE_INTEGER;
    if (!aligned || !bounded || size <= 0 || size > Math.min(backing.size, REGION_BYTES_MAX)) {
      throw new AerostatError(
        'AEROSTAT_REGION_ADDRESS',
        `memory region refused: guest address 0x${guestAddress.toString(16)}, size ${size}, user address 0x${userAddress.toString(16)}`,
      );
    }
    this.guestAddress = guestAddress;
    this.size = size;
    this.userAddress = userAddress;
    this.backing = backing;
    this.firstPfn = guestAddress / PAGE_SIZE;
    this.pageCount = size / PAGE_SIZE;
  }

  get end(): number {
    return this.guestAddress + this.size;
  }

  windowAt(offset: number): Window {
    const index = windowIndex(offset);
    this.#windows[index] ??= this.backing.window(index);
    return this.#windows[index];
  }

  close(): void {
    this.#windows.length = 0;
    this.backing.close();
  }
}

const guestAddressOf = (region: MemoryRegion): number => region.guestAddress;
const userAddressOf = (region: MemoryRegion): number => region.userAddress;

/**
 * Index of the first of `regions`, which rise and do not overlap, that ends after `address`; their number if none does. A
 * front-end may hand over hundreds of regions, and a guest name an address in another one each time.
 */
function firstEndingAfter(
  regions: readonly MemoryRegion[],
  address: number,
  addressOf: (region: MemoryRegion) => number,
): number {
  let low = 0;
  let high = regions.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const region = regions[middle];
    if (addressOf(region) + region.size > address) high = middle;
    else low = middle + 1;
  }
  return low;
}

const overlapError = (region: MemoryRegion, other: MemoryRegion): AerostatError =>
  new AerostatError(
    'AEROSTAT_REGION_OVERLAP',
    `memory region 0x${region.guestAddress.toString(16)} + ${region.size} overlaps 0x${other.guestAddress.toString(16)} + ${other.size}`,
  );

const NO_WINDOW = new Window(new ArrayBuffer(0), 0, 0);

/** Hears of every byte that this program writes into guest memory, after it was written. */
export interface WriteLog {
  /** `length` bytes at `gpa`, all of them guest memory. */
  written(gpa: number, length: number): void;
}

export class GuestMemory {
  /** While a front-end wants to know what is written here, as it does while it moves its guest. */
  log: WriteLog | undefined;
  /** In rising order of guest address; none overlaps another. */
  readonly #regions: MemoryRegion[] = [];
  /** The same in rising order of user address. */
  readonly #byUser: MemoryRegion[] = [];
  /** For each region: where the regions end that follow it without a gap. */
  readonly #spanEnds: number[] = [];
  #size = 0;
  /** Where the last address was found: the next one is usually in the same region. */
  #last: MemoryRegion | undefined;
  /** Of that region, see {@link #spanEnds}. */
  #lastSpanEnd = 0;
  // Where #locate found an address: fields, because returning both would allocate for every access.
  #window = NO_WINDOW;
  #offset = 0;

  constructor(regions: Iterable<MemoryRegion> = []) {
    for (const region of regions) this.add(region);
  }

  /** Regions in rising order of guest address. */
  get regions(): readonly MemoryRegion[] {
    return this.#regions;
  }

  /** Bytes in all regions. */
  get size(): number {
    return this.#size;
  }

  /**
   * Adds a region; ownership passes only when this returns.
   * @throws AerostatError AEROSTAT_REGION_OVERLAP when it overlaps a present one, in guest or user addresses
   */
  add(region: MemoryRegion): void {
    const index = firstEndingAfter(this.#regions, region.guestAddress, guestAddressOf);
    const userIndex = firstEndingAfter(this.#byUser, region.userAddress, userAddressOf);
    // Of regions that do not overlap each other only the next can overlap another that begins before its end.
    const next = this.#regions[index];
    const nextUser = this.#byUser[userIndex];
    if (next !== undefined && next.guestAddress < region.end) throw overlapError(region, next);
    if (nextUser !== undefined && nextUser.userAddress < region.userAddress + region.size) {
      throw overlapError(region, nextUser);
    }
    this.#regions.splice(index, 0, region);
    this.#byUser.splice(userIndex, 0, region);
    this.#size += region.size;
    this.#findSpans();
  }

  /** Takes out the region with exactly these addresses, for the caller to close; undefined if there is none. */
  remove({ guestAddress, size, userAddress }: RegionAddresses): MemoryRegion | undefined {
    const index = firstEndingAfter(this.#regions, guestAddress, guestAddressOf);
    const region = this.#regions[index];
    if (
      region === undefined ||
      region.guestAddress !== guestAddress ||
      region.size !== size ||
      region.userAddress !== userAddress
    ) {
      return undefined;
    }
    this.#regions.splice(index, 1);
    this.#byUser.splice(this.#byUser.indexOf(region), 1);
    this.#size -= size;
    this.#findSpans();
    return region;
  }

  close(): void {
    for (const region of this.#regions) region.close();
    this.#regions.length = 0;
    this.#byUser.length = 0;
    this.#size = 0;
    this.#findSpans();
    this.#window = NO_WINDOW;
  }

  /** After the regions changed. */
  #findSpans(): void {
    const regions = this.#regions;
    this.#spanEnds.length = regions.length;
    for (let index = regions.length - 1; index >= 0; index--) {
      const { end } = regions[index];
      const goesOn = index + 1 < regions.length && regions[index + 1].guestAddress === end;
      this.#spanEnds[index] = goesOn ? this.#spanEnds[index + 1] : end;
    }
    this.#last = undefined;
  }

  /** The region that holds guest physical address `gpa`. */
  find(gpa: number): MemoryRegion | undefined {
    const last = this.#last;
    if (last !== undefined && gpa >= last.guestAddress && gpa < last.guestAddress + last.size) return last;
    const index = firstEndingAfter(this.#regions, gpa, guestAddressOf);
    const region = this.#regions[index];
    // Also for an address that is no number.
    if (region === undefined || !(gpa >= region.guestAddress && gpa < region.end)) return undefined;
    this.#last = region;
    this.#lastSpanEnd = this.#spanEnds[index];
    return region;
  }

  /** Whether all of [gpa, gpa + length) is guest memory, possibly over several regions; in the time of one look-up. */
  contains(gpa: number, length: number): boolean {
    const end = gpa + length;
    if (!(end <= Number.MAX_SAFE_INTEGER)) return false;
    if (length <= 0) return true;
    return this.find(gpa) !== undefined && end <= this.#lastSpanEnd;
  }

  /** Guest physical address of a front-end address whose `length` bytes lie inside one region. */
  gpaOfUser(userAddress: number, length: number): number | undefined {
    const region = this.#byUser[firstEndingAfter(this.#byUser, userAddress, userAddressOf)];
    if (region === undefined) return undefined;
    const offset = userAddress - region.userAddress;
    if (!(offset >= 0 && offset + length <= region.size)) return undefined;
    return region.guestAddress + offset;
  }

  u16(gpa: number): number {
    const region = this.#aligned(gpa, 2);
    const offset = gpa - region.guestAddress;
    return region.windowAt(offset).u16[withinWindow(offset) >>> 1];
  }

  u32(gpa: number): number {
    const region = this.#aligned(gpa, 4);
    const offset = gpa - region.guestAddress;
    return region.windowAt(offset).u32[withinWindow(offset) >>> 2];
  }

  /** A little-endian 64-bit integer; 2^53 and above come back inexact but never smaller than 2^53. */
  u64(gpa: number): number {
    const region = this.#aligned(gpa, 8);
    const offset = gpa - region.guestAddress;
    const { u32 } = region.windowAt(offset);
    const index = withinWindow(offset) >>> 2;
    return u32[index] + u32[index + 1] * 2 ** 32;
  }

  setU16(gpa: number, value: number): void {
    const region = this.#aligned(gpa, 2);
    const offset = gpa - region.guestAddress;
    region.windowAt(offset).u16[withinWindow(offset) >>> 1] = value;
    if (this.log !== undefined) this.log.written(gpa, 2);
  }

  setU32(gpa: number, value: number): void {
    const region = this.#aligned(gpa, 4);
    const offset = gpa - region.guestAddress;
    region.windowAt(offset).u32[withinWindow(offset) >>> 2] = value;
    if (this.log !== undefined) this.log.written(gpa, 4);
  }

  setU64(gpa: number, value: number): void {
    const region = this.#aligned(gpa, 8);
    const offset = gpa - region.guestAddress;
    const { u32 } = region.windowAt(offset);
    const index = withinWindow(offset) >>> 2;
    u32[index] = value % 2 ** 32;
    u32[index + 1] = Math.floor(value / 2 ** 32);
    if (this.log !== undefined) this.log.written(gpa, 8);
  }

  /** Reads 16 bits before anything that the program reads after it (acquire; in fact a full fence). */
  atomicLoadU16(gpa: number): number {
    const region = this.#aligned(gpa, 2);
    const offset = gpa - region.guestAddress;
    return Atomics.load(region.windowAt(offset).u16, withinWindow(offset) >>> 1);
  }

  /** Writes 16 bits after everything that the program wrote before it (release; in fact a full fence). */
  atomicStoreU16(gpa: number, value: number): void {
    const region = this.#aligned(gpa, 2);
    const offset = gpa - region.guestAddress;
    Atomics.store(region.windowAt(offset).u16, withinWindow(offset) >>> 1, value);
    if (this.log !== undefined) this.log.written(gpa, 2);
  }

  /** Copies guest memory into `into` from index `at`. The range may span regions. */
  read(gpa: number, into: Uint8Array, at: number, length: number): void {
    if (!this.contains(gpa, length)) throw new MemoryAccessError(gpa, length);
    for (let done = 0; done < length; ) {
      const count = this.#locate(gpa + done, length - done);
      copyBytes(this.#window.u8, this.#offset, into, at + done, count);
      done += count;
    }
  }

  /**
   * Copies `count` 32-bit words from `gpa` on (a multiple of 4) into the beginning of `into`: a quarter of the
   * work of {@link read} for lists of numbers. False, copying nothing, when they do not lie in one window.
   */
  readWords(gpa: number, into: Uint32Array, count: number): boolean {
    if (gpa % 4 !== 0 || !this.contains(gpa, count * 4)) return false;
    if (this.#locate(gpa, count * 4) < count * 4) return false;
    const { u32 } = this.#window;
    const from = this.#offset >>> 2;
    for (let index = 0; index < count; index++) into[index] = u32[from + index];
    return true;
  }

  /** Copies `length` bytes of `from`, from index `at`, into guest memory. The range may span regions. */
  write(gpa: number, from: Uint8Array, at = 0, length: number = from.length - at): void {
    if (!this.contains(gpa, length)) throw new MemoryAccessError(gpa, length);
    for (let done = 0; done < length; ) {
      const count = this.#locate(gpa + done, length - done);
      copyBytes(from, at + done, this.#window.u8, this.#offset, count);
      done += count;
    }
    if (this.log !== undefined) this.log.written(gpa, length);
  }

  /** Sets `length` bytes to `value`. The range may span regions. */
  fill(gpa: number, value: number, length: number): void {
    if (!this.contains(gpa, length)) throw new MemoryAccessError(gpa, length);
    for (let done = 0; done < length; ) {
      const count = this.#locate(gpa + done, length - done);
      this.#window.u8.fill(value, this.#offset, this.#offset + count);
      done += count;
    }
    if (this.log !== undefined) this.log.written(gpa, length);
  }

  /** Points {@link #window} and {@link #offset} at `gpa`; returns how many of `length` bytes lie there together. */
  #locate(gpa: number, length: number): number {
    const region = this.find(gpa);
    if (region === undefined) throw new MemoryAccessError(gpa, length);
    const offset = gpa - region.guestAddress;
    this.#window = region.windowAt(offset);
    this.#offset = withinWindow(offset);
    return Math.min(length, WINDOW_BYTES - this.#offset, region.size - offset);
  }

  #aligned(gpa: number, width: number): MemoryRegion {
    const region = this.find(gpa);
    // Regions and windows begin at page boundaries, so alignment shows in the low bits of an offset too.
    if (region === undefined || (withinWindow(gpa - region.guestAddress) & (width - 1)) !== 0)
      throw new MemoryAccessError(gpa, width);
    return region;
  }
}

/** Up to this, a loop costs less than making a subarray, and allocates nothing: it covers 256 page numbers. */
const LOOP_COPY_BYTES = 1024;

function copyBytes(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, length: number): void {
  if (length <= LOOP_COPY_BYTES) {
    for (let i = 0; i < length; i++) to[toAt + i] = from[fromAt + i];
  } else {
    to.set(from.subarray(fromAt, fromAt + length), toAt);
  }
}
