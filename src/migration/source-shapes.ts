/** What a migration's source takes, and what it tells of itself: while it is at work, and when it is done. */
import type { Convergence } from './convergence.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { HintedPages } from './hinted-pages.ts';
import type { Clock, FreePageChannel, SourceMachine } from './machine.ts';
import type { PauseStep } from './pause.ts';
import type { PostcopyProgress } from './postcopy-source.ts';
import type { Ram } from './ram.ts';
import type { SlotBitmap } from './slot-bitmap.ts';
import type { Connector } from './source-links.ts';

export interface SourceOptions {
  readonly id: Uint8Array;
  readonly ram: Ram;
  readonly machine: SourceMachine;
  readonly log: DirtyLog;
  /** The links' senders have the same two. */
  readonly dirty: SlotBitmap;
  readonly sent: SlotBitmap;
  readonly connector: Connector;
  readonly connections: number;
  readonly convergence: Convergence;
  readonly clock: Clock;
  /** How the guest names free pages, and who takes them. Without it, all pages are sent. */
  readonly hints?: { readonly channel: FreePageChannel; readonly pages: HintedPages };
  /** Compress pages; both sides must have zstd. Costs both a processor. */
  readonly compress?: boolean;
  /** Run the guest there after so many rounds, at the latest, and send it the rest then; 0 for at once. */
  readonly postcopy?: { readonly afterRound: number } | undefined;
  /** A test switch of {@link Rehearsal}: the guest loses data. */
  readonly patchLate?: boolean;
  /** A test switch: a stop is called off for its limit though the guest was let go, so that it may run at both ends. */
  readonly goesOnLate?: boolean;
  /** What happens, as it happens. */
  readonly observer?: (progress: MigrationProgress) => void;
}

export type SourcePhase =
  | 'connecting'
  | 'copying'
  | 'stopping'
  | 'handing-over'
  | 'post-copy'
  | 'post-copy-paused'
  | 'done'
  | 'failed';

export interface MigrationProgress {
  readonly phase: SourcePhase;
  readonly round: number;
  /** Pages to send, after the last sync. */
  readonly remainingPages: number;
  readonly bytesPerMs: number;
  readonly expectedDowntimeMs: number;
  /** The share of its time that the guest has. */
  readonly guestShare: number;
  /** Where the guest runs already and has yet to get pages. */
  readonly postcopy: PostcopyProgress | null;
}

export interface MigrationSummary {
  readonly totalMs: number;
  /** From asking the guest to stop until it ran at the destination. */
  readonly downtimeMs: number;
  /** Rounds, the last one included. */
  readonly rounds: number;
  /** Bytes of all sections. */
  readonly bytes: number;
  readonly stateBytes: number;
  readonly pages: number;
  readonly zeroPages: number;
  readonly resentPages: number;
  /**
   * Never sent, because the guest named them as free, or because the host was known to hold nothing for them. Of a guest
   * of which it holds nearly all, the rest is among {@link zeroPages}.
   */
  readonly freePages: number;
  readonly unbackedPages: number;
  /** Pages that were written after the guest had named them as free, and sent for it. */
  readonly hintRaces: number;
  readonly guestShareMin: number;
  /** How long it stood still each time that its stop was called off, for it would have stood still for longer than it may. */
  readonly calledOffMs: readonly number[];
  /** Where the guest ran before all of its pages had come. */
  readonly postcopy: PostcopyProgress | null;
  /**
   * Where the downtime went: the steps of the source, which add up to it, each behind its parts, which have its name and a
   * slash in theirs.
   */
  readonly pause: readonly PauseStep[];
}
