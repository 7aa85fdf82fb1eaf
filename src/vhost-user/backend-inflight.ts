/**
 * The memory in which a front-end keeps what is in flight (GET_INFLIGHT_FD, SET_INFLIGHT_FD): made here, given to the
 * front-end, and taken from it again, by this back-end or by the one that comes after it. What is noted there is
 * `split-inflight.ts`'s and `packed-inflight.ts`'s.
 */
import { FileBacking } from '../memory/file-backing.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { createMemfd, sealAgainstShrinking } from '../sys/file.ts';
import { createDeviceQueue } from '../virtio/create.ts';
import { hasFeature, RING_PACKED } from '../virtio/features.ts';
import { type DeviceQueue, type QueueConfig, type QueueState, VirtqueueError } from '../virtio/queue.ts';
import type { UsedLog } from '../virtio/ring-log.ts';
import { INFLIGHT_VERSION, inflightRegionBytes, SPLIT_REGION } from './inflight-layout.ts';
import { heardByBoth, PackedInflight, PackedInflightQueue, recoverPacked } from './packed-inflight.ts';
import {
  FRONTEND_REQUEST,
  HEADER,
  INFLIGHT_AREA,
  INFLIGHT_PADDED_BYTES,
  VhostUserError,
} from './protocol.ts';
import type { FdList, SavedFds } from './saved-fds.ts';
import { type SavedInflight, type SessionState, SessionStateError } from './saved-session.ts';
import { recoverSplit, SplitInflightQueue } from './split-inflight.ts';
import type { UnclaimedFds } from './unclaimed-fds.ts';

/** More than any device of ours has. */
const QUEUES_MAX = 256;
/**
 * As many as QEMU's largest ring has (VIRTQUEUE_MAX_SIZE). Each is looked at when a ring starts, on a thread that serves
 * others, too: a millisecond or two.
 */
const ENTRIES_MAX = 1024;
const AREA_BYTES_MAX = 2 ** 24;

interface Area {
  readonly backing: FileBacking;
  readonly queues: number;
  readonly entries: number;
}

export class BackendInflight {
  #area: Area | undefined;
  /** Queues of which this back-end has begun a region: what is there is no former one's any more. */
  readonly #begun = new Set<number>();

  /** GET_INFLIGHT_FD: an area that was never used. Returns the reply, and its descriptor, which is the caller's. */
  create(body: DataView, features: bigint | undefined): { readonly reply: Uint8Array; readonly fd: OwnedFd } {
    if (body.byteLength > INFLIGHT_PADDED_BYTES) {
      throw new VhostUserError(`GET_INFLIGHT_FD has ${body.byteLength} bytes of payload`);
    }
    const { queues, queueSize } = INFLIGHT_AREA.read(body);
    // Before the driver took features either kind may come, and the larger one has room for both.
    const size = areaBytes(features === undefined || hasFeature(features, RING_PACKED), queues, queueSize);
    const fd = createArea(size);
    const reply = new Uint8Array(body.byteLength);
    INFLIGHT_AREA.write(new DataView(reply.buffer), 0, { size, offset: 0, queues, queueSize });
    return { reply, fd };
  }

  /** SET_INFLIGHT_FD: rings that start from now on go on where the area says, if it was used. */
  take(body: DataView, features: bigint | undefined, fds: UnclaimedFds): void {
    const { size, offset, queues, queueSize } = INFLIGHT_AREA.read(body);
    const needed = areaBytes(hasFeature(features ?? 0n, RING_PACKED), queues, queueSize);
    if (size < needed || size > AREA_BYTES_MAX) {
      throw new VhostUserError(
        `${size} bytes for ${queues} queues of ${queueSize} entries in flight, which take ${needed}`,
      );
    }
    const fd = fds.take();
    if (fd === undefined) throw new VhostUserError('SET_INFLIGHT_FD without a descriptor');
    const backing = openArea(fd, offset, size);
    this.clear();
    this.#area = { backing, queues, entries: queueSize };
  }

