/** What a migration has to send before anything was sent. */
import type { SourceOptions } from './source-shapes.ts';

/** Sets the bits of all pages that the host backs; returns how many it does not. */
export function pagesAtFirst({ ram, log, dirty }: Pick<SourceOptions, 'ram' | 'log' | 'dirty'>): number {
  // First the log, then what there is: what is written meanwhile is in the log.
  log.collect(0, ram.slots, dirty);
  if (ram.nearlyBacked) {
    dirty.setAll();
  } else {
    dirty.clear(0, ram.slots);
    ram.forEachBacked(0, ram.slots, (start, count) => dirty.set(start, count));
  }
  return ram.slots - dirty.countIn();
}
