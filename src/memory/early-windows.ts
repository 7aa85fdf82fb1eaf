/** Guest memory that is mapped before it is used, because it will first be used while a guest stands still. */
import { type Backing, WINDOW_BYTES } from './backing.ts';

/** Windows that are mapped early; a guest that stands still waits a moment for each of its others. */
const WINDOWS_EARLY_MAX = 8;

/** Maps the first windows of `backing`, of `size` bytes. */
export function mapEarly(backing: Pick<Backing, 'window'>, size: number): void {
  const windows = Math.min(WINDOWS_EARLY_MAX, Math.ceil(size / WINDOW_BYTES));
  for (let index = 0; index < windows; index++) backing.window(index);
}
