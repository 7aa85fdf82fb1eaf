/** How a driver can be set up: what may be tuned, within which bounds, and what Linux does where nothing is said. */

import type { EncodeLimits, PageListFormat } from '../balloon/page-list-format.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { ORDER_MAX } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import { RING_EVENT_IDX, RING_INDIRECT_DESC } from '../virtio/features.ts';
import { QUEUE_SIZE_MAX } from '../virtio/queue.ts';
import type { PageChannelOptions } from './page-channel.ts';

export interface DriverTuning {
  /** Balloon features that may be taken; all that the profile knows unless said otherwise. */
  readonly features: bigint;
  /** Features of the rings that may be taken: RING_PACKED, RING_EVENT_IDX, RING_INDIRECT_DESC, IN_ORDER. */
  readonly ringFeatures: bigint;
  /** Rings are no larger than this, nor than the device allows. */
  readonly queueSizeMax: number;
  /** Page frame numbers in one buffer, where lists are arrays of them: 16 to 65536. Linux has 256. */
  readonly pfnsPerBuffer: number;
  /**
   * Inflate or deflate buffers that may be with the host at once; null is what the drivers did: one, but for sg a
   * whole ring.
   */
  readonly depth: number | null;
  /** Whether pages are sorted before they are listed; null: wherever the format names runs. */
  readonly sort: boolean | null;
  /**
   * Whether the next pages are allocated and listed while the host has the last ones, and those that it returned are
   * freed meanwhile. Linux does neither; it costs a buffer's pages of memory and saves the guest's share of the time.
   */
  readonly ahead: boolean;
  /** The largest blocks that inflation asks the guest for; null: the largest there are where the format names runs. */
  readonly orderMax: number | null;
  /** How long the driver waits when the guest has no memory to give; 200 ms in Linux. */
  readonly retryMs: number;
  /** Pages that a guest out of memory gets back at a time; 256 in Linux. */
  readonly oomPages: number;
  /** How long free blocks rest before they are reported; 2 s in Linux. */
  readonly reportingDelayMs: number;
  /** Free blocks that are out of the allocator for reporting at most; 32 in Linux. */
  readonly reportingBlocks: number;
  /** Reports in two halves, of which one is with the host while the other is prepared. */
  readonly reportingPipelined: boolean;
  /** The smallest free blocks that answers to requests name. */
  readonly unusedOrderMin: number;
}

/** What one list of addresses and orders has room for, and what Linux sends in one chain of free blocks. */
export const REPORTING_BLOCKS_MAX = 32;

export const DEFAULT_TUNING: DriverTuning = {
  features: (1n << 64n) - 1n,
  ringFeatures: RING_EVENT_IDX | RING_INDIRECT_DESC,
  queueSizeMax: 256,
  pfnsPerBuffer: 256,
  depth: null,
  sort: null,
  ahead: true,
  orderMax: null,
  retryMs: 200,
  oomPages: 256,
  reportingDelayMs: 2_000,
  reportingBlocks: REPORTING_BLOCKS_MAX,
  reportingPipelined: false,
  unusedOrderMin: 0,
};

export const PFNS_PER_BUFFER_MIN = 16;
export const PFNS_PER_BUFFER_MAX = 65_536;

/** Blocks that are gathered before runs are made of them. More neighbours meet in a larger batch; this one is 256 KiB. */
const RUN_BATCH_BLOCKS = 32_768;
const PFN_BYTES = 4;

export function checkTuning(tuning: DriverTuning): DriverTuning {
  const within = (name: keyof DriverTuning, min: number, max: number) => {
    const value = tuning[name];
    if (value === null) return;
    assert(
      typeof value === 'number' && value >= min && value <= max,
      `${name} is ${value}, not ${min} to ${max}`,
    );
  };
  within('queueSizeMax', 1, QUEUE_SIZE_MAX);
  within('pfnsPerBuffer', PFNS_PER_BUFFER_MIN, PFNS_PER_BUFFER_MAX);
  within('depth', 1, QUEUE_SIZE_MAX);
  within('orderMax', 0, ORDER_MAX);
  within('retryMs', 1, Number.MAX_SAFE_INTEGER);
  within('oomPages', 1, Number.MAX_SAFE_INTEGER);
  within('reportingDelayMs', 0, Number.MAX_SAFE_INTEGER);
  within('reportingBlocks', 1, REPORTING_BLOCKS_MAX);
  within('unusedOrderMin', 0, ORDER_MAX);
  return tuning;
}

/** Blocks of pages are allocated only for lists that get shorter by it. */
export const fillOrderMax = (format: PageListFormat, tuning: DriverTuning): number =>
  tuning.orderMax ?? (format.growsWith === 'runs' ? ORDER_MAX : 0);

/** Where pages are listed one by one, a batch has what a list has, or a block: a larger one would keep a new target waiting. */
export const fillPagesMax = (format: PageListFormat, tuning: DriverTuning): number =>
  format.growsWith === 'pages'
    ? Math.max(tuning.pfnsPerBuffer, 2 ** fillOrderMax(format, tuning))
    : Number.POSITIVE_INFINITY;

/**
 * How large a list is worth being in a guest whose memory ends at `pfnEnd`: no larger than a bitmap of all of it, and a
 * page for what else there is. A list of bitmaps is a mebibyte at most, which is much of a small guest.
 */
export const listLimits = ({ limits }: PageListFormat, pfnEnd: number): EncodeLimits => ({
  bytesMax: Math.min(limits.bytesMax, Math.ceil(pfnEnd / 64) * 8 + PAGE_SIZE),
  extentsMax: limits.extentsMax,
});

export function channelOptions(
  format: PageListFormat,
  tuning: DriverTuning,
  pfnEnd: number,
): PageChannelOptions {
  const single = format.growsWith === 'pages';
  const limits: EncodeLimits = single
    ? { bytesMax: tuning.pfnsPerBuffer * PFN_BYTES, extentsMax: 0 }
    : listLimits(format, pfnEnd);
  // Without bytes the pages themselves are the buffers, and a whole ring of them goes out at once.
  const depth = tuning.depth ?? (limits.bytesMax === 0 ? QUEUE_SIZE_MAX : 1);
  return {
    format,
    limits,
    depth,
    batchBlocks: single ? tuning.pfnsPerBuffer : RUN_BATCH_BLOCKS,
    sort: tuning.sort ?? !single,
    ahead: tuning.ahead,
  };
}
