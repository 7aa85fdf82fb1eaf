/** Sizes in bytes that the policy, its ports and its simulation count in. */
export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
/** Targets are whole pages of the balloon. */
export const PAGE_BYTES = 4096;
