/** When inflated pages go back to the host, by name. Apart from what does it, so that a command or a page loads only this. */

/** `auto` chooses between the two ways by the rule in `inflation.ts`. */
export const DISCARD_MODES = ['auto', 'before-ack', 'after-ack'] as const;

/** `none` and `per-page` are what benchmarks compare with: code of this process can ask for them, an operator cannot. */
export const BENCH_DISCARD_MODES = [...DISCARD_MODES, 'none', 'per-page'] as const;

export type DiscardMode = (typeof BENCH_DISCARD_MODES)[number];
