/** A daemon and what keeps its guests: what the daemon before left there, for the guests that are opened now. */
import type { LogRecord } from '../hosting/options.ts';
import type { KeeperPlace } from '../hosting/worker-protocol.ts';
import {
  DescriptorStore,
  isStoredName,
  restoredDescriptors,
  StoreRoom,
} from '../keeping/descriptor-store.ts';
import type { KeeperKind } from '../keeping/guests-keeper.ts';
import { connectToKeeper, KeeperLink, type KeptDescriptors } from '../keeping/keeper-link.ts';
import { AerostatError, assert, SystemError } from '../sys/error.ts';
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import { connectToServiceManager, passedDescriptors } from '../sys/service-manager.ts';
import { UnixSocket } from '../sys/socket.ts';

/** Descriptors of a guest, by the numbers that they are kept under; they are the holder's. */
export type KeptNumbers = readonly (readonly [number: number, fd: number])[];

/** In place of a keeper's socket: the service manager stores descriptors. */
const SERVICE_MANAGER = 'systemd';

type Log = (record: LogRecord) => void;
type Warn = (message: string) => void;

export class Keeping {
  readonly #keeper: KeeperLink | DescriptorStore;
  #left: Map<string, Map<number, OwnedFd>>;
  readonly #warn: Warn;

  constructor(keeper: KeeperLink | DescriptorStore, left: KeptDescriptors, warn: Warn) {
    this.#keeper = keeper;
    this.#left = new Map(left);
    this.#warn = warn;
  }

  /** How threads reach it. */
  get place(): KeeperPlace {
    const fd = this.descriptor.number;
    if (this.#keeper instanceof KeeperLink) return { kind: 'process', fd };
    return { kind: 'manager', fd, room: this.#keeper.room.shared };
  }

  /** Its socket, for the daemon that comes after this one. */
  get descriptor(): OwnedFd {
    return this.#keeper.descriptor;
  }

  /** What is kept of a guest, whose descriptors are the caller's from now on. */
  give(guest: string): KeptNumbers {
    const fds = this.#left.get(guest);
    this.#left.delete(guest);
    return [...(fds ?? [])].map(([number, fd]) => [number, fd.release()] as const);
  }

  /**
   * Takes what is kept once more: another daemon was to have it, and is gone.
   * @throws AerostatError, SystemError where that cannot be had
   */
  async takeBack(): Promise<void> {
    if (!(this.#keeper instanceof KeeperLink)) {
      throw new AerostatError(
        'AEROSTAT_KEEPER',
        'a service manager gives what it stores to a new process only',
      );
    }
    this.#left = new Map(await this.#keeper.take());
  }

  /**
   * Waits until the daemon that the keeper serves has ended, and takes what it left.
   * @throws AerostatError, SystemError when the keeper is gone; the reason of `interrupt`, when that comes first
   */
  async takeInTurn(interrupt: AbortSignal): Promise<void> {
    assert(this.#keeper instanceof KeeperLink, 'a turn at a service manager');
    this.#left = new Map(await this.#keeper.takeInTurn(interrupt));
  }

  /** Lets go of guests that this daemon does not serve. */
  forgetRest(): void {
    for (const [guest, fds] of this.#left) {
      this.#warn(`${guest} was kept, and is let go: this daemon is not asked to serve it`);
      this.#keeper.of(guest, fds);
      this.#keeper.clear(guest);
    }
    this.dropRest();
  }

  /** What is kept of guests that are served already is not needed a second time. */
  dropRest(): void {
    for (const fds of this.#left.values()) closeAll(fds.values());
    this.#left.clear();
  }
}

const warnBy =
  (log: Log): Warn =>
  message =>
    log({ level: 'warn', message });

/**
 * What keeps the guests: the keeper at a path, or the service manager. Undefined where nothing is to, or, with a warning, where
 * what is to is not there.
 * @throws AerostatError AEROSTAT_KEEPER when the keeper serves another daemon
 */
export async function openKeeping(keep: string | undefined, log: Log): Promise<Keeping | undefined> {
  const warn = warnBy(log);
  const stored = restoredDescriptors(passedDescriptors(process.env, isStoredName));
  if (keep === SERVICE_MANAGER) return openStore(stored, warn);
  letGo(stored, warn);
  if (keep === undefined) return undefined;
  try {
    const { link, kept } = await connectToKeeper(keep, why => warn(`the keeper is given up: ${why}`));
    return new Keeping(link, kept, warn);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    warn(
      `no keeper answers at ${keep} (${error.errnoName}); guests lose their balloon when this daemon ends: start one with aerostat keep, and then this daemon anew`,
    );
    return undefined;
  }
}

/**
 * A place in the queue at the keeper at a path, for a daemon that stands by.
 * @throws AerostatError AEROSTAT_KEEPER when no keeper is there: nothing else would say when the daemon before has ended
 */
export function queueForKeeper(path: string, log: Log): Keeping {
  const warn = warnBy(log);
  letGo(restoredDescriptors(passedDescriptors(process.env, isStoredName)), warn);
  try {
    const link = KeeperLink.to(path, why => warn(`the keeper is given up: ${why}`));
    return new Keeping(link, new Map(), warn);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new AerostatError(
      'AEROSTAT_KEEPER',
      `no keeper answers at ${path} (${error.errnoName}), and without one a daemon cannot stand by: start one with aerostat keep`,
    );
  }
}

function openStore(stored: KeptDescriptors, warn: Warn): Keeping | undefined {
  const store = connectToStore(warn);
  if (store !== undefined) return new Keeping(store, stored, warn);
  for (const fds of stored.values()) closeAll(fds.values());
  warn(
    '--keep=systemd, and no service manager has started this process (NOTIFY_SOCKET is not set); guests lose their balloon when this daemon ends',
  );
  return undefined;
}

/** Guests that a daemon kept which was started with --keep=systemd, as this one is not: their front-ends are to know. */
function letGo(stored: KeptDescriptors, warn: Warn): void {
  if (stored.size === 0) return;
  const store = connectToStore(warn);
  for (const [guest, fds] of stored) {
    warn(
      `${guest} was kept by the service manager, and is let go: this daemon is started without --keep=systemd`,
    );
    store?.of(guest, fds);
    store?.clear(guest);
    closeAll(fds.values());
  }
  store?.close();
}

function connectToStore(warn: Warn): DescriptorStore | undefined {
  const socket = connectToServiceManager(process.env);
  return socket && storeAt(socket, warn);
}

const storeAt = (socket: UnixSocket, warn: Warn): DescriptorStore =>
  new DescriptorStore(socket, StoreRoom.of(process.env), {
    warn,
    later: (delayMs, run) => void setTimeout(run, delayMs),
  });

/** What kept the guests of the daemon before. */
export function inheritKeeping(kind: KeeperKind, fd: OwnedFd, log: Log): Keeping {
  const warn = warnBy(log);
  const socket = new UnixSocket(fd);
  const keeper =
    kind === 'process'
      ? new KeeperLink(socket, why => warn(`the keeper is given up: ${why}`))
      : storeAt(socket, warn);
  return new Keeping(keeper, new Map(), warn);
}
