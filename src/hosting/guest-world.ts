/** What guests of one data-plane thread share. */
import type { GuestsKeeper } from '../keeping/guests-keeper.ts';
import type { Reactor } from '../sys/poll.ts';
import type { DiscardLink } from '../threads/discard-link.ts';
import type { EventOutlet } from './guest-events.ts';
import type { ThreadTurns } from './thread-turns.ts';

export interface GuestHostWorld extends EventOutlet {
  readonly reactor: Reactor;
  readonly discards: DiscardLink;
  /** Keeps guests for the next daemon, where there is one that does. */
  readonly keeper?: GuestsKeeper | undefined;
  /** Of all guests of the thread. */
  readonly turns: ThreadTurns;
}
