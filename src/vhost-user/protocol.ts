/**
 * The vhost-user protocol's words: request codes, feature bits, message layouts, and for every request how
 * many descriptors may ride on it. Syntax alone; what a request means in which state is the session's
 * business. Source: "Vhost-user Protocol", QEMU documentation.
 */
import { AerostatError, InvariantError } from '../sys/error.ts';
import { struct } from '../sys/struct.ts';

/** What a peer sent breaks the protocol. `fatal`: the byte stream itself can no longer be followed. */
export class VhostUserError extends AerostatError {
  readonly fatal: boolean;

  constructor(message: string, { fatal = false }: { fatal?: boolean } = {}) {
    super('AEROSTAT_VHOST_USER', message);
    this.fatal = fatal;
  }
}

/** Whether a request can be refused for it: what a peer did, or the kernel, and the conversation can go on. */
export const isRefusal = (error: unknown): error is AerostatError =>
  error instanceof AerostatError &&
  !(error instanceof InvariantError) &&
  !(error instanceof VhostUserError && error.fatal);

export const HEADER = struct('vhost-user header', 12, {
  request: ['u32', 0],
  flags: ['u32', 4],
  size: ['u32', 8],
});

export const FLAG_VERSION = 0x1;
export const FLAG_VERSION_MASK = 0x3;
export const FLAG_REPLY = 0x4;
export const FLAG_NEED_REPLY = 0x8;

/**
 * The longest payload that any message may have. The longest that the protocol defines is a configuration
 * access of 12 + 256 bytes or a memory table of 8 + 8 x 32; the rest is room for what is to come.
 */
export const PAYLOAD_BYTES_MAX = 4096;
/** Regions in one SET_MEM_TABLE (VHOST_MEMORY_BASELINE_NREGIONS). */
export const MEM_TABLE_REGIONS_MAX = 8;
/**
 * Regions that ADD_MEM_REG may bring the table to. Each costs a descriptor and a bitmap; 509 is what the
 * kernel's vhost and other back-ends settled on.
 */
export const MEM_SLOTS_MAX = 509;
/**
 * Guest memory in all. Back-ends keep bits for every page, so a sparse file that costs its front-end nothing
 * could cost us everything; 16 TiB need half a gigabyte a bitmap, and are more than machines have.
 */
export const MEMORY_BYTES_MAX = 2 ** 44;
/** VHOST_USER_MAX_CONFIG_SIZE. */
export const CONFIG_BYTES_MAX = 256;

/** Requests of the front-end that we know, by name. */
export const FRONTEND_REQUEST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SET_BACKEND_REQ_FD: 21,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  RESET_DEVICE: 34,
  VRING_KICK: 35,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
  SET_DEVICE_STATE_FD: 42,
  CHECK_DEVICE_STATE: 43,
} as const;

export type FrontendRequest = keyof typeof FRONTEND_REQUEST;

const REQUEST_NAMES = new Map<number, FrontendRequest>(
  Object.entries(FRONTEND_REQUEST).map(([name, code]) => [code, name as FrontendRequest]),
);

export const requestName = (code: number): FrontendRequest | undefined => REQUEST_NAMES.get(code);

/** Requests of the back-end. */
export const BACKEND_REQUEST = { CONFIG_CHANGE: 2, VRING_CALL: 4, VRING_ERR: 5 } as const;

const bit = (position: number): bigint => 1n << BigInt(position);

/** Protocol feature bits by name. */
export const PROTOCOL_FEATURE = {
  MQ: bit(0),
  LOG_SHMFD: bit(1),
  REPLY_ACK: bit(3),
  BACKEND_REQ: bit(5),
  CONFIG: bit(9),
  BACKEND_SEND_FD: bit(10),
  INFLIGHT_SHMFD: bit(12),
  RESET_DEVICE: bit(13),
  INBAND_NOTIFICATIONS: bit(14),
  CONFIGURE_MEM_SLOTS: bit(15),
  STATUS: bit(16),
  DEVICE_STATE: bit(19),
} as const;

/** The virtio feature bit by which the two sides agree to negotiate protocol features. */
export const F_PROTOCOL_FEATURES = bit(30);
/** The virtio feature bit by which a front-end has all writes to guest memory logged. */
export const F_LOG_ALL = bit(26);

