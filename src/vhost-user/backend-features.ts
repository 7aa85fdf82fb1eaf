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

/** What is offered to a front-end. `saved`: the device can be. */
export const offeredProtocolFeatures = ({ saved }: { saved: boolean }): bigint =>
  BACKEND_PROTOCOL_FEATURES | (saved ? PROTOCOL_FEATURE.DEVICE_STATE : 0n);

/** Feature bits that are the transport's, beside the device's. */
export const TRANSPORT_FEATURES = F_PROTOCOL_FEATURES | F_LOG_ALL;
