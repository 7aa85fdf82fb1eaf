/** How long a migration waits for the free pages that its guest names. */
import type { Clock, FreePageChannel } from './machine.ts';

/**
 * How long the first round waits for hints, at most; for the first one of a guest that may be busy; and for the next one
 * of a guest that has more.
 */
const HINTS_MS_MAX = 1000;
const HINTS_FIRST_MS = 200;
const HINTS_IDLE_MS = 40;
const HINTS_POLL_MS = 2;

/**
 * Before the first round nearly all hints are useful, and come faster than the pages that they save would go. `check` throws
 * when it is not to be waited any longer.
 */
export async function awaitHints(channel: FreePageChannel, clock: Clock, check: () => void): Promise<void> {
  const deadlineMs = clock.nowMs() + HINTS_MS_MAX;
  let pages = 0;
  let heardMs = clock.nowMs();
  for (;;) {
    const nowMs = clock.nowMs();
    if (channel.finished || nowMs >= deadlineMs) return;
    if (channel.pages !== pages) {
      pages = channel.pages;
      heardMs = nowMs;
    } else if (nowMs - heardMs >= (pages === 0 ? HINTS_FIRST_MS : HINTS_IDLE_MS)) {
      return;
    }
    await clock.sleep(HINTS_POLL_MS);
    check();
  }
}
