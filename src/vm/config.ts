/**
 * What a machine is, and stays wherever it moves: the state `machine` of a migration. Sizes are not in it, for they are
 * the memory's; what the guest and the device hold is in states of their own.
 */

import { z } from 'zod';
import { PROFILE_NAMES } from '../balloon/profiles.ts';
import { BENCH_DISCARD_MODES } from '../device/discard-mode.ts';
import type { DriverTuning } from '../driver/options.ts';
import { PFNS_PER_BUFFER_MAX, PFNS_PER_BUFFER_MIN, REPORTING_BLOCKS_MAX } from '../driver/options.ts';
import { RING_KINDS } from '../embedded/options.ts';
import { ORDER_MAX } from '../memory/page-blocks.ts';
import { QUEUE_SIZE_MAX } from '../virtio/queue.ts';
import { VmStateError } from './errors.ts';

const VERSION = 1;
/** Longer than any pause that a driver makes. */
const DELAY_MS_MAX = 86_400_000;

const DIRTY_LOGS = ['auto', 'software', 'kernel'] as const;
export type DirtyLogKind = (typeof DIRTY_LOGS)[number];

const positive = z.number().int().min(1);
const order = z.number().int().min(0).max(ORDER_MAX);
const features = z
  .string()
  .regex(/^[0-9a-f]{1,16}$/)
  .transform(text => BigInt(`0x${text}`));

const TUNING = z
  .strictObject({
    features,
    ringFeatures: features,
    queueSizeMax: positive.max(QUEUE_SIZE_MAX),
    pfnsPerBuffer: z.number().int().min(PFNS_PER_BUFFER_MIN).max(PFNS_PER_BUFFER_MAX),
    depth: positive.max(QUEUE_SIZE_MAX).nullable(),
    sort: z.boolean().nullable(),
    ahead: z.boolean(),
    orderMax: order.nullable(),
    retryMs: positive.max(DELAY_MS_MAX),
    oomPages: positive.max(2 ** 31),
    reportingDelayMs: z.number().int().min(0).max(DELAY_MS_MAX),
    reportingBlocks: positive.max(REPORTING_BLOCKS_MAX),
    reportingPipelined: z.boolean(),
    unusedOrderMin: order,
  })
  .partial();

const CONFIG = z.strictObject({
  version: z.literal(VERSION),
  profile: z.enum(PROFILE_NAMES),
  rings: z.enum(RING_KINDS),
  without: z.array(z.string().max(64)).max(64),
  discard: z.enum(BENCH_DISCARD_MODES),
  dirtyLog: z.enum(DIRTY_LOGS),
  /** Null: no limit. */
  pagesPerSecondMax: z.number().positive().max(Number.MAX_SAFE_INTEGER).nullable(),
  tuning: TUNING,
});

export type VmConfig = Omit<z.output<typeof CONFIG>, 'version' | 'tuning'> & {
  readonly tuning: Partial<DriverTuning>;
};

export function encodeConfig(config: VmConfig): Uint8Array {
  const hex = (_: string, value: unknown) => (typeof value === 'bigint' ? value.toString(16) : value);
  return new TextEncoder().encode(JSON.stringify({ version: VERSION, ...config }, hex));
}

/** @throws VmStateError when it is not what {@link encodeConfig} writes */
export function decodeConfig(bytes: Uint8Array): VmConfig {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new VmStateError('what it is cannot be read');
  }
  const result = CONFIG.safeParse(value);
  if (!result.success) {
    const [{ path, message }] = result.error.issues;
    throw new VmStateError(`${path.join('.')}: ${message}`);
  }
  const { version: _, ...config } = result.data;
  return config as VmConfig;
}
