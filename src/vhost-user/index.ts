/**
 * `aerostat/vhost-user`: both sides of the vhost-user protocol. A back-end is a device that implements
 * `VirtioDevice` and a `BackendConnection` that joins it to a socket; a program that wants something in between
 * feeds a `BackendSession` itself. A front-end is a `VhostUserFrontend`, which a driver uses as its
 * `VirtioTransport`. Both live in the turns of a `Reactor`.
 */
export { AerostatError, type ErrorCode, InvariantError, SystemError } from '../sys/error.ts';
export { closeAll, createEventFd, OwnedFd } from '../sys/fd.ts';
export { Reactor, type Readiness, type Timer, type Watch } from '../sys/poll.ts';
export { UnixListener, UnixSocket } from '../sys/socket.ts';
export type { Doorbell, StopReason, VirtioDevice } from '../virtio/device.ts';
export { DEVICE_STATUS, type InterruptedQueue, type VirtioTransport } from '../virtio/transport.ts';
export { BackendConnection, type BackendConnectionOptions } from './backend-connection.ts';
export { BACKEND_PROTOCOL_FEATURES } from './backend-features.ts';
export { BackendSession } from './backend-session.ts';
export { Connection, type Message, type ReceiveResult } from './connection.ts';
export {
  VhostUserDisconnectedError,
  VhostUserRefusedError,
  VhostUserTimeoutError,
  VhostUserUnsupportedError,
} from './frontend-errors.ts';
export {
  ANSWER_MS_MAX,
  FRONTEND_PROTOCOL_FEATURES,
  type FrontendOptions,
  VhostUserFrontend,
  VRING_SIZE_MAX,
} from './frontend-session.ts';
export { MessageStream, type StreamListener } from './message-stream.ts';
export {
  BACKEND_REQUEST,
  CONFIG_BYTES_MAX,
  F_LOG_ALL,
  F_PROTOCOL_FEATURES,
  FRONTEND_REQUEST,
  type FrontendRequest,
  MEM_SLOTS_MAX,
  MEM_TABLE_REGIONS_MAX,
  MEMORY_BYTES_MAX,
  PROTOCOL_FEATURE,
  requestName,
  VhostUserError,
} from './protocol.ts';
export { type DeviceServerOptions, serveDevice } from './serve-device.ts';
export type { SessionHost } from './session-host.ts';
export { createSharedMemory, type SharedMemoryOptions, USER_ADDRESS_OFFSET } from './shared-memory.ts';
