/** A migration of a bench, which ends when that is interrupted: also where it was before, and when the guest waits for pages. */
import type { MigrationSource } from '../../migration/source.ts';
import type { MigrationSummary } from '../../migration/source-shapes.ts';

const WHY = 'the bench was interrupted';

export async function runUntil(source: MigrationSource, signal?: AbortSignal): Promise<MigrationSummary> {
  const end = (): void => {
    // The destination may be gone by the same signal, and would be looked for.
    if (!source.cancel(WHY)) source.abandon(WHY);
  };
  if (signal?.aborted === true) end();
  signal?.addEventListener('abort', end);
  try {
    return await source.run();
  } finally {
    signal?.removeEventListener('abort', end);
  }
}
