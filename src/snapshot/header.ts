/**
 * The first bytes of a snapshot's file: that it is one, of which version, of which guest and when. What follows is a
 * migration's stream (docs/migration-stream.md), up to and including `end`; docs/snapshots.md describes both.
 */
import { createHash } from 'node:crypto';
import { struct } from '../sys/struct.ts';

const MAGIC = 0x50414e534f524541n; // "AEROSNAP"
const SNAPSHOT_VERSION = 1;
/** Bytes that name one snapshot among all; the stream's `hello` has the same. */
const SNAPSHOT_ID_BYTES = 16;
/** A guest's name is no longer. */
const NAME_BYTES = 64;
/** The names that a guest may have; others are not believed. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** The last millisecond that a `Date` can be. */
const TIME_MS_MAX = 8.64e15;

const SNAPSHOT_HEADER = struct('snapshot header', 128, {
  magic: ['bits64', 0],
  version: ['u32', 8],
  /** Bytes of the name; the name follows the fields, and zeros follow it. */
  nameBytes: ['u32', 12],
  /** When it was begun, in milliseconds since 1970. */
  createdMs: ['u64', 16],
  idLow: ['bits64', 24],
  idHigh: ['bits64', 32],
  /** Of the header with this field 0. */
  checksum: ['bits64', 40],
});
const NAME_AT = 48;

export const SNAPSHOT_HEADER_BYTES = SNAPSHOT_HEADER.size;

export interface SnapshotHeader {
  readonly name: string;
  readonly createdMs: number;
  readonly id: Uint8Array;
}

/** Why bytes are not the header of a snapshot that this program reads, in words that say what to do. */
export class HeaderRefused extends Error {}

const checksumOf = (bytes: Uint8Array): bigint => {
  const copy = Buffer.from(bytes);
  copy.writeBigUInt64LE(0n, SNAPSHOT_HEADER.offset.checksum);
  return createHash('sha256').update(copy).digest().readBigUInt64LE(0);
};

export const beginsLikeSnapshot = (bytes: Uint8Array): boolean =>
  bytes.length >= 8 && new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true) === MAGIC;

export function encodeHeader({ name, createdMs, id }: SnapshotHeader): Uint8Array {
  const named = new TextEncoder().encode(name).subarray(0, NAME_BYTES);
  const ids = new DataView(id.buffer, id.byteOffset, SNAPSHOT_ID_BYTES);
  const bytes = SNAPSHOT_HEADER.encode({
    magic: MAGIC,
    version: SNAPSHOT_VERSION,
    nameBytes: named.length,
    createdMs,
    idLow: ids.getBigUint64(0, true),
    idHigh: ids.getBigUint64(8, true),
    checksum: 0n,
  });
  bytes.set(named, NAME_AT);
  sealHeader(bytes);
  return bytes;
}

/** Writes the checksum of a header whose other bytes are in place. */
export function sealHeader(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  view.setBigUint64(SNAPSHOT_HEADER.offset.checksum, checksumOf(bytes), true);
}

/** @throws HeaderRefused */
export function decodeHeader(bytes: Uint8Array): SnapshotHeader {
  if (!beginsLikeSnapshot(bytes)) {
    throw new HeaderRefused('it is no snapshot of aerostat; give a file that aerostat snapshot wrote');
  }
  if (bytes.length < SNAPSHOT_HEADER_BYTES) {
    throw new HeaderRefused('it is cut short; restore another copy of it, or take a new snapshot');
  }
  const header = SNAPSHOT_HEADER.read(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
  // Before anything else is read: another version may have other fields.
  if (header.version !== SNAPSHOT_VERSION) {
    throw new HeaderRefused(
      `it is of version ${header.version}, and this program reads ${SNAPSHOT_VERSION}; restore it with the release that wrote it`,
    );
  }
  if (checksumOf(bytes.subarray(0, SNAPSHOT_HEADER_BYTES)) !== header.checksum) {
    throw new HeaderRefused('its header is damaged; restore another copy of it, or take a new snapshot');
  }
  const { nameBytes, createdMs } = header;
  const named = bytes.subarray(NAME_AT, NAME_AT + Math.min(nameBytes, NAME_BYTES));
  const name = new TextDecoder().decode(named);
  if (nameBytes > NAME_BYTES || !NAME.test(name)) {
    throw new HeaderRefused("the name in its header cannot be a guest's; take a new snapshot");
  }
  if (createdMs > TIME_MS_MAX) {
    throw new HeaderRefused('the time in its header cannot be; take a new snapshot');
  }
  const id = new Uint8Array(SNAPSHOT_ID_BYTES);
  const ids = new DataView(id.buffer);
  ids.setBigUint64(0, header.idLow, true);
  ids.setBigUint64(8, header.idHigh, true);
  return { name, createdMs, id };
}
