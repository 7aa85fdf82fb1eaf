/**
 * The bytes of a saved session: what a front-end had said of its driver, its memory and its rings, and which of the saved
 * descriptors each of them needs. What the session does with it is backend-session.ts's; the device has bytes of its own.
 *
 * The bytes may be damaged, or another program's. They are read as a whole and bounded, and only then does anything change.
 */
import type { RegionAddresses } from '../memory/guest-memory.ts';
import { AerostatError } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { struct } from '../sys/struct.ts';
import { QUEUE_SIZE_MAX, type QueueConfig } from '../virtio/queue.ts';
import type { VringAddresses } from './protocol.ts';
import { CONFIG_BYTES_MAX, MEM_SLOTS_MAX } from './protocol.ts';
import type { FdIndex } from './saved-fds.ts';

/** A saved session that cannot go on here. */
export class SessionStateError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_SESSION_STATE', `saved session refused: ${message}`, options);
  }
}

/** What a session is saved to. */
export interface SavedSession {
  readonly bytes: Uint8Array;
  /** Duplicates, which belong to the holder of this object. */
  readonly fds: readonly OwnedFd[];
}

export interface SavedRegion extends RegionAddresses {
  /** Where the region starts in its file. */
  readonly fileOffset: number;
  /** Undefined for memory that is no file. */
  readonly file: FdIndex | undefined;
}

interface SavedPlace {
  readonly config: QueueConfig;
  readonly base: number;
  readonly unreturnedBase: number;
}

export interface SavedRing {
  readonly size: number;
  readonly base: number;
  readonly enabled: boolean;
  readonly addresses: VringAddresses | undefined;
  /** Where the ring stopped, if it may go on from there; where it lies, if it {@link runs}. */
  readonly place: SavedPlace | undefined;
  /** It was served still: what it has not returned, its used ring or its log says. */
  readonly runs: boolean;
  /** The front-end has what is written into it logged. */
  readonly logged: boolean;
  /** What is in flight of it was noted by this back-end, where it is noted: it counts as no former one's. */
  readonly noted: boolean;
  readonly kick: FdIndex | undefined;
  readonly call: FdIndex | undefined;
  readonly error: FdIndex | undefined;
}

/** Where the front-end has writes logged. */
interface SavedLog {
  readonly size: number;
  readonly fileOffset: number;
  readonly file: FdIndex | undefined;
}

/** Where the front-end has it noted what is in flight. */
export interface SavedInflight {
  readonly size: number;
  readonly fileOffset: number;
  readonly queues: number;
  readonly entries: number;
  readonly file: FdIndex | undefined;
}

export interface SessionState {
  /** Undefined before the driver took any. */
  readonly features: bigint | undefined;
  readonly protocolFeatures: bigint;
  readonly status: number;
  readonly owned: boolean;
  /** The channel for requests of the back-end. */
  readonly channel: FdIndex | undefined;
  /** What was written into the configuration space while no ring ran, and 1 for each byte that was. */
  readonly configBytes: Uint8Array;
  readonly configWritten: Uint8Array;
  readonly regions: readonly SavedRegion[];
  readonly rings: readonly SavedRing[];
  readonly log: SavedLog | undefined;
  readonly logDoorbell: FdIndex | undefined;
  /** All that is written is to be logged. */
  readonly logsAll: boolean;
  readonly inflight: SavedInflight | undefined;
}

/** "AEVS" in little endian. */
const MAGIC = 0x5356_4541;
const VERSION = 3;
/** It ends before {@link INFLIGHT}: what is in flight was noted nowhere. */
const VERSION_WITHOUT_INFLIGHT = 2;
/** It ends before {@link LOG}: it knows of no log. */
const VERSION_WITHOUT_LOG = 1;
const NO_FD = 0xffff_ffff;
/** Far more rings than any device has. */
const RINGS_MAX = 256;
/** A table of regions, three descriptors a ring, the channel, a log with its doorbell, and what is in flight. */
const FDS_MAX = MEM_SLOTS_MAX + 3 * RINGS_MAX + 4;

