/**
 * What a service manager's socket takes, and what it has no room for yet: that waits here and is offered again, in its order,
 * so that no thread waits for the service manager and nothing is lost while this process lives.
 */
import { SystemError } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { monotonicMs } from '../sys/monotonic.ts';
import type { UnixSocket } from '../sys/socket.ts';

/** What a store of descriptors has of the process that it is used in. */
export interface StoreWorld {
  readonly warn: (message: string) => void;
  /** Calls `run` once, so much later, or when the socket of the service manager takes something, where that shows earlier. */
  readonly later: (delayMs: number, run: () => void, socket?: OwnedFd) => void;
}

const RETRY_MS = 10;
/** A service manager that is busy takes what it is told within this time. */
const PATIENCE_MS = 5000;
/** Of what waits, so much goes in one go: the thread has guests to serve. */
const BATCH = 64;
/** Full, as the kernel says it: no room for the datagram, for its memory, or too many descriptors under way. */
const FULL = ['ENOBUFS', 'ENOMEM', 'ETOOMANYREFS'];

interface Waiting {
  readonly text: string;
  readonly fd: OwnedFd | undefined;
}

export class StoreOutbox {
  readonly #socket: UnixSocket;
  readonly #world: StoreWorld;
  /** By what is to become of which name: a name waits once at most to be stored, and once to be removed before that. */
  readonly #waiting = new Map<string, Waiting>();
  #scheduled = false;
  /** The socket takes something when it says so. */
  #tellsRoom = true;
  #fullSinceMs = 0;
  #warned = false;
  #broken = false;

  /** Takes ownership of the socket. */
  constructor(socket: UnixSocket, world: StoreWorld) {
    this.#socket = socket;
    this.#world = world;
  }

  get descriptor(): OwnedFd {
    return this.#socket.fd;
  }

  /** How much of what it was given is with the service manager not yet. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** All that it was given is with the service manager, or that takes too long to be waited for. */
  get isPast(): boolean {
    return this.#waiting.size === 0 || this.#warned;
  }

  /** The descriptor stays the caller's. */
  store(name: string, fd: OwnedFd): void {
    // What hangs up is let go by us, and not by the store.
    this.#tell(`store ${name}`, `FDSTORE=1\nFDPOLL=0\nFDNAME=${name}`, fd);
  }

  remove(name: string): void {
    const key = `store ${name}`;
    const stored = this.#waiting.get(key);
    if (stored === undefined) {
      this.#tell(`remove ${name}`, `FDSTOREREMOVE=1\nFDNAME=${name}`, undefined);
      return;
    }
    // It never came there.
    this.#waiting.delete(key);
    stored.fd?.close();
  }

  close(): void {
    this.flush();
    this.#drop();
    this.#socket.close();
  }

  #tell(key: string, text: string, fd: OwnedFd | undefined): void {
    if (this.#broken) return;
    if (this.#waiting.size === 0 && this.#send({ text, fd })) return;
    if (this.#broken) return;
    if (this.#waiting.size === 0) this.#fullSinceMs = monotonicMs();
    this.#waiting.set(key, { text, fd: fd?.duplicate() });
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const retry = () => {
      this.#scheduled = false;
      // Where it took nothing, it is not asked again at once.
      this.#tellsRoom = this.flush(BATCH) > 0;
      if (this.#waiting.size > 0) this.#schedule();
    };
    this.#world.later(RETRY_MS, retry, this.#tellsRoom ? this.#socket.fd : undefined);
  }

  /** Tells what waits, as far as there is room; returns how much of it went. */
  flush(most: number = Number.POSITIVE_INFINITY): number {
    let went = 0;
    for (const [key, waiting] of this.#waiting) {
      if (went === most || !this.#send(waiting)) break;
      went++;
      this.#waiting.delete(key);
      waiting.fd?.close();
    }
    if (went > 0) this.#fullSinceMs = monotonicMs();
    this.#complain();
    return went;
  }

  /** Once for each time that it is stuck. */
  #complain(): void {
    const { size } = this.#waiting;
    if (size === 0) this.#warned = false;
    if (size === 0 || this.#warned || monotonicMs() - this.#fullSinceMs < PATIENCE_MS) return;
    this.#warned = true;
    this.#world.warn(
      `the service manager does not take what it is to store (${size} messages wait): guests whose descriptors are among them would lose their balloon if this daemon ended now`,
    );
  }

  /** False when there is no room. */
  #send({ text, fd }: Waiting): boolean {
    if (this.#broken) return false;
    try {
      return this.#socket.send(new TextEncoder().encode(text), fd === undefined ? [] : [fd]) > 0;
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (!FULL.includes(error.errnoName)) this.#breaks(error.message);
      return false;
    }
  }

  #breaks(why: string): void {
    this.#broken = true;
    this.#drop();
    this.#world.warn(`the service manager stores nothing more (${why}): guests are kept no longer`);
  }

  #drop(): void {
    for (const { fd } of this.#waiting.values()) fd?.close();
    this.#waiting.clear();
  }
}
