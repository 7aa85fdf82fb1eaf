/** What a bench beside QEMU and the process of its guest say to each other. */
import type { DriverTuning } from '../../driver/options.ts';
import type { PageOrder } from '../page-order.ts';

export interface PeerGuestData {
  /** Where our device listens; null for a QEMU, which this process starts. */
  readonly socketPath: string | null;
  readonly memoryBytes: number;
  readonly balloonBytes: number;
  readonly order: PageOrder;
  readonly tuning: Partial<DriverTuning>;
}

export type FromPeerGuest =
  /** Memory is touched and the driver runs; `qmpPath` is the monitor of a QEMU. */
  | { readonly kind: 'ready'; readonly qmpPath: string | null }
  | {
      readonly kind: 'inflated';
      /** The driver was done, and the host had its memory. */
      readonly settledMs: number;
      readonly backMs: number;
      readonly kicks: number;
      readonly buffers: number;
      /** Of QEMU; null for a device of ours. */
      readonly deviceCpuMs: number | null;
    }
  | { readonly kind: 'deflated'; readonly settledMs: number }
  | { readonly kind: 'failed'; readonly message: string };