  /** The area, for a back-end that goes on if this one ends at any moment. */
  save(fds: FdList): SavedInflight | undefined {
    if (this.#area === undefined) return undefined;
    const { backing, queues, entries } = this.#area;
    return {
      size: backing.size,
      fileOffset: backing.fileOffset,
      queues,
      entries,
      file: fds.note(backing.fd),
    };
  }

  /**
   * Goes on with an area that was saved, before any ring starts. Of a ring that ran, or was noted by the back-end that saved it,
   * what is in flight says nothing: where it stands, its own state knows.
   * @throws SessionStateError, VhostUserError, AerostatError when it is none
   */
  load({ inflight, rings }: Pick<SessionState, 'inflight' | 'rings'>, fds: SavedFds): void {
    for (const [index, { noted, runs }] of rings.entries()) if (noted || runs) this.#begun.add(index);
    if (inflight === undefined) return;
    const { size, fileOffset, queues, entries } = inflight;
    // It may have been given before it was known which kind of rings there is; each looks for room of its own.
    const needed = areaBytes(false, queues, entries);
    const fd = fds.take(inflight.file);
    if (fd === undefined || size < needed || size > AREA_BYTES_MAX) {
      fd?.close();
      throw new SessionStateError('what is in flight has no room');
    }
    this.#area = { backing: openArea(fd, fileOffset, size), queues, entries };
  }

  /** What is noted of the ring is this back-end's. */
  hasBegun(index: number): boolean {
    return this.#begun.has(index);
  }

  /** The front-end has it noted what is in flight. */
  get used(): boolean {
    return this.#area !== undefined;
  }

  /** What was noted counts no more: another driver begins. */
  forget(): void {
    for (let index = 0; index < (this.#area?.queues ?? 0); index++) this.#begun.add(index);
  }

  /** Another front-end, or none. */
  clear(): void {
    this.#area?.backing.close();
    this.#area = undefined;
    this.#begun.clear();
  }

  /**
   * The queue of ring `index`, noted from now on; it goes on where its former back-end stopped, or in the state that
   * `starting` gives. `log` hears of it, too. Undefined where nothing of it is to be noted.
   * @throws VirtqueueError when what is noted can be no place of it
   */
  open(
    index: number,
    config: QueueConfig,
    memory: GuestMemory,
    starting: () => QueueState,
    log?: UsedLog,
  ): DeviceQueue | undefined {
    const area = this.#area;
    if (area === undefined || index >= area.queues) return undefined;
    const { entries } = area;
    const packed = hasFeature(config.features, RING_PACKED);
    const bytes = inflightRegionBytes(packed, entries);
    if (config.size > entries || bytes * area.queues > area.backing.size) {
      throw new VirtqueueError(
        `it has ${config.size} entries, and what is in flight has room for ${entries}`,
      );
    }
    const { buffer, byteOffset } = area.backing.window(0).u8;
    const region = new DataView(buffer, byteOffset + index * bytes, bytes);
    const state =
      this.#begun.has(index) || !wasUsed(region, entries) ? starting() : recover(region, config, memory);
    this.#begun.add(index);
    if (!packed) return new SplitInflightQueue(createDeviceQueue(config, state), region, entries);
    const noted = new PackedInflight(region, config, entries);
    return new PackedInflightQueue(createDeviceQueue(config, state, heardByBoth(log, noted)), noted);
  }
}

/**
 * The descriptor that goes with a reply which a former process owed: new memory, for the front-end has not seen the one that
 * that process had. None where the reply has none.
 */
export function memoryOfReply(reply: Uint8Array): OwnedFd[] {
  const view = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
  if (reply.length < HEADER.size + INFLIGHT_AREA.size) return [];
  if (HEADER.read(view).request !== FRONTEND_REQUEST.GET_INFLIGHT_FD) return [];
  const { size } = INFLIGHT_AREA.read(view, HEADER.size);
  return size > 0 && size <= AREA_BYTES_MAX ? [createArea(size)] : [];
}

/** Nothing is to be done about it when it comes back. */
function createArea(size: number): OwnedFd {
  const fd = createMemfd({ name: 'aerostat-inflight', size });
  sealAgainstShrinking(fd);
  return fd;
}

/** @throws VhostUserError, AerostatError when it is no memory that stays; `fd` is closed then */
function openArea(fd: OwnedFd, offset: number, size: number): FileBacking {
  const backing = new FileBacking(fd, offset, size, { partialPage: true });
  if (backing.sealed) return backing;
  backing.close();
  throw new VhostUserError('the file of what is in flight can be shrunk; a memfd that takes seals cannot');
}

const recover = (region: DataView, config: QueueConfig, memory: GuestMemory): QueueState =>
  hasFeature(config.features, RING_PACKED)
    ? recoverPacked(region, config, memory)
    : recoverSplit(region, config, memory);

/** Both kinds begin alike. @throws VirtqueueError when it is another version's, or has another size */
function wasUsed(region: DataView, entries: number): boolean {
  const said = SPLIT_REGION.read(region);
  if (said.version === 0) return false;
  if (said.version === INFLIGHT_VERSION && said.entries === entries && said.features === 0n) return true;
  throw new VirtqueueError(
    `what is in flight has version ${said.version} and ${said.entries} entries instead of ${INFLIGHT_VERSION} and ${entries}`,
  );
}

/** @throws VhostUserError */
function areaBytes(packed: boolean, queues: number, queueSize: number): number {
  if (queues < 1 || queues > QUEUES_MAX || queueSize < 1 || queueSize > ENTRIES_MAX) {
    throw new VhostUserError(`${queues} queues of ${queueSize} entries in flight`);
  }
  return queues * inflightRegionBytes(packed, queueSize);
}
