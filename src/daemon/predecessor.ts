/**
 * The daemon whose place this one takes: it started this process, and hands over its guests one by one, each only when this
 * one has gone on with the one before. Until this one says that it serves, the other takes everything back if it fails.
 */
import { GUEST_VERSION } from '../keeping/guest-file.ts';
import type { KeeperKind } from '../keeping/guests-keeper.ts';
import { HandOverLink, handOverError, type Received } from '../keeping/hand-over.ts';
import { InvariantError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { monotonicMs } from '../sys/monotonic.ts';
import { UnixSocket } from '../sys/socket.ts';
import type { KeptNumbers } from './keeping.ts';

/** The number of the descriptor by which the two speak is in it. */
export const HAND_OVER_VARIABLE = 'AEROSTAT_HAND_OVER';

/** What keeps the guests; the descriptor is its socket. */
export interface HandedKeeper {
  readonly kind: KeeperKind;
  readonly descriptor: OwnedFd;
}

/** The other one bounds how long all of it takes; this is for one that hangs. */
const PATIENCE_MS = 120_000;

/** What a daemon hands over of one guest. The descriptors are the receiver's. */
export interface HandedGuest {
  readonly name: string;
  /** Its listening socket. */
  readonly listener: number;
  readonly kept: KeptNumbers;
}

export class Predecessor {
  readonly #link: HandOverLink;
  readonly #untilMs = monotonicMs() + PATIENCE_MS;
  #api: OwnedFd | undefined;
  #served = false;

  constructor(fd: number) {
    this.#link = new HandOverLink(new UnixSocket(new OwnedFd(fd)));
  }

  /** Undefined in a process that was started in another way. */
  static of(env: Readonly<Record<string, string | undefined>>): Predecessor | undefined {
    const number = env[HAND_OVER_VARIABLE];
    // What this process starts is no daemon in its place.
    delete process.env[HAND_OVER_VARIABLE];
    return number !== undefined && /^\d{1,6}$/.test(number) ? new Predecessor(Number(number)) : undefined;
  }

  /** Resolves with what keeps the guests; its descriptor is the caller's. */
  async begin(): Promise<HandedKeeper> {
    const api = await this.#receive();
    if (api.message.kind !== 'api') throw unexpected(api.message.kind);
    [this.#api] = api.fds;
    const { message, fds } = await this.#receive();
    if (message.kind !== 'keeper') throw unexpected(message.kind);
    return { kind: message.place, descriptor: fds[0] };
  }

  /** The socket of the API, which is the caller's. */
  get api(): OwnedFd {
    if (this.#api === undefined) throw new InvariantError('a hand-over that has not begun');
    return this.#api;
  }

  /** This process can serve `guests` as soon as they come. */
  ready(version: string, guests: readonly string[]): Promise<void> {
    return this.#link.send({ kind: 'ready', version, stateVersion: GUEST_VERSION, guests });
  }

  /** Calls `open` for each guest; what it throws, the other daemon is told. */
  async takeGuests(open: (guest: HandedGuest) => Promise<void>): Promise<void> {
    const kept = new Map<string, (readonly [number, number])[]>();
    for (;;) {
      const { message, fds } = await this.#receive();
      if (message.kind === 'all') return;
      if (message.kind === 'kept') {
        const numbers = kept.get(message.guest) ?? [];
        numbers.push(...message.numbers.map((number, at) => [number, fds[at].release()] as const));
        kept.set(message.guest, numbers);
        continue;
      }
      // The last that comes of a guest.
      if (message.kind !== 'listener') throw unexpected(message.kind);
      const [listener] = fds;
      await open({
        name: message.guest,
        listener: listener.release(),
        kept: kept.get(message.guest) ?? [],
      });
      await this.#link.send({ kind: 'taken', guest: message.guest });
    }
  }

  /** From now on the other one ends. */
  async serving(): Promise<void> {
    this.#served = true;
    await this.#link.send({ kind: 'serving' });
    this.#link.close();
  }

  /**
   * Tells the other one why this one does not serve, which is ended for it. Resolves only when that one is gone, and there is
   * no daemon to take the guests back; does nothing once this one serves.
   */
  async failed(message: string): Promise<void> {
    if (this.#served) return;
    this.#served = true;
    await this.#link.send({ kind: 'failed', message }).catch(() => {});
    while ((await this.#link.receive(this.#untilMs).catch(() => undefined)) !== undefined);
  }

  async #receive(): Promise<Received> {
    const received = await this.#link.receive(this.#untilMs);
    if (received === undefined) throw handOverError('the daemon that was to be replaced has ended');
    return received;
  }
}

const unexpected = (kind: string): Error => handOverError(`${kind} was not expected in a hand-over`);
