/** What is measured of one inflation, whichever way the pages are named. */
import type { MemoryEffect } from './memory-effect.ts';

/** One inflation and the deflation after it. */
export interface InflateSample {
  /** From the wish until the host had all of the memory, floor and guest's own part included. */
  readonly elapsedMs: number;
  /** The same of the first inflation of all, for which all threads compile their code; this one, where none went before. */
  readonly firstMs: number;
  /**
   * The same of {@link CLAIM_BYTES_MAX}, the least that is discarded at once: the way to the guest and back. NaN where it is
   * not measured.
   */
  readonly wayMs: number;
  /** Until the guest was done. */
  readonly guestMs: number;
  readonly deflateMs: number;
  readonly allocatingMs: number;
  readonly encodingMs: number;
  readonly waitingMs: number;
  readonly decodingMs: number;
  readonly discardingMs: number;
  readonly floorMs: number;
  readonly kicks: number;
  readonly buffers: number;
  readonly listBytes: number;
  readonly runs: number;
  readonly punches: number;
  readonly fragmentation: number;
  readonly effect: MemoryEffect;
}

/** A figure of a sample. */
export type InflateFigure = Exclude<keyof InflateSample, 'effect'>;
