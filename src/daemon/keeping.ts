/** A daemon and its keeper: what the daemon before left there, for the guests that are opened now. */
import type { LogRecord } from '../hosting/options.ts';
import { connectToKeeper, KeeperLink, type KeptDescriptors } from '../keeping/keeper-link.ts';
import { SystemError } from '../sys/error.ts';
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import { UnixSocket } from '../sys/socket.ts';

/** Descriptors of a guest, by the numbers that they are kept under; they are the holder's. */
export type KeptNumbers = readonly (readonly [number: number, fd: number])[];

export class Keeping {
  readonly #link: KeeperLink;
  #left: Map<string, Map<number, OwnedFd>>;
  readonly #warn: (message: string) => void;

  constructor(link: KeeperLink, left: KeptDescriptors, warn: (message: string) => void) {
    this.#link = link;
    this.#left = new Map(left);
    this.#warn = warn;
  }

  /** The number of the keeper's socket, for threads. */
  get number(): number {
    return this.#link.number;
  }

  /** The keeper's socket, for the daemon that comes after this one. */
  get descriptor(): OwnedFd {
    return this.#link.descriptor;
  }

  /** What is kept of a guest, whose descriptors are the caller's from now on. */
  give(guest: string): KeptNumbers {
    const fds = this.#left.get(guest);
    this.#left.delete(guest);
    return [...(fds ?? [])].map(([number, fd]) => [number, fd.release()] as const);
  }

  /** Takes what the keeper has once more: another daemon was to have it, and is gone. */
  async takeBack(): Promise<void> {
    this.#left = new Map(await this.#link.take());
  }

  /** Lets go of guests that this daemon does not serve. */
  forgetRest(): void {
    for (const [guest, fds] of this.#left) {
      this.#warn(`${guest} was kept, and is let go: this daemon is not asked to serve it`);
      closeAll(fds.values());
      this.#link.clear(guest);
    }
    this.#left.clear();
  }

  /** What the keeper has of guests that are served already is not needed a second time. */
  dropRest(): void {
    for (const fds of this.#left.values()) closeAll(fds.values());
    this.#left.clear();
  }
}

type Log = (record: LogRecord) => void;

/**
 * Undefined, with a warning, where there is no keeper.
 * @throws AerostatError AEROSTAT_KEEPER when it serves another daemon
 */
export async function openKeeping(path: string, log: Log): Promise<Keeping | undefined> {
  const warn = (message: string): void => log({ level: 'warn', message });
  try {
    const { link, kept } = await connectToKeeper(path, why => warn(`the keeper is given up: ${why}`));
    return new Keeping(link, kept, warn);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    warn(
      `no keeper answers at ${path} (${error.errnoName}); guests lose their balloon when this daemon ends: start one with aerostat keep, and then this daemon anew`,
    );
    return undefined;
  }
}

/** The connection to a keeper that the daemon before had. */
export function inheritKeeping(fd: OwnedFd, log: Log): Keeping {
  const warn = (message: string): void => log({ level: 'warn', message });
  const link = new KeeperLink(new UnixSocket(fd), why => warn(`the keeper is given up: ${why}`));
  return new Keeping(link, new Map(), warn);
}
