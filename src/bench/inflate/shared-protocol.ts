/** What `bench inflate` and its guest of profile `shared` say to each other. */
import type { BackingName } from './backings.ts';

export interface SharedGuestData {
  readonly socketPath: string;
  readonly memoryBytes: number;
  readonly backing: BackingName;
  /** Whether all memory is touched before it is taken. */
  readonly touched: boolean;
}

export interface FrameState {
  /** Huge frames that the host holds. */
  readonly held: number;
  /** Interrupts and readings of the configuration. */
  readonly woken: number;
  /** How long the guest's thread had a processor. */
  readonly ranMs: number;
  /** The file that is its memory. */
  readonly memoryFd: number;
}

export type FromSharedGuest =
  | { readonly kind: 'state'; readonly state: FrameState }
  | { readonly kind: 'written'; readonly writeNs: number }
  | { readonly kind: 'floor'; readonly ms: number; readonly runs: number };

/**
 * `touch`: brings memory into the state that it had at the beginning, and says it. `write`: writes to so many of the frames
 * that it may use, from the first on, all unless said otherwise.
 */
export type ToSharedGuest =
  | { readonly ask: 'state' | 'touch' | 'floor' | 'end' }
  | { readonly ask: 'write'; readonly frames: number };