const HEADER = struct('saved session', 48, {
  magic: ['u32', 0],
  version: ['u32', 4],
  flags: ['u32', 8],
  status: ['u32', 12],
  features: ['bits64', 16],
  protocolFeatures: ['bits64', 24],
  channel: ['u32', 32],
  regions: ['u32', 36],
  rings: ['u32', 40],
  fds: ['u32', 44],
});
/** Of {@link HEADER}. */
const NEGOTIATED = 1;
const OWNED = 2;
const LOGS_ALL = 4;

const REGION = struct('saved region', 40, {
  guestAddress: ['u64', 0],
  size: ['u64', 8],
  userAddress: ['u64', 16],
  fileOffset: ['u64', 24],
  file: ['u32', 32],
});

const RING = struct('saved ring', 96, {
  flags: ['u32', 0],
  size: ['u32', 4],
  base: ['u32', 8],
  kick: ['u32', 12],
  call: ['u32', 16],
  error: ['u32', 20],
  descriptorTable: ['u64', 24],
  availRing: ['u64', 32],
  usedRing: ['u64', 40],
  placeSize: ['u32', 48],
  placeBase: ['u32', 52],
  placeUnreturned: ['u32', 56],
  placeFeatures: ['bits64', 64],
  descriptorArea: ['u64', 72],
  driverArea: ['u64', 80],
  deviceArea: ['u64', 88],
});
/** Of {@link RING}. */
const ENABLED = 1;
const HAS_ADDRESSES = 2;
const HAS_PLACE = 4;
const RUNS = 8;
const LOGGED = 16;
const NOTED = 32;

/** Behind the rings. */
const LOG = struct('saved log', 32, {
  size: ['u64', 0],
  fileOffset: ['u64', 8],
  file: ['u32', 16],
  doorbell: ['u32', 20],
});

/** Behind the log. */
const INFLIGHT = struct('saved area of what is in flight', 32, {
  size: ['u64', 0],
  fileOffset: ['u64', 8],
  file: ['u32', 16],
  queues: ['u32', 20],
  entries: ['u32', 24],
});

const CONFIG_AT = HEADER.size;
const REGIONS_AT = CONFIG_AT + 2 * CONFIG_BYTES_MAX;

/** `fds` is how many descriptors go with the state. */
export function encodeSession(state: SessionState, fds: number): Uint8Array {
  const { features, regions, rings, log, inflight } = state;
  const ringsAt = REGIONS_AT + regions.length * REGION.size;
  const logAt = ringsAt + rings.length * RING.size;
  const bytes = new Uint8Array(logAt + LOG.size + INFLIGHT.size);
  const view = new DataView(bytes.buffer);
  HEADER.write(view, 0, {
    magic: MAGIC,
    version: VERSION,
    flags:
      (features === undefined ? 0 : NEGOTIATED) | (state.owned ? OWNED : 0) | (state.logsAll ? LOGS_ALL : 0),
    status: state.status,
    features: features ?? 0n,
    protocolFeatures: state.protocolFeatures,
    channel: state.channel ?? NO_FD,
    regions: regions.length,
    rings: rings.length,
    fds,
  });
  bytes.set(state.configBytes, CONFIG_AT);
  bytes.set(state.configWritten, CONFIG_AT + CONFIG_BYTES_MAX);
  regions.forEach((region, index) => {
    REGION.write(view, REGIONS_AT + index * REGION.size, { ...region, file: region.file ?? NO_FD });
  });
  rings.forEach((ring, index) => {
    writeRing(view, ringsAt + index * RING.size, ring);
  });
  LOG.write(view, logAt, {
    size: log?.size ?? 0,
    fileOffset: log?.fileOffset ?? 0,
    file: log?.file ?? NO_FD,
    doorbell: state.logDoorbell ?? NO_FD,
  });
  INFLIGHT.write(view, logAt + LOG.size, {
    size: inflight?.size ?? 0,
    fileOffset: inflight?.fileOffset ?? 0,
    file: inflight?.file ?? NO_FD,
    queues: inflight?.queues ?? 0,
    entries: inflight?.entries ?? 0,
  });
  return bytes;
}

