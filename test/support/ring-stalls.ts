/**
 * How long the rings of a guest stand still, seen from beside both of its ends: the rings are read where they lie in the
 * guest's memory, of which a daemon's keeper has the file, every few milliseconds and whichever daemon runs. A ring stands
 * still from when it has a buffer that is the device's to return until the device returns one.
 *
 * A stall counts from the look before the one that found it, to the look that found it over: never too short.
 */
import { closeSync, fstatSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import { type ProfileName, profile, queueRoles } from '../../src/balloon/profiles.ts';
import { ACCOUNTS_AT, GUEST_MAGIC, JOURNAL_AT, RECORD, RING_LOGS_AT } from '../../src/keeping/guest-file.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { Mapping } from '../../src/sys/mapping.ts';
import { MessageJournal } from '../../src/vhost-user/message-journal.ts';
import { decodeSession, type SavedRegion } from '../../src/vhost-user/saved-session.ts';
import { hasFeature, RING_PACKED } from '../../src/virtio/features.ts';
import { PACKED_DESCRIPTOR, RING_HEADER } from '../../src/virtio/layout.ts';
import { descriptorAt, isAvailable } from '../../src/virtio/packed-ring.ts';
import type { QueueConfig } from '../../src/virtio/queue.ts';
import { RING_LOG_BYTES } from '../../src/virtio/ring-log.ts';

const LOOK_EVERY_MS = 2;
/** A device keeps their buffers until it has a use for them. */
const HELD: readonly string[] = ['stats', 'request'];

/** What one look at a ring says: where the device returns the next buffer, and whether the guest has one for it. */
interface Look {
  readonly position: number;
  readonly owes: boolean;
}

export interface WatchedRing {
  readonly name: string;
  look(): Look;
}

export function splitLook(avail: DataView, used: DataView): Look {
  const position = used.getUint16(RING_HEADER.offset.index, true);
  return { position, owes: avail.getUint16(RING_HEADER.offset.index, true) !== position };
}

/** `ring` has the descriptors, and `log` what daemons note before they return one. */
export function packedLook(ring: DataView, log: DataView): Look {
  const positions = log.getUint32(0, true);
  const isHere = (position: number): boolean =>
    isAvailable(ring.getUint16(descriptorAt(0, position) + PACKED_DESCRIPTOR.offset.flags, true), position);
  const noted = positions % 2 ** 16;
  // It is noted before it is returned.
  const position = isHere(noted) ? noted : Math.floor(positions / 2 ** 16);
  return { position, owes: isHere(position) };
}

interface Standing extends Look {
  readonly ring: WatchedRing;
  /** Of the last look that saw it move, or owe nothing. */
  sinceMs: number;
}

/** The longest of some time. */
export interface Stall {
  readonly ms: number;
  readonly ring: string;
}

export class RingStalls {
  readonly #rings: Standing[];
  readonly #close: () => void;
  readonly #timer: NodeJS.Timeout;
  readonly #moves = new Map<string, number>();
  #lookedMs: number;
  #longest: Stall = { ms: 0, ring: '' };
  /** The longest time between two looks: no stall counts as longer than it was by more than twice that. */
  apartMsMax = 0;

  constructor(rings: readonly WatchedRing[], nowMs = performance.now(), close = () => {}) {
    this.#lookedMs = nowMs;
    this.#rings = rings.map(ring => ({ ring, ...ring.look(), sinceMs: nowMs }));
    this.#close = close;
    this.#timer = setInterval(() => this.look(performance.now()), LOOK_EVERY_MS);
    this.#timer.unref();
  }

  /** Those of guests that the keeper with this process id has, and whose rings run. */
  static ofKeeper(
    pid: number,
    guests: readonly { readonly name: string; readonly profile: ProfileName }[],
  ): RingStalls {
    const mappings: Mapping[] = [];
    const view: Viewer = (path, offset, length) => {
      const from = Math.floor(offset / PAGE_SIZE) * PAGE_SIZE;
      const fd = openSync(path, 'r+');
      try {
        const mapping = Mapping.shared(fd, from, offset + length - from);
        mappings.push(mapping);
        return new DataView(mapping.buffer, mapping.offset + offset - from, length);
      } finally {
        closeSync(fd);
      }
    };
    const files = keptFiles(pid);
    const rings = guests.flatMap(guest => ringsOf(guest, files, view));
    return new RingStalls(rings, performance.now(), () => {
      for (const mapping of mappings) mapping.close();
    });
  }

  look(nowMs: number): void {
    for (const standing of this.#rings) {
      const { ring, position, owes, sinceMs } = standing;
      const now = ring.look();
      if (now.position !== position) this.#moves.set(ring.name, (this.#moves.get(ring.name) ?? 0) + 1);
      if (owes && now.position !== position && nowMs - sinceMs > this.#longest.ms)
        this.#longest = { ms: nowMs - sinceMs, ring: ring.name };
      if (!now.owes) standing.sinceMs = nowMs;
      else if (now.position !== position) standing.sinceMs = this.#lookedMs;
      Object.assign(standing, now);
    }
    this.apartMsMax = Math.max(this.apartMsMax, nowMs - this.#lookedMs);
    this.#lookedMs = nowMs;
  }

  /** How often each ring was seen to move, by its name: a ring that never did is none that was looked at. */
  get moves(): ReadonlyMap<string, number> {
    return this.#moves;
  }

  /** The longest that is over since this was asked last. */
  takeLongest(): Stall {
    const longest = this.#longest;
    this.#longest = { ms: 0, ring: '' };
    return longest;
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#close();
  }
}

type Viewer = (path: string, offset: number, length: number) => DataView;

interface KeptFile {
  readonly path: string;
  readonly name: string;
  readonly size: number;
  /** It is what a daemon keeps of a guest, and no memory of one. */
  readonly isState: boolean;
}

/** The files among the descriptors of a process. */
function keptFiles(pid: number): readonly KeptFile[] {
  const directory = `/proc/${pid}/fd`;
  return readdirSync(directory).flatMap(number => {
    const path = `${directory}/${number}`;
    const name = readlinkSync(path);
    // What is no file, or none in memory, has no path of its own here.
    if (!/^\/.*\(deleted\)$/.test(name)) return [];
    const fd = openSync(path, 'r');
    try {
      const first = Buffer.alloc(4);
      readSync(fd, first, 0, 4, 0);
      return [{ path, name, size: fstatSync(fd).size, isState: first.readUInt32LE() === GUEST_MAGIC }];
    } finally {
      closeSync(fd);
    }
  });
}

function ringsOf(
  { name, profile: profileName }: { readonly name: string; readonly profile: ProfileName },
  files: readonly KeptFile[],
  view: Viewer,
): readonly WatchedRing[] {
  const own = files.find(file => file.isState && file.name === `/memfd:aerostat-${name} (deleted)`);
  if (own === undefined) throw new Error(`the keeper has no file of ${name}`);
  const kept = view(own.path, 0, ACCOUNTS_AT);
  const bytes = new Uint8Array(kept.buffer, kept.byteOffset, kept.byteLength).subarray(JOURNAL_AT);
  const journal = new MessageJournal(
    { address: 0, bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) },
    { keep: () => 0, isKept: () => true },
  );
  const { record } = journal;
  const { fds, regions: count } = RECORD.read(new DataView(record.buffer));
  const stateAt = RECORD.size + Math.ceil(fds / 2) * 8 + count * 8;
  const { rings, regions, features = 0n } = decodeSession(record.slice(stateAt), fds);
  const memoryFile = ({ fileOffset, size }: SavedRegion): KeptFile => {
    const found = files.find(file => !file.isState && file.size >= fileOffset + size);
    if (found === undefined) throw new Error(`the keeper has no memory of ${name}`);
    return found;
  };
  const viewGuest = (address: number, length: number): DataView => {
    const region = regions.find(
      ({ guestAddress, size }) => address >= guestAddress && address + length <= guestAddress + size,
    );
    if (region === undefined) throw new Error(`a ring of ${name} lies in no memory`);
    return view(memoryFile(region).path, region.fileOffset + address - region.guestAddress, length);
  };
  const roles = queueRoles(profile(profileName), features);
  return rings.flatMap(({ runs, place }, index) => {
    const role = roles[index];
    if (!runs || place === undefined || role === undefined || HELD.includes(role)) return [];
    const logAt = RING_LOGS_AT + index * RING_LOG_BYTES;
    const log = new DataView(kept.buffer, kept.byteOffset + logAt, RING_LOG_BYTES);
    return [{ name: `${name}'s ${role}`, look: lookAt(place.config, viewGuest, log) }];
  });
}

function lookAt(
  { size, features, descriptorArea, driverArea, deviceArea }: QueueConfig,
  viewGuest: (address: number, length: number) => DataView,
  log: DataView,
): () => Look {
  if (hasFeature(features, RING_PACKED)) {
    const ring = viewGuest(descriptorArea, size * PACKED_DESCRIPTOR.size);
    return () => packedLook(ring, log);
  }
  const avail = viewGuest(driverArea, RING_HEADER.size);
  const used = viewGuest(deviceArea, RING_HEADER.size);
  return () => splitLook(avail, used);
}
