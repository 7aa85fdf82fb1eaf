/** Accesses to the configuration space as a front-end asks for them, bounded before the device hears of them. */
import type { VirtioDevice } from '../virtio/device.ts';
import { CONFIG_BYTES_MAX, CONFIG_HEADER, VhostUserError } from './protocol.ts';

/** The reply to GET_CONFIG. @throws VhostUserError */
export function readConfigOf(device: VirtioDevice, body: DataView): Uint8Array {
  const { offset, size, flags } = CONFIG_HEADER.read(body);
  if (offset + size > CONFIG_BYTES_MAX) {
    throw new VhostUserError(`GET_CONFIG of ${size} bytes at ${offset} reaches beyond ${CONFIG_BYTES_MAX}`);
  }
  const reply = new Uint8Array(CONFIG_HEADER.size + size);
  CONFIG_HEADER.write(new DataView(reply.buffer), 0, { offset, size, flags });
  device.readConfig(offset, reply.subarray(CONFIG_HEADER.size));
  return reply;
}

/** What SET_CONFIG writes, and where. @throws VhostUserError */
export function readConfigWrite(body: DataView): { readonly offset: number; readonly bytes: Uint8Array } {
  const { offset, size } = CONFIG_HEADER.read(body);
  if (offset + size > CONFIG_BYTES_MAX || body.byteLength !== CONFIG_HEADER.size + size) {
    throw new VhostUserError(
      `SET_CONFIG of ${size} bytes at ${offset} with ${body.byteLength} bytes of payload`,
    );
  }
  // A copy: the payload's buffer is used again for the next message.
  const start = body.byteOffset + CONFIG_HEADER.size;
  return { offset, bytes: new Uint8Array(body.buffer.slice(start, start + size) as ArrayBuffer) };
}