function writeRing(view: DataView, at: number, { addresses, place, ...ring }: SavedRing): void {
  RING.write(view, at, {
    flags:
      (ring.enabled ? ENABLED : 0) |
      (ring.runs ? RUNS : 0) |
      (ring.logged ? LOGGED : 0) |
      (ring.noted ? NOTED : 0) |
      (addresses === undefined ? 0 : HAS_ADDRESSES) |
      (place === undefined ? 0 : HAS_PLACE),
    size: ring.size,
    base: ring.base,
    kick: ring.kick ?? NO_FD,
    call: ring.call ?? NO_FD,
    error: ring.error ?? NO_FD,
    descriptorTable: addresses?.descriptorTable ?? 0,
    availRing: addresses?.availRing ?? 0,
    usedRing: addresses?.usedRing ?? 0,
    placeSize: place?.config.size ?? 0,
    placeBase: place?.base ?? 0,
    placeUnreturned: place?.unreturnedBase ?? 0,
    placeFeatures: place?.config.features ?? 0n,
    descriptorArea: place?.config.descriptorArea ?? 0,
    driverArea: place?.config.driverArea ?? 0,
    deviceArea: place?.config.deviceArea ?? 0,
  });
}

/**
 * Reads what {@link encodeSession} wrote, with which `fds` descriptors came.
 * @throws SessionStateError
 */
export function decodeSession(bytes: Uint8Array, fds: number): SessionState {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  demand(bytes.length >= REGIONS_AT, 'it is cut short');
  const header = HEADER.read(view);
  const known = header.version >= VERSION_WITHOUT_LOG && header.version <= VERSION;
  const hasLog = header.version > VERSION_WITHOUT_LOG;
  const hasInflight = header.version > VERSION_WITHOUT_INFLIGHT;
  demand(header.magic === MAGIC && known, 'it is none of this version');
  demand(
    (header.flags & ~(NEGOTIATED | OWNED | LOGS_ALL)) === 0 && header.status <= 0xff,
    'its flags are unknown',
  );
  demand(header.regions <= MEM_SLOTS_MAX && header.rings <= RINGS_MAX, 'it has too many regions or rings');
  demand(header.fds === fds && fds <= FDS_MAX, `it needs ${header.fds} descriptors, and ${fds} came`);
  const ringsAt = REGIONS_AT + header.regions * REGION.size;
  const logAt = ringsAt + header.rings * RING.size;
  const inflightAt = logAt + (hasLog ? LOG.size : 0);
  const end = inflightAt + (hasInflight ? INFLIGHT.size : 0);
  demand(bytes.length === end, 'its length is not what its header says');
  const configWritten = bytes.slice(CONFIG_AT + CONFIG_BYTES_MAX, REGIONS_AT);
  demand(
    configWritten.every(mark => mark <= 1),
    'its configuration space is damaged',
  );
  const indices = new FdIndices(fds);
  const state: SessionState = {
    features: (header.flags & NEGOTIATED) === 0 ? undefined : header.features,
    protocolFeatures: header.protocolFeatures,
    status: header.status,
    owned: (header.flags & OWNED) !== 0,
    channel: indices.read(header.channel),
    configBytes: bytes.slice(CONFIG_AT, CONFIG_AT + CONFIG_BYTES_MAX),
    configWritten,
    regions: Array.from({ length: header.regions }, (_, index) => {
      const region = REGION.read(view, REGIONS_AT + index * REGION.size);
      const addresses = [region.guestAddress, region.size, region.userAddress, region.fileOffset];
      demand(addresses.every(Number.isSafeInteger), 'it has a region beyond all addresses');
      return { ...region, file: indices.read(region.file) };
    }),
    rings: Array.from({ length: header.rings }, (_, index) =>
      readRing(view, ringsAt + index * RING.size, indices),
    ),
    logsAll: (header.flags & LOGS_ALL) !== 0,
    ...(hasLog ? readLog(view, logAt, indices) : NO_LOG),
    inflight: hasInflight ? readInflight(view, inflightAt, indices) : undefined,
  };
  demand(indices.allNamed, 'it has descriptors that nothing needs');
  return state;
}

