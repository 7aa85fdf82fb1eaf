/** What the model of {@link ./hint-model.ts} can be like: how large, and by which rules. */

/** How a migration may be wrong. The numbers are those of docs/hint-safety.md. */
export type HintRules =
  | 'safe'
  /** 1: hints count whatever session they belong to. */
  | 'ids-ignored'
  /** 2: a hint clears the write log as well. */
  | 'log-cleared'
  /** 3: the last session is not ended before the last sync, so its last hints come after it. */
  | 'hints-after-last-sync'
  /** 4: the host frees the hinted page instead of skipping it. */
  | 'page-freed'
  /** 5: the guest's stores are logged before they happen. */
  | 'logged-before-store';

export interface HintModelOptions {
  readonly rules: HintRules;
  /** 1 to {@link PAGES_MAX}. */
  readonly pages: number;
  /** Rounds while the guest runs, before the last one: 1 to {@link HINT_ROUNDS_MAX}. */
  readonly rounds: number;
  /** Slots of the guest's hint queue, 2 to {@link RING_SLOTS_MAX}; one stays reserved for STOP. */
  readonly ringSlots: number;
  /** Profile `virtio` has DONE, profile `sg` has not. */
  readonly hasDone: boolean;
}

export const PAGES_MAX = 4;
export const HINT_ROUNDS_MAX = 6;
export const RING_SLOTS_MAX = 6;
