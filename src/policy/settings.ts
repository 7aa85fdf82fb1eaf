/** What settings mean where they say nothing or contradict themselves: floors, maximums, shares, the host's reserve. */
import type { GuestDecision, GuestSettings, HostSample, Settings } from './types.ts';
import { GIB, MIB } from './units.ts';

export const SHARES_DEFAULT = 1000;
const MIN_SHARE = 0.25;
const RESERVE_SHARE = 0.05;
const RESERVE_MIN_BYTES = GIB;
const NO_SETTINGS: GuestSettings = {};

/** The floors of Linux' Hyper-V driver: below a size of memory, a constant and a part of it, in MiB. */
const FLOORS = [
  [128, 8, 2],
  [512, 40, 4],
  [2048, 104, 8],
  [8192, 232, 16],
  [Number.POSITIVE_INFINITY, 488, 32],
] as const;

/** What a kernel needs to live with `memoryBytes` of memory, most of it in a balloon. */
export function kernelFloor(memoryBytes: number): number {
  const mib = memoryBytes / MIB;
  for (const [below, constant, part] of FLOORS) {
    if (mib < below) return Math.min(memoryBytes, (constant + mib / part) * MIB);
  }
  return memoryBytes;
}

const isSize = (value: number | undefined): value is number =>
  value !== undefined && Number.isFinite(value) && value >= 0;

export function settingsOf(settings: Settings, name: string): GuestSettings {
  return Object.hasOwn(settings.guests, name) ? settings.guests[name] : NO_SETTINGS;
}

/** Fills in floor, maximum, shares and mode. A minimum above the maximum is the maximum: that is a hard limit. */
export function applySettings(guest: GuestDecision, given: GuestSettings): void {
  const { memoryBytes } = guest;
  const asked = isSize(given.maxBytes) && given.maxBytes > 0 ? given.maxBytes : memoryBytes;
  guest.maxBytes = Math.min(memoryBytes, asked);
  const min = isSize(given.minBytes)
    ? given.minBytes
    : Math.min(guest.maxBytes, Math.max(kernelFloor(memoryBytes), MIN_SHARE * memoryBytes));
  guest.contradiction = min > guest.maxBytes;
  guest.floorBytes = Math.min(guest.maxBytes, min);
  const { shares = SHARES_DEFAULT } = given;
  guest.shares = Number.isFinite(shares) && shares > 0 ? shares : 1;
  guest.mode = given.mode ?? 'auto';
}

export function reserveOf({ reserveBytes }: Settings, { totalBytes }: HostSample): number {
  if (isSize(reserveBytes)) return Math.min(reserveBytes, totalBytes);
  return Math.min(totalBytes, Math.max(RESERVE_MIN_BYTES, RESERVE_SHARE * totalBytes));
}
