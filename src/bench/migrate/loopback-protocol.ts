/** What `bench migrate`'s loopback measurement and the process of its destination say to each other. */

/** How memory gets from one process to the other: as a migration, or as a program that knows nothing of pages does it. */
export type CopyKind = 'plain' | 'migration';

export type ToLoopbackPeer =
  /** Make room for so many bytes, all of them zeros, and listen. */
  { readonly kind: 'arm'; readonly copy: CopyKind; readonly bytes: number; readonly connections: number };

export type FromLoopbackPeer =
  | { readonly kind: 'listening'; readonly port: number }
  /** Every byte is in memory, or the guest runs. */
  | { readonly kind: 'arrived' }
  /** What arrived last, seen afterwards: a digest of some of its pages, and what it cost. */
  | {
      readonly kind: 'seen';
      readonly digest: string;
      readonly residentBytes: number;
      readonly cpuMs: number;
    }
  | { readonly kind: 'failed'; readonly message: string };

/** Bytes that a plain copy moves at once, as much as a migration does. */
export const PLAIN_BYTES = 2 ** 20;
/** A plain connection begins with the offset of what it brings, as le64. */
export const PLAIN_HEAD_BYTES = 8;
