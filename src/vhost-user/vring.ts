/**
 * One ring as the front-end describes it, message by message, until it is complete enough to run. A ring
 * runs when it has addresses, a kick descriptor, and is enabled.
 */
import type { GuestMemory, RegionAddresses } from '../memory/guest-memory.ts';
import { descriptorKind } from '../sys/descriptor-kind.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { PeerDoorbell } from '../sys/peer-doorbell.ts';
import type { Watch } from '../sys/poll.ts';
import { hasFeature, RING_PACKED } from '../virtio/features.ts';
import { layoutOf } from '../virtio/layout.ts';
import type { DeviceQueue, QueueConfig } from '../virtio/queue.ts';
import {
  type FrontendRequest,
  U64,
  VhostUserError,
  VRING_FD_INDEX_MASK,
  VRING_FD_NONE,
  type VringAddresses,
} from './protocol.ts';
import { RingPlace } from './ring-place.ts';
import type { FdList, SavedFds } from './saved-fds.ts';
import type { SavedRing } from './saved-session.ts';
import type { KeptRings } from './session-host.ts';

export class Vring {
  readonly index: number;
  size = 0;
  addresses: VringAddresses | undefined;
  /** What SET_VRING_BASE said: where the device takes up the ring. */
  base = 0;
  enabled = false;
  /** The front-end has what is written into the ring logged. */
  logged = false;
  /** Present since the front-end set it: it wants the ring to run. */
  kick: OwnedFd | undefined;
  call: PeerDoorbell | undefined;
  error: PeerDoorbell | undefined;
  kickWatch: Watch | undefined;
  /** Present while the ring runs or is suspended, as {@link config} is. */
  queue: DeviceQueue | undefined;
  /** Where the queue lies in guest memory. */
  config: QueueConfig | undefined;
  /** The front-end disabled the ring while it ran: it stands still until that enables it, stops it or begins anew. */
  suspended = false;
  /** Where the ring stopped, while it may go on from there. */
  left: RingPlace | undefined;
  /** It was saved while it ran, and where it stopped is not known yet. */
  ran = false;

  constructor(index: number) {
    this.index = index;
  }

  get running(): boolean {
    return this.queue !== undefined && !this.suspended;
  }

  get complete(): boolean {
    return this.kick !== undefined && this.enabled && this.size > 0 && this.addresses !== undefined;
  }

  /** Whether a part of the ring begins in one of `regions`; it ends there too, or the ring would not run. */
  liesIn(regions: readonly RegionAddresses[]): boolean {
    if (this.addresses === undefined) return false;
    const parts = [this.addresses.descriptorTable, this.addresses.availRing, this.addresses.usedRing];
    return regions.some(({ userAddress, size }) =>
      parts.some(part => part >= userAddress && part < userAddress + size),
    );
  }

  // The setters take ownership, also when they throw; then the descriptor that was there stays.

  /** @throws VhostUserError when `fd` can be no doorbell; so do the others */
  setKick(fd: OwnedFd): void {
    const kick = acceptKick(fd);
    this.withdrawKick();
    this.kick = kick;
  }

  /** The ring does not run again before the next {@link setKick}. */
  withdrawKick(): void {
    this.kickWatch?.stop();
    this.kickWatch = undefined;
    this.kick?.close();
    this.kick = undefined;
  }

  setCall(fd: OwnedFd | undefined): void {
    const call = fd && acceptDoorbell(fd);
    this.call?.close();
    this.call = call;
  }

  setError(fd: OwnedFd | undefined): void {
    const error = fd && acceptDoorbell(fd);
    this.error?.close();
    this.error = error;
  }

  /** The ring, which may run still. */
  save(fds: FdList): Omit<SavedRing, 'noted'> {
    const { size, enabled, addresses, config } = this;
    const left = this.left ?? (config && new RingPlace(config, 0, 0));
    return {
      size,
      // Buffers that the device keeps are not in what it saves: the next one takes them anew.
      base: this.left?.unreturnedBase ?? this.base,
      runs: this.running,
      logged: this.logged,
      enabled,
      addresses,
      place: left && { config: left.config, base: left.base, unreturnedBase: left.unreturnedBase },
      kick: fds.note(this.kick),
      call: fds.note(this.call?.fd),
      error: fds.note(this.error?.fd),
    };
  }

