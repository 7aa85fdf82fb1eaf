/**
 * `aerostat`: a daemon steered from a program, through its API as the command line steers it, and the errors that every
 * part of the package throws. Building devices and drivers is in `aerostat/virtio`, `aerostat/vhost-user` and
 * `aerostat/memory`; docs/library.md shows both.
 */
export {
  type DaemonStatus,
  type DiscardMode,
  GUEST_REQUESTS,
  type GuestCounters,
  type GuestEvent,
  type GuestEventType,
  type GuestRequest,
  type GuestStatistics,
  type GuestStatus,
  type HintAction,
  type HintState,
  type HintStatus,
  type HostStatus,
  type RequestAnswer,
  type StatisticsSample,
} from './control/contract.ts';
export type { MapOptions, MemoryMap } from './control/memory-map.ts';
export type { MigrationAnswer, MigrationOrder, MigrationStatus } from './control/migrations.ts';
export type { Control, GuestControl } from './control/operations.ts';
export {
  type ApiAddress,
  ApiAddressError,
  formatAddress,
  parseAddress,
  resolveAddress,
} from './server/address.ts';
export { type ClientOptions, RemoteError, remoteControl, UnreachableError } from './server/client.ts';
export { AerostatError, type ErrorCode, InvariantError, SystemError } from './sys/error.ts';
