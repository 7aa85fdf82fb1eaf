/**
 * Hint sessions of one guest for those who steer it, and the pages that the guest says it does not use: those that came last,
 * and those on their way to a migration. The sessions themselves are the device's (`device/hint-channel.ts`).
 */
import type { HintAction, HintStatus } from '../control/contract.ts';
import { GuestStateError } from '../control/errors.ts';
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE, PFN_LIMIT } from '../memory/page.ts';
import { PageSet } from '../memory/page-set.ts';
import type { Reactor } from '../sys/poll.ts';
import { FreePages } from './free-pages.ts';
import type { GuestEvents } from './guest-events.ts';
import { HintLimit } from './hint-limit.ts';

const NOT_TAKEN = 'its driver did not take the feature';

/** The guest whose hints they are; its device may not be there yet. */
interface HintedGuest {
  readonly name: string;
  device(): BalloonDevice;
  memory(): GuestMemory | undefined;
  /** Why the guest cannot answer at the moment. */
  obstacle(): string | undefined;
}

export class GuestHints {
  /** Pages that the guest said it does not use, in the hint session or answer that came last. */
  readonly unusedPages = new PageSet(PFN_LIMIT);
  /** Where those pages go while the guest moves elsewhere. */
  readonly freePages: FreePages;
  readonly #guest: HintedGuest;
  readonly #events: GuestEvents;
  readonly #limit: HintLimit;

  constructor(guest: HintedGuest, reactor: Reactor, events: GuestEvents) {
    this.#guest = guest;
    this.#events = events;
    this.freePages = new FreePages(guest.device, guest.memory);
    this.#limit = new HintLimit(reactor, limitMs => {
      events.log('info', 'a hint session was ended by the daemon: it was still open at its limit', {
        limitMs,
      });
    });
  }

  get status(): HintStatus {
    const { hints } = this.#guest.device();
    return {
      state: hints.running ? hints.phase : 'unsupported',
      commandId: hints.session.id,
      hintedBytes: this.unusedPages.pages * PAGE_SIZE,
      ranges: hints.ranges,
      heldBytes: hints.holding ? this.unusedPages.pages * PAGE_SIZE : 0,
      endsInMs: this.#limit.endsInMs(hints.session.id),
    };
  }

  /** A session that starts is ended after `limitMs` if it was not ended before. @throws GuestStateError */
  order(action: HintAction, limitMs: number): HintStatus {
    const { hints } = this.#guest.device();
    const obstacle = this.#guest.obstacle() ?? (hints.running ? undefined : NOT_TAKEN);
    if (obstacle !== undefined) {
      throw new GuestStateError(`${this.#guest.name} takes no hint sessions: ${obstacle}`);
    }
    if (action === 'start') {
      this.unusedPages.clear();
      hints.begin();
      this.#limit.start(hints, limitMs);
    } else if (action === 'stop') {
      hints.end();
    } else {
      hints.done();
      this.#limit.cancel();
    }
    return this.status;
  }

  /** The front-end is gone, and with it the session. */
  forget(): void {
    this.#limit.cancel();
  }

  /** The guest says that it does not use these pages. */
  readonly add = (pfn: number, count: number): void => {
    this.unusedPages.add(pfn, count);
    this.freePages.add(pfn, count);
  };

  /** The device's session changed. */
  changed(): void {
    const { state, heldBytes } = this.status;
    if (state === 'stopped') this.freePages.finished('session');
    this.#events.emit('hint', { state, heldBytes });
  }

  /** The guest has answered a request, or will not. */
  answered(): void {
    this.freePages.finished('request');
    const answered = this.#guest.device().requests.progress?.done === true;
    this.#events.emit('hint', { state: answered ? 'answered' : 'unanswered' });
  }
}
