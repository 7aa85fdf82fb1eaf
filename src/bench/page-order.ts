/** In which order a balloon's pages are named. */
export const PAGE_ORDERS = ['ordered', 'shuffled'] as const;
export type PageOrder = (typeof PAGE_ORDERS)[number];

/** The same order in every run (Fisher and Yates, xorshift32). */
export function shuffle(pages: Uint32Array): void {
  let state = 0x9e3779b9;
  for (let last = pages.length - 1; last > 0; last--) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const other = (state >>> 0) % (last + 1);
    [pages[last], pages[other]] = [pages[other], pages[last]];
  }
}
