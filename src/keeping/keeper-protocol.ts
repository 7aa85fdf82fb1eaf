/**
 * What a daemon and a keeper of descriptors say to each other over their socket: records of one length, each with one
 * descriptor at most. A daemon asks once for all that is kept; from then on it only tells, and waits for nothing. What it
 * told is the keeper's as soon as it is in the socket, whatever becomes of the daemon.
 */
import { struct } from '../sys/struct.ts';

const RECORD = struct('keeper record', 64, {
  operation: ['u32', 0],
  number: ['u32', 4],
  nameBytes: ['u32', 8],
});

/** A guest's name has 64 characters at most, all of them ASCII. */
const NAME_BYTES_MAX = 64;
export const KEEPER_RECORD_BYTES = RECORD.size + NAME_BYTES_MAX;

export const KEEPER_OPERATION = {
  /** Keep the descriptor that comes with it under the guest's name and the number. */
  keep: 1,
  /** Let go of it. */
  drop: 2,
  /** Let go of all of the guest's. */
  clear: 3,
  /** Send all that is kept, each with its descriptor, and then `end`. */
  take: 4,
  kept: 5,
  end: 6,
} as const;

export interface KeeperRecord {
  readonly operation: number;
  readonly guest: string;
  readonly number: number;
}

export function encodeKeeperRecord({ operation, guest, number }: KeeperRecord): Uint8Array {
  const bytes = new Uint8Array(KEEPER_RECORD_BYTES);
  const name = new TextEncoder().encode(guest).subarray(0, NAME_BYTES_MAX);
  RECORD.write(new DataView(bytes.buffer), 0, { operation, number, nameBytes: name.length });
  bytes.set(name, RECORD.size);
  return bytes;
}

export function decodeKeeperRecord(bytes: Uint8Array): KeeperRecord {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { operation, number, nameBytes } = RECORD.read(view);
  const end = RECORD.size + Math.min(nameBytes, NAME_BYTES_MAX);
  return { operation, number, guest: new TextDecoder().decode(bytes.subarray(RECORD.size, end)) };
}
