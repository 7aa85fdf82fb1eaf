/** What `bench neighbour` and the processes of its two guests say to each other. */

/** How the honest guest was served for a while; times from the kick until the buffer was back. */
export interface Service {
  readonly exchanges: number;
  readonly pages: number;
  readonly tookMs: number;
  readonly minMs: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly worstMs: number;
  /** What ended the service before its time, if anything did. */
  readonly lost: string | null;
}

export interface HonestData {
  readonly socketPath: string;
}

export interface ToHonest {
  /** Exchange buffers for so long. */
  readonly measureMs: number;
}

export type FromHonest =
  | { readonly kind: 'ready' }
  | { readonly kind: 'measured'; readonly service: Service }
  | { readonly kind: 'failed'; readonly message: string };

export interface HostileData {
  readonly socketPath: string;
  readonly input: string;
  /** The daemon's API, for inputs that ask it. */
  readonly api: string;
  readonly token: string;
}

/** `play` until `rest`; `work` until `rest`: as much processor time as playing took, but nothing of the daemon's. */
export type ToHostile = 'play' | 'work' | 'rest';

export type FromHostile =
  | { readonly kind: 'ready' }
  /** This machine cannot play it, and why. */
  | { readonly kind: 'unplayable'; readonly message: string }
  | { readonly kind: 'rested'; readonly rounds: number; readonly refused: string | null }
  | { readonly kind: 'failed'; readonly message: string };
