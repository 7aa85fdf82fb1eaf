/** What a back-end offers of the protocol itself; what its device offers is the device's. */
import { F_LOG_ALL, F_PROTOCOL_FEATURES, PROTOCOL_FEATURE } from './protocol.ts';

/** What this back-end can do beyond the base protocol. */
export const BACKEND_PROTOCOL_FEATURES =
  PROTOCOL_FEATURE.MQ |
  PROTOCOL_FEATURE.LOG_SHMFD |
  PROTOCOL_FEATURE.REPLY_ACK |
  PROTOCOL_FEATURE.BACKEND_REQ |
  PROTOCOL_FEATURE.CONFIG |
  PROTOCOL_FEATURE.RESET_DEVICE |
  PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS |
  PROTOCOL_FEATURE.STATUS;

/** The same for a front-end that is kept for another process, which could not go on with a log of writes. */
export const KEPT_PROTOCOL_FEATURES = BACKEND_PROTOCOL_FEATURES & ~PROTOCOL_FEATURE.LOG_SHMFD;

/** Feature bits that are the transport's, beside the device's. */
export const TRANSPORT_FEATURES = F_PROTOCOL_FEATURES | F_LOG_ALL;
