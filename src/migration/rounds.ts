/**
 * The order of a round: the whole of what the migration owes to hints. The source follows these tables, and so does
 * the explorer that proves them safe (src/sim/hint-explorer.ts); the order is written down once.
 */

export type RoundStep =
  /** The session ends: once this step is over, no hint clears a bit of the dirty bitmap. */
  | 'stop-hints'
  /** The guest stands still, all its writes are in its memory and in the log. */
  | 'stop-guest'
  /** The write log moves into the dirty bitmap and is re-armed. */
  | 'sync'
  /** A session under an id that was never used before: its hints are newer than the sync. */
  | 'start-hints'
  /** Pages go out while hints come in. */
  | 'send'
  /** All that the dirty bitmap holds goes out. */
  | 'send-rest'
  | 'hand-over';

/** While the guest runs. */
export const ROUND: readonly RoundStep[] = ['stop-hints', 'sync', 'start-hints', 'send'];

/** The sync comes after the last hint, so what was written to a skipped page is sent now. */
export const LAST_ROUND: readonly RoundStep[] = [
  'stop-hints',
  'stop-guest',
  'sync',
  'send-rest',
  'hand-over',
];
