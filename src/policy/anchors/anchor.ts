/**
 * The interface of policies that are compared, and how a port of one looks at a guest. A port follows the rules of its
 * source, which its file names, and gets the same reserve, minimums and maximums as all others. It keeps what it
 * remembers in its memory, reads no clock, and has no chance of its own.
 */
import { fill, type Part } from '../allocation.ts';
import { newDecision, sizeRecords } from '../records.ts';
import { applySettings, reserveOf, settingsOf } from '../settings.ts';
import type { GuestSample, Sample, Settings } from '../types.ts';
import { PAGE_BYTES } from '../units.ts';

interface Answer<Memory> {
  /** What each balloon is to hold, in the order of the samples; -1: as it is. */
  readonly targets: readonly number[];
  readonly memory: Memory;
}

export interface Policy<Memory> {
  readonly name: string;
  /** Where its rules are from. */
  readonly source: string;
  readonly periodMs: number;
  readonly begin: () => Memory;
  readonly decide: (sample: Sample, settings: Settings, memory: Memory) => Answer<Memory>;
  /** Whether it decides before its time. */
  readonly wakes?: (sample: Sample, memory: Memory) => boolean;
}

/** A guest in the words of most policies: what it keeps, instead of what its balloon holds. */
export interface View {
  readonly name: string;
  readonly memory: number;
  readonly min: number;
  readonly max: number;
  readonly shares: number;
  /** By the target in force. */
  readonly keep: number;
  /** By its balloon. */
  readonly actual: number;
  /** By its statistics; null where it does not say. */
  readonly available: number | null;
  readonly free: number | null;
  readonly used: number | null;
}

const scratch = newDecision();
sizeRecords(scratch, 1);

const sizeOrNull = (value: number | null | undefined): number | null =>
  value !== null && value !== undefined && Number.isFinite(value) && value >= 0 ? value : null;

function viewOf(guest: GuestSample, settings: Settings): View {
  const [limits] = scratch.guests;
  const { name, memoryBytes, targetBytes, actualBytes, statistics } = guest;
  limits.memoryBytes = memoryBytes;
  applySettings(limits, settingsOf(settings, name));
  const available = sizeOrNull(statistics?.availableBytes);
  const ballooned = sizeOrNull(statistics?.balloonedBytes) ?? actualBytes;
  return {
    name,
    memory: memoryBytes,
    min: limits.floorBytes,
    max: limits.maxBytes,
    shares: limits.shares,
    keep: memoryBytes - targetBytes,
    actual: memoryBytes - actualBytes,
    available,
    free: sizeOrNull(statistics?.freeBytes),
    used: available === null ? null : Math.max(0, memoryBytes - ballooned - available),
  };
}

export const viewsOf = ({ guests }: Sample, settings: Settings): View[] =>
  guests.map(guest => viewOf(guest, settings));

export const clamp = (value: number, low: number, high: number): number =>
  Math.max(low, Math.min(high, value));

/** What balloons hold so that guests keep `keeps`; null: as it is. */
export const targetsOf = (views: readonly View[], keeps: readonly (number | null)[]): number[] =>
  views.map(({ memory }, at) => {
    const keep = keeps[at];
    return keep === null ? -1 : Math.floor(clamp(memory - keep, 0, memory) / PAGE_BYTES) * PAGE_BYTES;
  });

export const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** What guests may keep together, by what the host says. */
export function budgetOf(sample: Sample, settings: Settings): number {
  const { host, guests } = sample;
  const held = sum(guests.map(guest => guest.residentBytes ?? guest.memoryBytes - guest.givenBytes));
  const others = Math.max(0, host.totalBytes - host.availableBytes - held);
  return host.totalBytes - reserveOf(settings, host) - others - host.reservedBytes;
}

/** Parts of `amount` between bounds, max-min fair by weight. */
export function divide(
  amount: number,
  bounds: readonly { readonly low: number; readonly high: number; readonly weight: number }[],
): number[] {
  const parts = bounds.map(
    ({ low, high, weight }): Part => ({
      ours: true,
      lowBytes: low,
      highBytes: Math.max(low, high),
      weight,
      partBytes: 0,
    }),
  );
  fill(parts, amount);
  return parts.map(({ partBytes }) => partBytes);
}
