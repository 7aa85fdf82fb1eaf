/** What `bench build` and its guest say to each other. */
import type { ProfileName } from '../../balloon/profiles.ts';

export interface BuildGuestData {
  readonly socketPath: string;
  readonly memoryBytes: number;
  readonly profile: ProfileName;
  /** Its allocator is the one that a host may share. */
  readonly lends: boolean;
  readonly seed: number;
  /** Builds one after the other, and how long nothing happens after each. */
  readonly builds: number;
  readonly pauseMs: number;
  /** Compilers that each build runs to their end. */
  readonly compilers: number;
  /** Pages that they use in a second, at most; as many as they can unless given. */
  readonly pagesPerSecond?: number;
}

export type FromBuildGuest =
  /** It is up, and its memory is this file. */
  | { readonly kind: 'ready'; readonly memoryFd: number }
  | { readonly kind: 'building' }
  /** A build is over, and what it used is free; how long it took, and for how much of it the thread had a processor. */
  | { readonly kind: 'built'; readonly elapsedMs: number; readonly ranMs: number; readonly killed: number }
  | { readonly kind: 'done' };

/** The guest begins when it is told so. */
export interface ToBuildGuest {
  readonly ask: 'begin';
}
