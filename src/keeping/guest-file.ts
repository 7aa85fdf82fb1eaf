/**
 * The file in shared memory in which a guest is kept: its layout, declared once, and the file itself. Who writes what of it,
 * and when, is `kept-guest.ts`'s and, for messages, `vhost-user/message-journal.ts`'s.
 *
 * | where | what |
 * |---|---|
 * | 0 | {@link GUEST}: how its device is to be steered, and how it stands to its driver |
 * | {@link RING_LOGS_AT} | where its packed rings stand |
 * | {@link JOURNAL_AT} | the conversation with its front-end |
 * | {@link ACCOUNTS_AT} | the accounts of its balloon, region by region, where the session's record says |
 */
import type { OwnedFd } from '../sys/fd.ts';
import { createMemfd, fileStatus, punchHole } from '../sys/file.ts';
import { check, libc } from '../sys/libc.ts';
import { Mapping } from '../sys/mapping.ts';
import type { AddressedBytes } from '../sys/marked-send.ts';
import { struct } from '../sys/struct.ts';
import { JOURNAL_BYTES } from '../vhost-user/message-journal.ts';

/** "AEKG" in little endian. */
export const GUEST_MAGIC = 0x474b_4541;
/** A newer one reads older ones; of a newer one than its own a daemon touches nothing. */
export const GUEST_VERSION = 4;
/**
 * Older ones differ in what they did not write: 3 has no memory for what is in flight in its sessions, which it did not offer;
 * 2 has no logs of writes, which it did not offer, and no untold pages; 1 does not say where packed rings stand, of which it offered none.
 */
export const GUEST_VERSION_MIN = 1;

export const GUEST = struct('kept guest', 256, {
  magic: ['u32', 0],
  version: ['u32', 4],
  targetPages: ['u32', 8],
  actualPages: ['u32', 12],
  poisonValue: ['u32', 16],
  /** The id of the last hint session, 0 where there was none. */
  hintId: ['u32', 20],
  /** Of {@link TENURE}. */
  tenure: ['u32', 24],
  /** The number of the discard mode. */
  mode: ['u32', 28],
  pollIntervalMs: ['u32', 32],
  /** 1 where the target was given as what the guest is to keep, which is the next. */
  wished: ['u32', 36],
  wishedMemoryBytes: ['u64', 40],
  /** Pages that deflations have taken out of the account, and whose buffers were not returned. */
  untoldPages: ['u32', 48],
});
export const TENURE = { begun: 1, partial: 2, settled: 4, actualKnown: 8 } as const;

/** The profile's name, and its length before it. */
export const PROFILE_AT = GUEST.size;
export const PROFILE_BYTES_MAX = 64;

/** One for each ring. */
export const RING_LOGS_AT = 1024;
export const RING_LOGS = 64;

export const JOURNAL_AT = 4096;
export const ACCOUNTS_AT = Math.ceil((JOURNAL_AT + JOURNAL_BYTES) / 65_536) * 65_536;

/** What is in front of the session's own bytes in its record, with numbers of descriptors and places of accounts behind it. */
export const RECORD = struct('record of a session', 24, {
  fds: ['u32', 0],
  regions: ['u32', 4],
  accountsEnd: ['u64', 8],
});

/** Such a file. Offsets and lengths are multiples of the page size. */
export interface GuestFile {
  /** The memory stays where it is until `close` of it. */
  map(offset: number, length: number): AddressedBytes & { close(): void };
  /** The file has room up to `end`. */
  grow(end: number): void;
  /** Bytes that read as zeros from now on, and cost nothing. */
  punch(offset: number, length: number): void;
  /** As far as it is there. */
  readonly size: number;
  /** By which another process has it, where one can. */
  readonly fd?: OwnedFd;
  close(): void;
}

/** The real one. */
export class MemoryGuestFile implements GuestFile {
  readonly fd: OwnedFd;

  /** Takes ownership. */
  constructor(fd: OwnedFd) {
    this.fd = fd;
  }

  static create(name: string): MemoryGuestFile {
    return new MemoryGuestFile(createMemfd({ name: `aerostat-${name}`, size: ACCOUNTS_AT }));
  }

  get size(): number {
    return fileStatus(this.fd).size;
  }

  map(offset: number, length: number): AddressedBytes & { close(): void } {
    const mapping = Mapping.shared(this.fd.number, offset, length);
    return {
      address: mapping.address,
      bytes: new Uint8Array(mapping.buffer, mapping.offset, length),
      view: new DataView(mapping.buffer, mapping.offset, length),
      close: () => mapping.close(),
    };
  }

  grow(end: number): void {
    if (end > this.size) check('ftruncate', libc.ftruncate(this.fd.number, end), `${end} bytes`);
  }

  punch(offset: number, length: number): void {
    if (length > 0) punchHole(this.fd, offset, length);
  }

  close(): void {
    this.fd.close();
  }
}
