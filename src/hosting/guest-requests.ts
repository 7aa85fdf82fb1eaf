/**
 * Asks a guest for something over its request queue, and waits for the answer. One request at a time: the queue has
 * room for one, and what the proposals say of ids does not tell two of them apart.
 */
import { DROP_CACHE, GET_UNUSED_PAGES, SHRINK } from '../balloon/request-messages.ts';
import type { GuestRequest, RequestAnswer } from '../control/contract.ts';
import { GuestStateError } from '../control/errors.ts';
import type { BalloonDevice } from '../device/balloon-device.ts';
import type { RequestProgress } from '../device/request-channel.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import type { PageSet } from '../memory/page-set.ts';
import { monotonicMs, type Reactor, type Timer } from '../sys/poll.ts';

const COMMAND: Readonly<Record<GuestRequest, number>> = {
  'unused-pages': GET_UNUSED_PAGES,
  'drop-cache': DROP_CACHE,
  shrink: SHRINK,
};

interface Asked {
  readonly request: GuestRequest;
  readonly startMs: number;
  readonly timer: Timer;
  readonly resolve: (answer: RequestAnswer) => void;
  readonly reject: (error: Error) => void;
}

export class GuestRequests {
  readonly #name: string;
  readonly #device: BalloonDevice;
  readonly #reactor: Reactor;
  readonly #unusedPages: PageSet;
  readonly #obstacle: () => string | undefined;
  #asked: Asked | undefined;

  /**
   * `unusedPages` is where the device puts the pages that an answer names; `obstacle` says why the guest cannot answer at
   * all, where it cannot.
   */
  constructor(
    name: string,
    device: BalloonDevice,
    reactor: Reactor,
    { unusedPages, obstacle }: { readonly unusedPages: PageSet; readonly obstacle: () => string | undefined },
  ) {
    this.#name = name;
    this.#device = device;
    this.#reactor = reactor;
    this.#unusedPages = unusedPages;
    this.#obstacle = obstacle;
  }

  /** Resolves with the whole answer. @throws GuestStateError when there is none, or none in time */
  ask(request: GuestRequest, timeoutMs: number): Promise<RequestAnswer> {
    const device = this.#device;
    const obstacle = this.#obstacle();
    if (obstacle !== undefined && this.#device.profile.freePages.kind === 'request') {
      throw new GuestStateError(`${this.#name} takes no requests: ${obstacle}`);
    }
    if (!device.requests.running)
      throw new GuestStateError(`${this.#name} takes no requests: ${this.#why()}`);
    if (this.#asked !== undefined) {
      throw new GuestStateError(
        `${this.#name} is still at ${this.#asked.request}; ask again when it is done`,
      );
    }
    this.#unusedPages.clear();
    return new Promise((resolve, reject) => {
      const timer = this.#reactor.schedule(timeoutMs, () => {
        const { waiting } = device.requests;
        device.requests.cancel();
        // It said that this was all, and did not post its buffer again: the next request will find that.
        if (this.#progress?.done === true) return this.answered();
        this.#end(
          waiting
            ? `${this.#name} has not posted its buffer for requests within ${timeoutMs} ms; the posted drivers of v3 to v6 keep it after a request that they do not know, until they are loaded again`
            : `${this.#name} did not answer within ${timeoutMs} ms; it may be busy or stopped`,
        );
      });
      this.#asked = { request, startMs: monotonicMs(), timer, resolve, reject };
      device.requests.send(COMMAND[request]);
    });
  }

  /** What the device knows of the request that was asked. */
  get #progress(): RequestProgress | undefined {
    const { progress } = this.#device.requests;
    const asked = this.#asked;
    return asked !== undefined && progress?.command === COMMAND[asked.request] ? progress : undefined;
  }

  /** A request is over: the guest answered it, or went on without an answer. */
  answered(): void {
    const asked = this.#asked;
    const progress = this.#progress;
    if (asked === undefined || progress === undefined) return;
    // v5's driver says that a list is its last only where the guest has a single page that is free.
    if (!progress.done && progress.lists === 0) {
      this.#end(
        `${this.#name} gave no answer to ${asked.request}: its driver does not know the request (the posted drivers know unused-pages only)`,
      );
      return;
    }
    this.#asked = undefined;
    asked.timer.cancel();
    asked.resolve({
      request: asked.request,
      unusedBytes: this.#unusedPages.pages * PAGE_SIZE,
      lists: progress.lists,
      elapsedMs: monotonicMs() - asked.startMs,
    });
  }

  /** The guest's driver is gone, and so is whatever was asked of it. */
  stop(): void {
    this.#end(`${this.#name} left before it answered`);
  }

  #end(reason: string): void {
    const asked = this.#asked;
    this.#asked = undefined;
    asked?.timer.cancel();
    asked?.reject(new GuestStateError(reason));
  }

  #why(): string {
    const { profile, driverFeatures } = this.#device;
    if (profile.freePages.kind !== 'request') return `the ABI ${profile.name} has no queue for them`;
    return driverFeatures === 0n ? 'no guest is connected' : 'its driver did not take the feature';
  }
}