const NO_LOG = { log: undefined, logDoorbell: undefined } as const;

function readLog(view: DataView, at: number, indices: FdIndices): Pick<SessionState, 'log' | 'logDoorbell'> {
  const { size, fileOffset, file, doorbell } = LOG.read(view, at);
  demand([size, fileOffset].every(Number.isSafeInteger), 'it has a log beyond all addresses');
  const log = size === 0 ? undefined : { size, fileOffset, file: indices.read(file) };
  return { log, logDoorbell: indices.read(doorbell) };
}

function readInflight(view: DataView, at: number, indices: FdIndices): SavedInflight | undefined {
  const { file, ...area } = INFLIGHT.read(view, at);
  demand(
    [area.size, area.fileOffset].every(Number.isSafeInteger),
    'what is in flight is beyond all addresses',
  );
  const index = indices.read(file);
  return area.size === 0 ? undefined : { ...area, file: index };
}

function readRing(view: DataView, at: number, indices: FdIndices): SavedRing {
  const ring = RING.read(view, at);
  demand(
    (ring.flags & ~(ENABLED | HAS_ADDRESSES | HAS_PLACE | RUNS | LOGGED | NOTED)) === 0,
    'its flags are unknown',
  );
  demand((ring.flags & RUNS) === 0 || (ring.flags & HAS_PLACE) !== 0, 'it has a ring that runs nowhere');
  demand(ring.size <= QUEUE_SIZE_MAX && ring.placeSize <= QUEUE_SIZE_MAX, 'it has a ring that is too large');
  const { descriptorTable, availRing, usedRing, descriptorArea, driverArea, deviceArea } = ring;
  const all = [descriptorTable, availRing, usedRing, descriptorArea, driverArea, deviceArea];
  demand(all.every(Number.isSafeInteger), 'it has a ring beyond all addresses');
  const config = {
    size: ring.placeSize,
    features: ring.placeFeatures,
    descriptorArea,
    driverArea,
    deviceArea,
  };
  return {
    size: ring.size,
    base: ring.base,
    enabled: (ring.flags & ENABLED) !== 0,
    runs: (ring.flags & RUNS) !== 0,
    logged: (ring.flags & LOGGED) !== 0,
    noted: (ring.flags & NOTED) !== 0,
    addresses: (ring.flags & HAS_ADDRESSES) === 0 ? undefined : { descriptorTable, availRing, usedRing },
    place:
      (ring.flags & HAS_PLACE) === 0
        ? undefined
        : { config, base: ring.placeBase, unreturnedBase: ring.placeUnreturned },
    kick: indices.read(ring.kick),
    call: indices.read(ring.call),
    error: indices.read(ring.error),
  };
}

/** Every descriptor is named once. */
class FdIndices {
  readonly #named: Uint8Array;

  constructor(count: number) {
    this.#named = new Uint8Array(count);
  }

  read(index: number): FdIndex | undefined {
    if (index === NO_FD) return undefined;
    demand(this.#named[index] === 0, `it names descriptor ${index}, which is missing or has another use`);
    this.#named[index] = 1;
    return index;
  }

  get allNamed(): boolean {
    return this.#named.every(named => named === 1);
  }
}

function demand(condition: boolean, complaint: string): asserts condition {
  if (!condition) throw new SessionStateError(complaint);
}
