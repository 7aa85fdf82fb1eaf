/** What a back-end offers of the protocol itself; what its device offers is the device's. */
import { F_LOG_ALL, F_PROTOCOL_FEATURES, PROTOCOL_FEATURE } from './protocol.ts';

/** What this back-end can do beyond the base protocol. */
export const BACKEND_PROTOCOL_FEATURES =
  PROTOCOL_FEATURE.MQ |
  PROTOCOL_FEATURE.LOG_SHMFD |
  PROTOCOL_FEATURE.REPLY_ACK |
  PROTOCOL_FEATURE.BACKEND_REQ |
  PROTOCOL_FEATURE.CONFIG |
  PROTOCOL_FEATURE.INFLIGHT_SHMFD |
  PROTOCOL_FEATURE.RESET_DEVICE |
  PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS |
  PROTOCOL_FEATURE.STATUS;

/**
 * What is offered to a front-end. One that is `kept` for another process needs no note of what is in flight, for that one
 * knows where the rings stand; and a reply that is sent once, whatever happens, has no descriptor. `saved`: the device can be.
 */
export const offeredProtocolFeatures = ({ kept, saved }: { kept: boolean; saved: boolean }): bigint =>
  (kept ? BACKEND_PROTOCOL_FEATURES & ~PROTOCOL_FEATURE.INFLIGHT_SHMFD : BACKEND_PROTOCOL_FEATURES) |
  (saved ? PROTOCOL_FEATURE.DEVICE_STATE : 0n);

/** Feature bits that are the transport's, beside the device's. */
export const TRANSPORT_FEATURES = F_PROTOCOL_FEATURES | F_LOG_ALL;
