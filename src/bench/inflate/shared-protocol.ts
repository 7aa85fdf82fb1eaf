/** What `bench inflate` and its guest of profile `shared` say to each other. */

export interface SharedGuestData {
  readonly socketPath: string;
  readonly memoryBytes: number;
  readonly hugePageSize?: number;
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
}

export type FromSharedGuest =
  | { readonly kind: 'state'; readonly state: FrameState }
  | { readonly kind: 'floor'; readonly ms: number; readonly runs: number };

/** `touch`: brings memory into the state that it had at the beginning, and says it. */
export type ToSharedGuest = 'state' | 'touch' | 'floor' | 'end';
