/**
 * How a guest's memory divides, from two views that were not taken at the same moment: the host's own account, which
 * is exact and now, and the guest's statistics, which are some seconds old. All sizes are bytes and add up. Needs
 * nothing of Node: the page in the browser counts with it as well.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import type { GuestStatus, StatisticsSample } from './contract.ts';

export interface MemoryUse {
  readonly memory: number;
  /** Programs and the kernel, and the page cache, as of the newest statistics that can be used; null if none. */
  readonly used: number | null;
  readonly cache: number | null;
  /** Free in the guest, whether the host holds memory for it or not; null if not known. */
  readonly free: number | null;
  /** The part of it for which the host holds memory: what a balloon would gain. Null if not known. */
  readonly freeHeld: number | null;
  /** The part for which it holds none: reported, or never touched. Null if not known. */
  readonly freeAway: number | null;
  /** Given away, the pending part included. */
  readonly ballooned: number;
  readonly pending: number;
  readonly resident: number | null;
  /**
   * What the balloon may hold before the guest is short of memory, by its own word: what was available to its programs
   * and what the balloon held, both of the same moment. Null if it did not say.
   */
  readonly spare: number | null;
  /** What the balloon held when the guest said so. */
  readonly sparedAt: number | null;
}

/** What the guest itself used when a sample was taken. */
interface GuestOwn {
  readonly used: number;
  readonly cache: number;
}

/** A sample that is newer than the last one by less than this is the same: its age is rounded and travels. */
const SAME_SAMPLE_MS = 100;

/** A guest needs some room above what it uses right now: its kernel keeps watermarks free. */
export const RESERVE_SHARE = 0.02;

/** What a guest can spare, by a sample of its statistics; see {@link MemoryUse.spare}. */
export function spareOf(sample: StatisticsSample | undefined): Pick<MemoryUse, 'spare' | 'sparedAt'> {
  const available = sample?.statistics.availableBytes ?? null;
  const sparedAt = sample?.balloonedBytes ?? null;
  return { spare: available === null || sparedAt === null ? null : sparedAt + available, sparedAt };
}

/** What the balloon may hold without hurting the guest, by its own word; null if it did not say. */
export function balloonLimit(
  use: { readonly spare: number | null; readonly memory: number } | undefined,
): number | null {
  if (use === undefined || use.spare === null) return null;
  const limit = use.spare - RESERVE_SHARE * use.memory;
  return Math.max(0, Math.floor(limit / PAGE_SIZE) * PAGE_SIZE);
}

/** The balloon by the host's own account; where the guest's hypervisor keeps none, by the guest's word. */
export const balloonOf = ({ balloonedBytes, actualBytes }: GuestStatus): number | null =>
  balloonedBytes ?? actualBytes;

export interface Sum {
  /** Null when none is known. */
  readonly bytes: number | null;
  /** How many were left out, because nothing is known of them. */
  readonly unknown: number;
}

/** Adds up what is known, and says how much is not: unknown is not 0. */
export function sumKnown(values: readonly (number | null | undefined)[]): Sum {
  const known = values.filter(value => value !== null && value !== undefined);
  const bytes = known.length === 0 && values.length > 0 ? null : known.reduce((sum, value) => sum + value, 0);
  return { bytes, unknown: values.length - known.length };
}

/** Follows one guest. */
export class MemoryUseTracker {
  #own: GuestOwn | undefined;
  #ballooned: number | null = null;
  /** When the guest took the newest sample, on the clock of the viewer; null if it never did. */
  sampledAtMs: number | null = null;
  sample: StatisticsSample | undefined;

  /** How memory divides now; undefined when the guest has shown none. Without a sample, the last one counts on. */
  see(guest: GuestStatus, sample: StatisticsSample | undefined, nowMs: number): MemoryUse | undefined {
    const ballooned = balloonOf(guest) ?? 0;
    if (!guest.connected) this.#own = undefined;
    else if (sample !== undefined) this.#take(guest.memoryBytes, ballooned, sample, nowMs);
    this.#ballooned = ballooned;
    if (guest.memoryBytes === null) return undefined;
    return divide(guest, guest.memoryBytes, this.#own, guest.connected ? this.sample : undefined);
  }

  #take(memory: number | null, ballooned: number, sample: StatisticsSample, nowMs: number): void {
    this.sample = sample;
    const takenMs = sample.ageMs === null ? null : nowMs - sample.ageMs;
    if (takenMs === null) return;
    if (this.sampledAtMs !== null && takenMs - this.sampledAtMs < SAME_SAMPLE_MS && this.#own !== undefined)
      return;
    this.sampledAtMs = takenMs;
    // Where it was not noted what the balloon held then, its size and the statistics add up only while it stands still.
    const still = this.#ballooned === null || this.#ballooned === ballooned;
    const then = sample.balloonedBytes ?? (still || this.#own === undefined ? ballooned : null);
    const { freeBytes, cacheBytes } = sample.statistics;
    if (memory === null || freeBytes === null || then === null) return;
    const cache = cacheBytes ?? 0;
    this.#own = { used: Math.max(0, memory - then - freeBytes - cache), cache };
  }
}

function divide(
  guest: GuestStatus,
  memory: number,
  own: GuestOwn | undefined,
  sample: StatisticsSample | undefined,
): MemoryUse {
  const ballooned = Math.min(balloonOf(guest) ?? 0, memory);
  const pending = Math.min(guest.pendingBytes ?? 0, ballooned);
  const resident = guest.residentBytes;
  const known = {
    memory,
    ballooned,
    pending,
    resident,
    ...spareOf(sample),
  };
  if (own === undefined) {
    return { ...known, used: null, cache: null, free: null, freeHeld: null, freeAway: null };
  }
  const left = memory - ballooned;
  const used = Math.min(own.used, left);
  const cache = Math.min(own.cache, left - used);
  const free = left - used - cache;
  // What is pending is ballooned and still held.
  const away = resident === null ? null : Math.max(0, Math.min(free, left + pending - resident));
  return {
    ...known,
    used,
    cache,
    free,
    freeHeld: away === null ? null : free - away,
    freeAway: away,
  };
}
