/**
 * What a migration asks of what it moves: the guest with its device at the source, the empty place for it at the
 * destination, the free page channel, and time. Everything outside of this room comes in through these.
 */
import type { NoteStep } from './pause.ts';
import type { Ram } from './ram.ts';
import type { RegionShape } from './stream/messages.ts';

export interface SavedState {
  /** Names who reads it at the destination: `guest`, `device`. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** The guest that leaves. */
export interface SourceMachine {
  /** Resolves when the guest stands still and all that it wrote is in its memory and in the log. `note` takes its parts. */
  stop(note?: NoteStep): Promise<void>;
  /** It goes on as if nothing had been; also when it was let go and did not arrive. */
  resume(): Promise<void>;
  /** Lets it have this share of its time, (0, 1]. */
  throttle(share: number): Promise<void>;
  /** All but its memory; called while it is stopped. `note` takes its parts. */
  save(note?: NoteStep): Promise<readonly SavedState[]>;
  /**
   * What {@link save} would give now, as far as that can be said of a guest that runs. Absent where nothing is to be sent
   * ahead.
   */
  saveAhead?(): Promise<readonly SavedState[]>;
  /** How long {@link stop} would take now, as far as that can be measured of a guest that runs; so would {@link resume}. */
  expectedStopMs?(): Promise<number>;
  /** Visits pages that have to be there before the states can be read, where others may come later. */
  forEachVitalPage?(visit: (pfn: number, count: number) => void): void;
  /** It is about to run elsewhere: it must not run here any more, whatever becomes of this process's connections. */
  handOver(): Promise<void>;
}

/** A place for a guest. */
export interface DestinationMachine {
  /**
   * Makes memory of this shape, all zeros. With `late` pages of it may come when the guest runs, if this host can have that.
   * @throws AerostatError when this host has no room for it
   */
  createMemory(regions: readonly RegionShape[], late: boolean): Promise<void>;
  /** Of memory that was made so; undefined where this host cannot have it. */
  readonly latePages?: LatePages | undefined;
  /**
   * The guest still runs at the source, and its states are about these: whatever can be made ready for them is. May come more
   * than once; `note` takes the parts. Absent where nothing can be made ready. @throws AerostatError when they are damaged
   */
  prepare?(states: readonly SavedState[], note?: NoteStep): Promise<void>;
  /** How long {@link run} would take now, as far as that can be measured; asked when it is prepared. */
  expectedRunMs?(): Promise<number | undefined>;
  /** Everything has arrived; the states are the machine's. `note` takes the parts of it. @throws AerostatError when the states are damaged */
  load(states: readonly SavedState[], note?: NoteStep): Promise<void>;
  /**
   * What was loaded, if it was, counts for nothing: the place is as it was before, and pages go on coming. Absent where a place
   * cannot do that.
   */
  unload?(): Promise<void>;
  /** From now on the guest is here. `note` takes the parts of it. */
  run(note?: NoteStep): Promise<void>;
  /** Nothing becomes of it; what was made is taken down. */
  abandon(reason: Error): Promise<void>;
}

/** Memory of which pages come while the guest runs. A page is named by its slot. */
export interface LatePages {
  /** A bit for each page that has yet to come: set by the migration, cleared by whatever puts something there. */
  readonly missing: Int32Array;
  /**
   * What was received of these counts for nothing; they read as zeros, and like all that is discarded they are missing no
   * more. The guest does not run yet.
   */
  forget(ram: Ram, start: number, count: number): void;
  /** Puts those of these pages there that are missing still, from `from` at `at`, or as zeros; the others stay as they are. */
  place(start: number, count: number, from: Uint8Array | undefined, at: number): void;
  /** Hears of pages that the guest waits for. */
  onFaults: (slots: readonly number[]) => void;
  /** Nothing comes any more. Idempotent. */
  close(): Promise<void>;
}

/** A channel through which the guest names pages that it does not use. */
export interface FreePageChannel {
  /** Asks anew. What is named from now on counts, and nothing that was named before. */
  start(): Promise<void>;
  /** Once this resolves, nothing that the guest names counts. */
  stop(): Promise<void>;
  /** The guest may have the pages back that it keeps for us. */
  done(): Promise<void>;
  /** Whether the guest has named all that it had to name. */
  readonly finished: boolean;
  /** Pages that counted since {@link start}. */
  readonly pages: number;
}

export interface Clock {
  /** Monotonic. */
  nowMs(): number;
  /** Resolves after that time, or earlier when `signal` is aborted. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}
