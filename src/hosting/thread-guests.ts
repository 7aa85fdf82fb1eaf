/**
 * The guests of one data-plane thread, and what the main thread asks of them and of the thread: one answer for each
 * request, which goes back with the request's number. How requests get here, and the loop that serves the guests between
 * them, is data-worker.ts's.
 */
import { UnknownGuestError } from '../control/errors.ts';
import { THREAD_OPERATIONS, type ThreadOperation } from '../control/operations.ts';
import type { GuestsKeeper } from '../keeping/guests-keeper.ts';
import { mapEarly } from '../memory/early-windows.ts';
import { defined } from '../sys/defined.ts';
import { wireError } from '../sys/error.ts';
import type { Reactor } from '../sys/poll.ts';
import type { DiscardLink } from '../threads/discard-link.ts';
import { GuestHost } from './guest-host.ts';
import { abandonGuest, leaveGuest } from './guest-leaving.ts';
import { guestOperations } from './guest-operations.ts';
import type { GuestHostWorld } from './guest-world.ts';
import { ThreadTurns } from './thread-turns.ts';
import type {
  DataThreadRequest,
  DataThreadRequests,
  FromDataThread,
  RequestName,
} from './worker-protocol.ts';

interface ThreadPlace {
  readonly reactor: Reactor;
  readonly discards: DiscardLink;
  /** Keeps guests for the next daemon, where there is one that does. */
  readonly keeper?: GuestsKeeper | undefined;
  /** Takes what the main thread is told. */
  readonly tell: (message: FromDataThread) => void;
  /** The longest pause of this thread for garbage. */
  readonly gcPauseMaxMs: () => number;
}

/** What is asked of the thread itself, beside the operations of its guests. */
type OwnRequest = Exclude<RequestName, ThreadOperation>;

/** With the guest that a request names. */
type Answers = {
  readonly [K in OwnRequest]: (
    args: DataThreadRequests[K]['args'],
    guest: DataThreadRequests[K]['args'] extends { readonly name: string } ? GuestHost : undefined,
  ) => DataThreadRequests[K]['result'] | Promise<DataThreadRequests[K]['result']>;
};

type AnyAnswer = (args: unknown, guest: GuestHost | undefined) => unknown;
type AnyOperation = (guest: GuestHost, args: object) => unknown;

const isOperation = (name: RequestName): name is ThreadOperation =>
  (THREAD_OPERATIONS as readonly string[]).includes(name);

export class ThreadGuests {
  readonly #guests = new Map<string, GuestHost>();
  /** Guests that were left to another process, which may fail to go on with them. */
  readonly #left = new Map<string, GuestHost>();
  #rehearsing: GuestHost | undefined;
  readonly #place: ThreadPlace;
  readonly #world: GuestHostWorld;
  readonly #answers: Answers;

  constructor(place: ThreadPlace) {
    const { reactor, discards, keeper, tell } = place;
    this.#place = place;
    this.#world = {
      reactor,
      turns: new ThreadTurns(),
      discards,
      keeper,
      emit: (guest, type, detail) =>
        tell({ kind: 'event', event: { guest, type, timeMs: Date.now(), detail } }),
      log: (guest, level, message, detail) =>
        tell({ kind: 'log', record: { level, message, guest, ...defined({ detail }) } }),
    };
    this.#answers = this.#makeAnswers();
  }

  /** Answers a request. What is done at once for a guest counts as that guest's. */
  readonly serve = async ({ id, name, args }: DataThreadRequest): Promise<void> => {
    const { tell } = this.#place;
    try {
      const guest = args !== null && 'name' in args ? this.#find(args.name) : undefined;
      const fromMs = performance.now();
      let answer: unknown;
      try {
        answer =
          guest !== undefined && isOperation(name)
            ? (guestOperations[name] as AnyOperation)(guest, (args as { args?: object }).args ?? {})
            : (this.#answers[name as OwnRequest] as AnyAnswer)(args, guest);
      } finally {
        guest?.loop.charge(fromMs);
      }
      tell({ kind: 'answer', id, result: await answer });
    } catch (error) {
      tell({ kind: 'failure', id, ...wireError(error) });
    }
  };

  /** A thread that discards may have news. */
  progress(): void {
    for (const guest of this.#guests.values()) guest.progress();
    this.#rehearsing?.progress();
  }

  #find(name: string): GuestHost {
    const guest = this.#guests.get(name);
    if (guest === undefined) throw new UnknownGuestError(name, [...this.#guests.keys()]);
    return guest;
  }

  #makeAnswers(): Answers {
    const guests = this.#guests;
    const { reactor, discards, gcPauseMaxMs } = this.#place;
    return {
      openGuest: ({ options, socket }) => {
        const former = this.#left.get(options.name);
        if (former !== undefined) abandonGuest(former);
        this.#left.delete(options.name);
        guests.set(options.name, new GuestHost(options, socket, this.#world));
        return null;
      },
      leaveGuest: async (_, guest) => {
        const kept = await leaveGuest(guest);
        guests.delete(guest.name);
        this.#left.set(guest.name, guest);
        return kept;
      },
      closeGuest: async (_, guest) => {
        await guest.close();
        guests.delete(guest.name);
        return null;
      },
      guests: () => [...guests.values()].map(guest => guest.status()),
      renewLeases: order => [...guests.values()].filter(({ target }) => target.lease.renew(order)).length,
      samples: () => Object.fromEntries([...guests].map(([name, guest]) => [name, guest.statistics.sample])),
      mapSources: (_, guest) => guest.mapSources(),
      balloon: (_, guest) => guest.balloon(),
      mapMemory: (_, guest) => {
        for (const { region } of guest.device.accounts.all) mapEarly(region.backing, region.size);
        return null;
      },
      saveDevice: (_, guest) => guest.save(),
      loadDevice: async ({ saved }, guest) => {
        await guest.load(saved);
        return null;
      },
      followFreePages: ({ followed }, guest) => {
        guest.hints.freePages.follow(followed);
        return null;
      },
      freePages: ({ step }, guest) => {
        guest.hints.freePages.command(step);
        return null;
      },
      decodeMs: (_, guest) => guest.device.counters.decodeMs,
      thread: () => ({ gcPauseMaxMs: gcPauseMaxMs() }),
      rehearse: async () => {
        const { rehearse } = await turning(reactor, import('./rehearsal.ts'));
        await rehearse(this.#world, host => {
          this.#rehearsing = host;
        });
        return null;
      },
      addDiscardPort: ({ port }) => {
        discards.addThread(port);
        return null;
      },
      close: async () => {
        await Promise.all([...guests.values()].map(guest => guest.close({ stays: true })));
        guests.clear();
        reactor.stop();
        return null;
      },
    };
  }
}

/** What Node does in its own loop, between turns: the reactor does not rest until that is done. */
async function turning<T>(reactor: Reactor, work: Promise<T>): Promise<T> {
  let isDone = false;
  const turn = (): void => {
    if (!isDone) reactor.schedule(1, turn);
  };
  turn();
  try {
    return await work;
  } finally {
    isDone = true;
  }
}
