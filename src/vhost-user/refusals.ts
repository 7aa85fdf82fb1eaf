/** What a back-end answers to a request that has a reply of its own and is refused: the protocol's way to say "no". */
import {
  CONFIG_HEADER,
  type FrontendRequest,
  INFLIGHT_AREA,
  INFLIGHT_PADDED_BYTES,
  NO_DESCRIPTOR,
  U64,
  VRING_STATE,
} from './protocol.ts';

/** The payload of the reply; undefined for a request that is at most acknowledged. */
export function refusalReply(name: FrontendRequest, body: DataView): Uint8Array | undefined {
  switch (name) {
    // "On failure the back-end replies with a configuration of size 0."
    case 'GET_CONFIG':
      return CONFIG_HEADER.encode({ offset: 0, size: 0, flags: 0 });
    // A front-end that was promised an answer waits for it.
    case 'SET_LOG_BASE':
    case 'CHECK_DEVICE_STATE':
      return U64.encode({ value: 1n });
    // No memory: the front-end goes on without.
    case 'GET_INFLIGHT_FD':
      return new Uint8Array(Math.max(INFLIGHT_AREA.size, Math.min(body.byteLength, INFLIGHT_PADDED_BYTES)));
    case 'SET_DEVICE_STATE_FD':
      return U64.encode({ value: 1n | NO_DESCRIPTOR });
    case 'GET_VRING_BASE':
      return VRING_STATE.encode({ index: body.byteLength >= 4 ? body.getUint32(0, true) : 0, num: 0 });
    default:
      return undefined;
  }
}
