/**
 * Memory statistics (VIRTIO 1.4, 5.5.6.3): a buffer of tagged numbers that the guest fills. What they are called
 * here, and how much of what a guest says is believed.
 */
import { AerostatError } from '../sys/error.ts';
import { readU64, writeU64 } from '../sys/struct.ts';

/** Names by tag. `Bytes` are bytes, everything else counts since the guest's boot. */
export const STATISTIC_NAMES = [
  'swapInBytes',
  'swapOutBytes',
  'majorFaults',
  'minorFaults',
  'freeBytes',
  'totalBytes',
  'availableBytes',
  'cacheBytes',
  'hugetlbAllocations',
  'hugetlbFailures',
  // From Linux 6.12 on.
  'oomKills',
  'allocationStalls',
  'asyncScannedPages',
  'directScannedPages',
  'asyncReclaimedPages',
  'directReclaimedPages',
] as const;

export type StatisticName = (typeof STATISTIC_NAMES)[number];

/** Null: the guest did not say. */
export type Statistics = { [Name in StatisticName]: number | null };

// An entry is packed, {le16 tag, le64 value}; `struct` declares aligned layouts only.
const VALUE_AT = 2;
export const STATISTIC_BYTES = 10;

/**
 * The longest buffer that is read. Sixteen tags take 160 bytes; a page has room for 409, so tags to come and a
 * driver that repeats itself are read, and a guest that posts megabytes is not.
 */
export const STATS_BYTES_MAX = 4096;

/** A driver that has no value for a tag leaves all bits set. */
const UNSET_HALF = 0xffff_ffff;

export class StatisticsError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_STATISTICS', message);
  }
}

export function noStatistics(): Statistics {
  return Object.fromEntries(STATISTIC_NAMES.map(name => [name, null])) as Statistics;
}

/**
 * Reads `length` bytes of entries in any order. Tags that are not known are skipped; of a tag that comes twice the
 * last value counts. A value of 2^53 or more is null like an unset one: no memory is so large, and a number that
 * was clamped would look as if it had been measured.
 * @throws StatisticsError for more than STATS_BYTES_MAX, or an entry that is cut off
 */
export function decodeStatistics(view: DataView, length: number): Statistics {
  if (length > STATS_BYTES_MAX) {
    throw new StatisticsError(`statistics of ${length} bytes; the limit is ${STATS_BYTES_MAX}`);
  }
  if (length % STATISTIC_BYTES !== 0) {
    throw new StatisticsError(`the last statistic ends after ${length % STATISTIC_BYTES} bytes`);
  }
  const statistics = noStatistics();
  for (let at = 0; at < length; at += STATISTIC_BYTES) {
    const tag = view.getUint16(at, true);
    if (tag >= STATISTIC_NAMES.length) continue;
    const value = readU64(view, at + VALUE_AT);
    statistics[STATISTIC_NAMES[tag]] = value <= Number.MAX_SAFE_INTEGER ? value : null;
  }
  return statistics;
}

/**
 * Writes the statistics that are given, in order of tags, and returns the bytes. One that is null is written as
 * unset: a driver sends the same subset of tags each time (VIRTIO 1.4, 5.5.6.3.1), whether it knows them or not.
 */
export function encodeStatistics(view: DataView, statistics: Partial<Statistics>): number {
  let at = 0;
  for (const [tag, name] of STATISTIC_NAMES.entries()) {
    const value = statistics[name];
    if (value === undefined) continue;
    view.setUint16(at, tag, true);
    if (value === null) {
      view.setUint32(at + VALUE_AT, UNSET_HALF, true);
      view.setUint32(at + VALUE_AT + 4, UNSET_HALF, true);
    } else {
      writeU64(view, at + VALUE_AT, value);
    }
    at += STATISTIC_BYTES;
  }
  return at;
}
