/** What a live migration costs, by the model of pre-copy: what is written while memory is sent has to be sent again. */
import type { FleetGuest } from './types.ts';

/** Nothing sends more slowly for want of rounds: beyond this share of the link, each round is hardly shorter than the one before. */
const CONVERGES = 0.7;
/** A guest whose host cannot tell what it writes is taken to use so much of the link. */
const UNKNOWN_DIRTY = 0.5;

export interface Cost {
  readonly sendBytes: number;
  readonly sendMs: number;
}

/** What it takes to send `guest` at `rate` bytes a second; undefined: rounds would not become shorter. */
export function costOf({ residentBytes, dirtyBytesPerSecond }: FleetGuest, rate: number): Cost | undefined {
  const dirty = dirtyBytesPerSecond ?? rate * UNKNOWN_DIRTY;
  if (!(rate > 0) || dirty > rate * CONVERGES) return undefined;
  const seconds = residentBytes / (rate - dirty);
  return { sendBytes: seconds * rate, sendMs: 1000 * seconds };
}
