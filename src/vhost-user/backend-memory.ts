/**
 * The back-end's view of guest memory: regions as the front-end hands them over, replaces them and takes them
 * away, in one table or one by one, also while rings run in them. A message that is refused changes nothing.
 */
import { FileBacking } from '../memory/file-backing.ts';
import { GuestMemory, MemoryRegion, type RegionAddresses } from '../memory/guest-memory.ts';
import type { OwnedFd } from '../sys/fd.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import type { BackendRings } from './backend-rings.ts';
import {
  MEM_REGION,
  MEM_SLOTS_MAX,
  MEM_TABLE_HEADER,
  MEM_TABLE_REGIONS_MAX,
  MEMORY_BYTES_MAX,
  SINGLE_REGION_PADDING,
  VhostUserError,
} from './protocol.ts';
import type { FdList, SavedFds } from './saved-fds.ts';
import { type SavedRegion, SessionStateError } from './saved-session.ts';
import type { UnclaimedFds } from './unclaimed-fds.ts';

export class BackendMemory {
  readonly #memory: GuestMemory;
  readonly #device: VirtioDevice;
  readonly #rings: BackendRings;

  /** Keeps `memory`, in which `rings` run. */
  constructor(memory: GuestMemory, device: VirtioDevice, rings: BackendRings) {
    this.#memory = memory;
    this.#device = device;
    this.#rings = rings;
  }

  /** SET_MEM_TABLE. Regions that were there before stay as they are. */
  setTable(body: DataView, fds: UnclaimedFds): void {
    const table = readTable(body, fds);
    const kept = new Set<MemoryRegion>();
    const gone: MemoryRegion[] = [];
    for (const region of this.#memory.regions) {
      const same = table.regions.find(candidate => isSameRegion(candidate, region));
      if (same === undefined) gone.push(region);
      else kept.add(same);
    }
    const paused = this.#rings.pauseIn(gone);
    for (const region of gone) this.#drop(region);
    for (const region of table.regions) {
      if (kept.has(region)) region.close();
      else this.#keep(region);
    }
    this.#rings.startAll(paused);
  }

  /** ADD_MEM_REG. */
  add(body: DataView, fds: UnclaimedFds): void {
    if (this.#memory.regions.length >= MEM_SLOTS_MAX) {
      throw new VhostUserError(`ADD_MEM_REG would make more than ${MEM_SLOTS_MAX} regions`);
    }
    this.#keep(openRegion(body, SINGLE_REGION_PADDING, fds.take()));
    this.#rings.startAll();
  }

  /** REM_MEM_REG. */
  remove(body: DataView): void {
    const addresses = MEM_REGION.read(body, SINGLE_REGION_PADDING);
    const region = this.#memory.regions.find(candidate => haveSameAddresses(candidate, addresses));
    if (region === undefined) throw new VhostUserError('REM_MEM_REG names a region that is not there');
    const paused = this.#rings.pauseIn([region]);
    this.#drop(region);
    this.#rings.startAll(paused);
  }

  /** The table. */
  save(fds: FdList): SavedRegion[] {
    return this.#memory.regions.map(({ guestAddress, size, userAddress, backing }) => ({
      guestAddress,
      size,
      userAddress,
      fileOffset: backing.file?.fileOffset ?? 0,
      file: fds.note(backing.file?.fd),
    }));
  }

  /**
   * Takes over a table that was saved, before anything was said of this one. `open` makes a region of what was saved, and
   * owns the descriptor.
   * @throws AerostatError, having changed nothing
   */
  load(saved: readonly SavedRegion[], fds: SavedFds, open: OpenSavedRegion = openSavedRegion): void {
    const table = new GuestMemory();
    try {
      for (const region of saved) addBounded(table, open(region, fds.take(region.file)));
    } catch (error) {
      table.close();
      throw error;
    }
    for (const region of table.regions) this.#keep(region);
  }

  /** An empty table, as in the beginning; no ring runs any more. */
  clear(): void {
    for (const region of [...this.#memory.regions]) this.#drop(region);
  }

  /** Lets go of all memory for good; no ring runs any more. */
  close(): void {
    this.clear();
    this.#memory.close();
  }

  /** Takes ownership, also when it throws. */
  #keep(region: MemoryRegion): void {
    addBounded(this.#memory, region);
    this.#device.regionAdded(region);
  }

  #drop(region: MemoryRegion): void {
    this.#memory.remove(region);
    this.#device.regionRemoved(region, () => region.close());
  }
}

/** The new table, whole and checked before anything of the old one is touched. */
function readTable(body: DataView, fds: UnclaimedFds): GuestMemory {
  const { regions: count } = MEM_TABLE_HEADER.read(body);
  // Some front-ends send the room for regions that they do not have, so there may be more payload.
  if (count > MEM_TABLE_REGIONS_MAX || body.byteLength < MEM_TABLE_HEADER.size + count * MEM_REGION.size) {
    throw new VhostUserError(`SET_MEM_TABLE announces ${count} regions in ${body.byteLength} bytes`);
  }
  if (fds.count !== count) {
    throw new VhostUserError(`SET_MEM_TABLE has ${count} regions and ${fds.count} descriptors`);
  }
  const table = new GuestMemory();
  try {
    for (let index = 0; index < count; index++) {
      addBounded(table, openRegion(body, MEM_TABLE_HEADER.size + index * MEM_REGION.size, fds.take()));
    }
    return table;
  } catch (error) {
    table.close();
    throw error;
  }
}

/** Makes a region of what was saved of it. Takes ownership of the descriptor, also when it throws. */
export type OpenSavedRegion = (saved: SavedRegion, file: OwnedFd | undefined) => MemoryRegion;

function openSavedRegion(
  { file: _, fileOffset, ...addresses }: SavedRegion,
  fd: OwnedFd | undefined,
): MemoryRegion {
  if (fd === undefined) throw new SessionStateError('it has a region without a file');
  return openFile(addresses, fd, fileOffset);
}

function openRegion(body: DataView, at: number, fd: OwnedFd | undefined): MemoryRegion {
  if (fd === undefined) throw new VhostUserError('a memory region came without its descriptor');
  const { mmapOffset, ...addresses } = MEM_REGION.read(body, at);
  return openFile(addresses, fd, mmapOffset);
}

function openFile(addresses: RegionAddresses, fd: OwnedFd, fileOffset: number): MemoryRegion {
  const backing = new FileBacking(fd, fileOffset, addresses.size);
  try {
    return new MemoryRegion(addresses, backing);
  } catch (error) {
    backing.close();
    throw error;
  }
}

/**
 * Adds a region to a table; takes ownership, also when it throws.
 * @throws AerostatError when it overlaps another, or there is too much memory
 */
function addBounded(table: GuestMemory, region: MemoryRegion): void {
  try {
    if (table.size + region.size > MEMORY_BYTES_MAX) {
      throw new VhostUserError(`guest memory would have more than ${MEMORY_BYTES_MAX} bytes`);
    }
    table.add(region);
  } catch (error) {
    region.close();
    throw error;
  }
}

const haveSameAddresses = (a: RegionAddresses, b: RegionAddresses): boolean =>
  a.guestAddress === b.guestAddress && a.size === b.size && a.userAddress === b.userAddress;

function isSameRegion(a: MemoryRegion, b: MemoryRegion): boolean {
  if (!haveSameAddresses(a, b)) return false;
  const [fileOfA, fileOfB] = [a.backing.file, b.backing.file];
  if (fileOfA === undefined || fileOfB === undefined) return false;
  return fileOfA.fileOffset === fileOfB.fileOffset && fileOfA.identity === fileOfB.identity;
}