/** Where a ring's three parts lie: the front-end's own addresses. */
export interface VringAddresses {
  readonly descriptorTable: number;
  readonly availRing: number;
  readonly usedRing: number;
}

export const U64 = struct('u64 payload', 8, { value: ['bits64', 0] });
export const VRING_STATE = struct('vring state', 8, { index: ['u32', 0], num: ['u32', 4] });
/** Addresses are the front-end's own (user) addresses. */
export const VRING_ADDRESSES = struct('vring addresses', 40, {
  index: ['u32', 0],
  flags: ['u32', 4],
  descriptorTable: ['u64', 8],
  usedRing: ['u64', 16],
  availRing: ['u64', 24],
  log: ['u64', 32],
});
/** SET_VRING_ADDR: what the back-end writes into the ring is to be logged. */
export const VRING_FLAG_LOG = 1;
/** SET_LOG_BASE: where in its file the log lies. */
export const LOG_AREA = struct('log area', 16, { size: ['u64', 0], offset: ['u64', 8] });
/** SET_DEVICE_STATE_FD: which way the state goes (0 saved, 1 loaded), and while what (0: the device is stopped). */
export const DEVICE_STATE_TRANSFER = struct('device state transfer', 8, {
  direction: ['u32', 0],
  phase: ['u32', 4],
});
/** GET_INFLIGHT_FD and SET_INFLIGHT_FD. */
export const INFLIGHT_AREA = struct('area of what is in flight', 20, {
  size: ['u64', 0],
  offset: ['u64', 8],
  queues: ['u16', 16],
  queueSize: ['u16', 18],
});
/** The same as C lays it out. */
export const INFLIGHT_PADDED_BYTES = 24;
/** In an answer to it: no descriptor comes with the answer. */
export const NO_DESCRIPTOR = 0x100n;
export const MEM_TABLE_HEADER = struct('memory table header', 8, { regions: ['u32', 0] });
export const MEM_REGION = struct('memory region', 32, {
  guestAddress: ['u64', 0],
  size: ['u64', 8],
  userAddress: ['u64', 16],
  mmapOffset: ['u64', 24],
});
/** ADD_MEM_REG and REM_MEM_REG carry 8 bytes of padding before the region. */
export const SINGLE_REGION_PADDING = 8;
export const CONFIG_HEADER = struct('configuration header', 12, {
  offset: ['u32', 0],
  size: ['u32', 4],
  flags: ['u32', 8],
});

/** SET_VRING_KICK, CALL and ERR: bits 0-7 the ring's index, bit 8 "no descriptor, poll instead". */
export const VRING_FD_INDEX_MASK = 0xffn;
export const VRING_FD_NONE = 0x100n;

/** How many descriptors a request brings: none, exactly one, at most one, or one a region. */
type DescriptorPolicy = 'none' | 'one' | 'optional' | 'regions';

export interface Shape {
  /** Payload bytes, exactly; or the least, for messages with a list. */
  readonly size: number;
  readonly exact: boolean;
}

interface RequestShape extends Shape {
  readonly descriptors: DescriptorPolicy;
}

const plain = (size: number): RequestShape => ({ descriptors: 'none', size, exact: true });
const withDescriptor = (size: number, descriptors: DescriptorPolicy): RequestShape => ({
  descriptors,
  size,
  exact: true,
});

