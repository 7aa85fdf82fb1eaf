/**
 * What is said of migrations, in one shape for every kind of guest. Null is what the mover of the guest does not tell.
 */
/** Where a migration is. */
export interface MigrationState {
  /** In the mover's own words. */
  readonly status: string;
  readonly elapsedMs: number;
  readonly round: number | null;
  readonly totalBytes: number | null;
  readonly sentBytes: number | null;
  readonly remainingBytes: number | null;
  readonly bytesPerSecond: number | null;
  readonly expectedDowntimeMs: number | null;
  /** The share of its time that the guest has; less than 1 when it is slowed down. */
  readonly guestShare: number | null;
  /** Of a guest that runs at its destination already, and has yet to get pages: {@link remainingBytes} of them. */
  readonly postcopy?: PostcopyState | null;
}

export interface PostcopyState {
  /** What was missing when it began to run there. */
  readonly missingBytes: number;
  /** How often a thread of the guest waited for a page, and for how long at most; null where that is not told. */
  readonly faults: number;
  readonly longestFaultMs: number | null;
  /** How often the connections broke and were made again. */
  readonly recoveries: number;
  /** Why no page comes at the moment, so that the guest may stand still; null while they do. */
  readonly broken: string | null;
}

/** How a migration went. */
export interface MigrationReport {
  readonly totalMs: number;
  /** How long the guest stood still. */
  readonly downtimeMs: number | null;
  readonly rounds: number;
  /** What went over the wire. */
  readonly bytes: number;
  readonly pages: number;
  readonly zeroPages: number;
  readonly resentPages: number | null;
  /** Never sent: named by the guest as free, in the balloon, or nothing that the host held. */
  readonly freePages: number | null;
  readonly balloonPages: number | null;
  readonly unbackedPages: number | null;
  /** Pages that were written after the guest had named them as free, and sent for it. */
  readonly hintRaces: number | null;
  /** Where the guest ran before all of its pages had come. */
  readonly postcopy?: PostcopyState | null;
  /**
   * Where the downtime went, step by step: those without a slash follow each other and add up to it; the others are parts
   * of the next one without. Absent where the mover does not tell.
   */
  readonly pause?: readonly MigrationPauseStep[];
}

/** A step of a pause: `load`, or of its parts, `load/device`. */
export interface MigrationPauseStep {
  readonly step: string;
  readonly ms: number;
}

/** A migration under way, or the last one. */
export interface MigrationStatus {
  /** Null when another client of the guest's hypervisor began it, and did not say. */
  readonly to: string | null;
  readonly state: MigrationState;
  /** Once the guest is at its destination, or all of the snapshot under its name. */
  readonly report: MigrationReport | null;
  /** Why it is not, once that is known; `code` is stable. */
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** All there is to say of a guest that may be moved. */
export interface MigrationAnswer {
  /** Under way, or the last one; null when there was none. */
  readonly migration: MigrationStatus | null;
  /** Why the guest cannot be moved from here at all; null when it can. */
  readonly obstacle: string | null;
  /**
   * What the guest writes to, a second: a page counts once between two questions, as it does in a round. Null where that is
   * not known: at the first question, during a migration, and where the host keeps no log.
   */
  readonly dirtyBytesPerSecond: number | null;
}

export interface MigrationOrder {
  /**
   * Where the destination waits: `tcp:HOST:PORT`. `file:/PATH` writes a machine of ours into a file, a snapshot, and it
   * runs on. For a domain of libvirt the URI of the other libvirt.
   */
  readonly to: string;
  readonly connections?: number;
  readonly bandwidthBytesPerSecond?: number;
  /** How long the guest may stand still. */
  readonly downtimeMsMax?: number;
  readonly roundsMax?: number;
  /** Slow the guest down when it writes faster than can be sent. Default: yes. */
  readonly autoConverge?: boolean;
  /** How the guest names free pages, by the names of vm/free-page-channel.ts. */
  readonly channel?: string;
  /** With zstd, of Node (22.15) or of the host (libzstd.so.1); it fails when one side has neither. */
  readonly compress?: boolean;
  /**
   * After so many rounds, 0 for at once, the guest runs at the destination and gets the rest of its memory there. From then
   * on the destination's end, and this one's, is the guest's. A machine of ours, and a domain of libvirt.
   */
  readonly postcopyAfterRound?: number;
  /** Reach the destination again of a guest that runs there and waits for pages; nothing else is looked at. */
  readonly recover?: boolean;
  /** The definition of a domain of libvirt goes along: persistent there, and not here any more. */
  readonly persist?: boolean;
}
