/**
 * A send that lies in memory which outlives the process: the kernel notes there, in the same call, that it was made
 * ({@link ./socket.ts} makes it). So another process knows whether it was.
 */
import type { OwnedFd } from './fd.ts';
import { CMSGHDR, IOVEC, MSGHDR, SCM_RIGHTS, SOL_SOCKET } from './message-header.ts';

/** Memory with an address. */
export interface AddressedBytes {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

const MARKED_AT = MSGHDR.size;
const MARKED_IOVEC_AT = 64;
/** Bytes of a marked send: mmsghdr and iovec. */
export const MARKED_SEND_BYTES = MARKED_IOVEC_AT + IOVEC.size;
/** Bytes of what says which descriptor goes with it. */
export const MARKED_CONTROL_BYTES = CMSGHDR.size + 8;

/** A descriptor that goes with a marked send, and where in the same memory there is room to say so. */
interface MarkedDescriptor {
  readonly fd: OwnedFd;
  readonly controlAt: number;
}

/** Prepares, in `memory` at `at`, the sending of `length` bytes that are in the same memory at `from`. */
export function prepareMarkedSend(
  { address, view }: AddressedBytes,
  at: number,
  from: number,
  length: number,
  descriptor?: MarkedDescriptor,
): void {
  if (descriptor !== undefined) {
    const { fd, controlAt } = descriptor;
    const said = { length: CMSGHDR.size + 4, level: SOL_SOCKET, type: SCM_RIGHTS };
    CMSGHDR.write(view, controlAt, said);
    view.setInt32(controlAt + CMSGHDR.size, fd.number, true);
  }
  IOVEC.write(view, at + MARKED_IOVEC_AT, { base: address + from, length });
  const iov = address + at + MARKED_IOVEC_AT;
  MSGHDR.write(view, at, {
    name: 0,
    nameLength: 0,
    iov,
    iovCount: 1,
    control: descriptor === undefined ? 0 : address + descriptor.controlAt,
    controlLength: descriptor === undefined ? 0 : MARKED_CONTROL_BYTES,
    flags: 0,
  });
  view.setUint32(at + MARKED_AT, 0, true);
}

/** Whether it was sent, by whichever process. */
export const wasSent = ({ view }: AddressedBytes, at: number): boolean =>
  view.getUint32(at + MARKED_AT, true) !== 0;