  /** Becomes the ring that was saved. @throws VhostUserError when a descriptor can be no doorbell */
  load(
    { size, base, enabled, addresses, place, runs, logged, ...doorbells }: SavedRing,
    fds: SavedFds,
  ): void {
    this.size = size;
    this.base = base;
    this.enabled = enabled;
    this.addresses = addresses;
    this.left = place && new RingPlace(place.config, place.base, place.unreturnedBase);
    this.ran = runs;
    this.logged = logged;
    const kick = fds.take(doorbells.kick);
    if (kick !== undefined) this.setKick(kick);
    this.setCall(fds.take(doorbells.call));
    this.setError(fds.take(doorbells.error));
  }

  /**
   * A ring that was saved while it ran goes on behind the last buffer that it returned: what was taken after that is taken
   * again.
   * @throws VirtqueueError, MemoryAccessError when it lies in no memory
   */
  findPlace(memory: GuestMemory, kept: KeptRings | undefined): void {
    if (!this.ran || this.left === undefined) return;
    const { config } = this.left;
    this.left = RingPlace.unreturned(config, memory, kept?.ringLog(this.index));
    this.base = this.left.base;
    // The process may have ended between a write and its log.
    logRing(config, memory);
  }

  close(): void {
    this.withdrawKick();
    this.setCall(undefined);
    this.setError(undefined);
  }
}

/** All that a device writes of a ring at `config` counts as written. */
function logRing(config: QueueConfig, { log }: GuestMemory): void {
  const layout = layoutOf(config);
  const parts = hasFeature(config.features, RING_PACKED)
    ? (['descriptorArea', 'deviceArea'] as const)
    : (['deviceArea'] as const);
  for (const part of parts) log?.written(config[part], layout[part].size);
}

/** The ring that a doorbell message is about, which brings a descriptor just when it says so. @throws VhostUserError */
export function ringOfDoorbell(request: FrontendRequest, body: DataView, descriptors: number): number {
  const { value } = U64.read(body);
  if ((value & ~(VRING_FD_INDEX_MASK | VRING_FD_NONE)) !== 0n) {
    throw new VhostUserError(`${request} has reserved bits set: 0x${value.toString(16)}`);
  }
  const announced = (value & VRING_FD_NONE) === 0n ? 1 : 0;
  if (descriptors !== announced) {
    throw new VhostUserError(`${request} announces ${announced} descriptors and brought ${descriptors}`);
  }
  return Number(value & VRING_FD_INDEX_MASK);
}

/**
 * A kick is an eventfd, as every front-end's is: it can be read without waiting for the processes that share it, which is not true
 * of a pipe.
 */
function acceptKick(fd: OwnedFd): OwnedFd {
  const kind = descriptorKind(fd);
  if (kind === 'eventfd') {
    fd.closesAtOnce();
    return fd;
  }
  fd.close();
  throw new VhostUserError(`${WORDS[kind]} is no doorbell that can be waited for; a kick is an eventfd`);
}

/** Files and devices are no doorbells: ringing one would write into it, be it guest memory. */
export function acceptDoorbell(fd: OwnedFd): PeerDoorbell {
  const bell = PeerDoorbell.of(fd);
  if (bell !== undefined) return bell;
  const kind = descriptorKind(fd);
  fd.close();
  throw new VhostUserError(`${WORDS[kind]} is no doorbell; an eventfd, a pipe or a Unix socket is one`);
}

const WORDS = {
  eventfd: 'an eventfd',
  pipe: 'a pipe',
  'unix-socket': 'a socket',
  memory: 'a file in memory',
  path: 'a file or device',
  other: 'something else',
} as const;
