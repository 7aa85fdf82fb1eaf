/**
 * `aerostat/balloon`: the memory balloon. What driver and device agree on, for every ABI (profiles, formats of page lists,
 * hint sessions, requests, statistics), and the device itself, a `VirtioDevice` that a back-end of `aerostat/vhost-user` or
 * a test's queue drives. It stands in this room, and not in `balloon/`, because the device is above what it shows.
 */
export {
  CONFIG,
  CONFIG_BYTES_BASE,
  CONFIG_BYTES_HINT,
  CONFIG_BYTES_POISON,
} from '../balloon/config-space.ts';
export {
  type BalloonFeature,
  DEFLATE_ON_OOM,
  FREE_PAGE_HINT,
  FREE_PAGE_QUEUE,
  HINTING,
  MUST_TELL_HOST,
  PAGE_LIST,
  PAGE_POISON,
  PAGE_REPORTING,
  type QueueRole,
  STATS_VQ,
} from '../balloon/features.ts';
export {
  HINT_COMMAND_BYTES,
  HINT_DONE,
  HINT_ID_MIN,
  HINT_STOP,
  type HintPhase,
  HintResponder,
  type HintResponderState,
  HintSession,
} from '../balloon/hint-session.ts';
export {
  LIST_BYTES_MAX,
  LIST_EXTENTS_MAX,
  PageList,
  PageListError,
  type PageListFault,
} from '../balloon/page-list.ts';
export {
  type DecodePace,
  EncodeCursor,
  type EncodeLimits,
  type PageListFormat,
} from '../balloon/page-list-format.ts';
export {
  DEFAULT_PROFILE,
  listFormat,
  PROFILE_NAMES,
  type Profile,
  type ProfileName,
  profile,
  profileFeatureNames,
  queueRoles,
} from '../balloon/profiles.ts';
export {
  DROP_CACHE,
  GET_UNUSED_PAGES,
  type Request,
  type RequestProtocol,
  SHRINK,
} from '../balloon/request-messages.ts';
export {
  decodeStatistics,
  encodeStatistics,
  STATISTIC_BYTES,
  STATISTIC_NAMES,
  STATS_BYTES_MAX,
  type StatisticName,
  type Statistics,
  StatisticsError,
} from '../balloon/statistics.ts';
export { AerostatError, type ErrorCode, InvariantError, SystemError } from '../sys/error.ts';
export { type MonotonicClock, processClock } from '../sys/monotonic.ts';
export { BalloonDevice, type BalloonDeviceOptions } from './balloon-device.ts';
export type { DeviceHost } from './device-host.ts';
export type { DeviceObserver } from './device-observer.ts';
export { DISCARD_MODES, type DiscardMode } from './discard-mode.ts';
export type { PageAccount } from './page-account.ts';