/** Shape of every request that this back-end takes; one without a shape is refused. */
export const REQUEST_SHAPES: Readonly<Partial<Record<FrontendRequest, RequestShape>>> = {
  GET_FEATURES: plain(0),
  SET_FEATURES: plain(U64.size),
  SET_OWNER: plain(0),
  RESET_OWNER: plain(0),
  SET_MEM_TABLE: { descriptors: 'regions', size: MEM_TABLE_HEADER.size, exact: false },
  SET_LOG_BASE: withDescriptor(LOG_AREA.size, 'one'),
  SET_LOG_FD: withDescriptor(0, 'one'),
  SET_VRING_NUM: plain(VRING_STATE.size),
  SET_VRING_ADDR: plain(VRING_ADDRESSES.size),
  SET_VRING_BASE: plain(VRING_STATE.size),
  GET_VRING_BASE: plain(VRING_STATE.size),
  SET_VRING_KICK: withDescriptor(U64.size, 'optional'),
  SET_VRING_CALL: withDescriptor(U64.size, 'optional'),
  SET_VRING_ERR: withDescriptor(U64.size, 'optional'),
  GET_PROTOCOL_FEATURES: plain(0),
  SET_PROTOCOL_FEATURES: plain(U64.size),
  GET_QUEUE_NUM: plain(0),
  SET_VRING_ENABLE: plain(VRING_STATE.size),
  SET_BACKEND_REQ_FD: withDescriptor(0, 'one'),
  GET_CONFIG: { descriptors: 'none', size: CONFIG_HEADER.size, exact: false },
  SET_CONFIG: { descriptors: 'none', size: CONFIG_HEADER.size, exact: false },
  RESET_DEVICE: plain(0),
  GET_MAX_MEM_SLOTS: plain(0),
  ADD_MEM_REG: withDescriptor(SINGLE_REGION_PADDING + MEM_REGION.size, 'one'),
  // Some front-ends send the region's descriptor along although nothing is to be mapped.
  REM_MEM_REG: withDescriptor(SINGLE_REGION_PADDING + MEM_REGION.size, 'optional'),
  SET_STATUS: plain(U64.size),
  GET_STATUS: plain(0),
  GET_INFLIGHT_FD: { descriptors: 'none', size: INFLIGHT_AREA.size, exact: false },
  SET_INFLIGHT_FD: { descriptors: 'one', size: INFLIGHT_AREA.size, exact: false },
  SET_DEVICE_STATE_FD: withDescriptor(DEVICE_STATE_TRANSFER.size, 'one'),
  CHECK_DEVICE_STATE: plain(0),
};

/** Requests that have a reply of their own, and its shape; all others are at most acknowledged, with a u64. */
export const REPLY_SHAPES = {
  GET_FEATURES: { size: U64.size, exact: true },
  GET_PROTOCOL_FEATURES: { size: U64.size, exact: true },
  GET_QUEUE_NUM: { size: U64.size, exact: true },
  SET_LOG_BASE: { size: U64.size, exact: true },
  GET_VRING_BASE: { size: VRING_STATE.size, exact: true },
  GET_CONFIG: { size: CONFIG_HEADER.size, exact: false },
  GET_MAX_MEM_SLOTS: { size: U64.size, exact: true },
  GET_STATUS: { size: U64.size, exact: true },
  GET_INFLIGHT_FD: { size: INFLIGHT_AREA.size, exact: false },
  SET_DEVICE_STATE_FD: { size: U64.size, exact: true },
  CHECK_DEVICE_STATE: { size: U64.size, exact: true },
} as const satisfies Partial<Record<FrontendRequest, Shape>>;

export type RequestWithReply = keyof typeof REPLY_SHAPES;

/** Why a request's size or number of descriptors is wrong, or undefined when it is right. */
export function faultOfShape(
  request: FrontendRequest,
  size: number,
  descriptors: number,
): string | undefined {
  const shape = REQUEST_SHAPES[request];
  if (shape === undefined) return 'is not supported';
  if (shape.exact ? size !== shape.size : size < shape.size) {
    return `has ${size} bytes of payload instead of ${shape.exact ? '' : 'at least '}${shape.size}`;
  }
  switch (shape.descriptors) {
    case 'none':
      return descriptors === 0 ? undefined : `brought ${descriptors} descriptors and takes none`;
    case 'one':
      return descriptors === 1 ? undefined : `brought ${descriptors} descriptors instead of one`;
    case 'optional':
      return descriptors <= 1 ? undefined : `brought ${descriptors} descriptors and takes at most one`;
    case 'regions':
      return descriptors <= MEM_TABLE_REGIONS_MAX ? undefined : `brought ${descriptors} descriptors`;
  }
}

/** Whether a request says that descriptors come with it. */
export function announcesFds(request: number, payload: DataView): boolean {
  const name = requestName(request);
  const policy = (name && REQUEST_SHAPES[name])?.descriptors ?? 'none';
  const ofRing = name === 'SET_VRING_KICK' || name === 'SET_VRING_CALL' || name === 'SET_VRING_ERR';
  if (!ofRing || payload.byteLength < U64.size) return policy !== 'none';
  return (U64.read(payload).value & VRING_FD_NONE) === 0n;
}
