/** Runs of pages as the stream writes them: le32 slot, le32 count, one after the other. */
import { StreamError } from './stream/section.ts';

/** Bytes of one run. */
export const RUN_BYTES = 8;

export function writeRun(view: DataView, at: number, start: number, count: number): void {
  view.setUint32(at, start, true);
  view.setUint32(at + 4, count, true);
}

/**
 * Visits the runs in [from, to) of a payload. All of them are checked before the first is given out; returns how
 * many pages they have together.
 * @throws StreamError when they do not fill the space, name no pages or pages beyond `slots`, or more than that
 */
export function readRuns(
  payload: Uint8Array,
  from: number,
  to: number,
  slots: number,
  visit: (start: number, count: number) => void,
): number {
  if ((to - from) % RUN_BYTES !== 0) throw new StreamError('payload', 'a list of runs that is cut short');
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  let pages = 0;
  for (let at = from; at < to; at += RUN_BYTES) {
    const start = view.getUint32(at, true);
    const count = view.getUint32(at + 4, true);
    if (count === 0 || start + count > slots) {
      throw new StreamError('payload', `${count} pages from page ${start} of a guest of ${slots}`);
    }
    pages += count;
  }
  // Runs do not overlap, so more is nonsense; and work for it would be without bound.
  if (pages > slots) throw new StreamError('payload', `runs of ${pages} pages of a guest of ${slots}`);
  for (let at = from; at < to; at += RUN_BYTES) {
    visit(view.getUint32(at, true), view.getUint32(at + 4, true));
  }
  return pages;
}
