/**
 * How long a source waits for a destination that says nothing and takes nothing: stopped by a signal, swapped out, or cut
 * off without a word. Until the source has let its guest go, it may give up at any time and loses nothing by it; and a
 * guest that stands still should not stand for long.
 */
import { MigrationError } from './errors.ts';
import type { Clock } from './machine.ts';
import type { DestinationAnswer, Link } from './source-link.ts';

/** While the guest runs, a network may take its time to come back. */
const STUCK_MS_MAX = 60_000;
/** While it stands still, or a caller waits for the end of a migration that has failed. A section is 1 MiB at most. */
const STUCK_STOPPED_MS_MAX = 10_000;
const LOOK_MS = 500;

/** Memory has to be made for it; the guest runs meanwhile. */
const WELCOME_MS_MAX = 60_000;
/** All that is under way comes before it, and tens of megabytes may be; the guest runs meanwhile. */
const RECALLED_MS_MAX = 60_000;
/** The states have to be read, which takes some ten nanoseconds a page; ten times that, on a busy host. */
const READY_MS_MAX = 10_000;
const READY_PAGES_PER_MS = 10_000;
/** After this the source asks over another connection, for it cannot give up any more. */
const RUNNING_MS_MAX = 10_000;

/** How long an answer of a destination may take that is to have a guest of so many pages. */
export function answerMsMax(kind: DestinationAnswer['kind'], pages: number): number {
  if (kind === 'ready' || kind === 'rehearsed' || kind === 'arrived') {
    return READY_MS_MAX + Math.ceil(pages / READY_PAGES_PER_MS);
  }
  if (kind === 'recalled') return RECALLED_MS_MAX;
  return kind === 'welcome' ? WELCOME_MS_MAX : RUNNING_MS_MAX;
}

interface WatchOptions {
  readonly clock: Clock;
  /** They may become more. */
  readonly links: readonly Link[];
  /** The guest runs, and no caller waits. */
  readonly atEase: () => boolean;
}

/** Breaks the connections of a destination that takes nothing for too long, so that the writer hears of it. */
export class StallWatch {
  readonly #options: WatchOptions;
  readonly #over = new AbortController();
  #failure: MigrationError | undefined;

  constructor(options: WatchOptions) {
    this.#options = options;
    void this.#look();
  }

  /** Why the connections were broken. */
  get failure(): MigrationError | undefined {
    return this.#failure;
  }

  end(): void {
    this.#over.abort();
  }

  async #look(): Promise<void> {
    const { clock, links, atEase } = this.#options;
    const { signal } = this.#over;
    while (this.#failure === undefined) {
      await clock.sleep(LOOK_MS, signal);
      if (signal.aborted) return;
      const limitMs = atEase() ? STUCK_MS_MAX : STUCK_STOPPED_MS_MAX;
      const sinceMs = clock.nowMs() - limitMs;
      // Many connections over a slow network have to wait for each other: while one of them gets on, nothing hangs.
      const waiting = links.flatMap(({ waitingSinceMs }) => waitingSinceMs ?? []);
      if (waiting.length === 0 || Math.max(...waiting) >= sinceMs) continue;
      this.#failure = new MigrationError(
        `the destination has taken nothing for ${limitMs / 1e3} s; it hangs, or the network does`,
      );
      for (const link of links) link.close(false);
    }
  }
}
