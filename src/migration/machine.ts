/**
 * What a migration asks of what it moves: the guest with its device at the source, the empty place for it at the
 * destination, the free page channel, and time. Everything outside of this room comes in through these.
 */
import type { RegionShape } from './stream/messages.ts';

export interface SavedState {
  /** Names who reads it at the destination: `guest`, `device`. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** The guest that leaves. */
export interface SourceMachine {
  /** Resolves when the guest stands still and all that it wrote is in its memory and in the log. */
  stop(): Promise<void>;
  /** It goes on as if nothing had been; also when it was let go and did not arrive. */
  resume(): Promise<void>;
  /** Lets it have this share of its time, (0, 1]. */
  throttle(share: number): Promise<void>;
  /** All but its memory; called while it is stopped. */
  save(): Promise<readonly SavedState[]>;
  /** It is about to run elsewhere: it must not run here any more, whatever becomes of this process's connections. */
  handOver(): Promise<void>;
}

/** A place for a guest. */
export interface DestinationMachine {
  /** Makes memory of this shape, all zeros. @throws AerostatError when this host has no room for it */
  createMemory(regions: readonly RegionShape[]): Promise<void>;
  /** Everything has arrived. @throws AerostatError when the states are damaged */
  load(states: readonly SavedState[]): Promise<void>;
  /** From now on the guest is here. */
  run(): Promise<void>;
  /** Nothing becomes of it; what was made is taken down. */
  abandon(reason: Error): Promise<void>;
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
