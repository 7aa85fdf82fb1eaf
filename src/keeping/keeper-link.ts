/**
 * A daemon's end of the socket to its keeper. Several threads may tell the keeper things over one socket: a record goes whole
 * or not at all. A keeper that does not take it is given up with a warning, and guests are served on without.
 */
import { AerostatError, SystemError } from '../sys/error.ts';
import { closeAll, OwnedFd } from '../sys/fd.ts';
import { monotonicMs } from '../sys/monotonic.ts';
import { UnixSocket } from '../sys/socket.ts';
import { untilReadable } from '../sys/until-readable.ts';
import type { GuestsKeeper } from './guests-keeper.ts';
import {
  decodeKeeperRecord,
  encodeKeeperRecord,
  KEEPER_OPERATION,
  KEEPER_RECORD_BYTES,
} from './keeper-protocol.ts';
import type { DescriptorKeeper } from './kept-guest.ts';

/** A daemon that was killed is gone when the kernel has ended all of its threads, one of which may give memory back. */
const FORMER_MS_MAX = 10_000;

/** What is kept of guests, by their names: descriptors by their numbers. */
export type KeptDescriptors = ReadonlyMap<string, Map<number, OwnedFd>>;

export class KeeperLink implements GuestsKeeper {
  readonly #socket: UnixSocket;
  readonly #lost: (why: string) => void;
  #broken = false;

  /** `lost` is called once, when the keeper is given up. Takes ownership of the socket. */
  constructor(socket: UnixSocket, lost: (why: string) => void) {
    this.#socket = socket;
    this.#lost = lost;
  }

  /** Connects to the keeper at `path`, which may serve another daemon. @throws SystemError when there is none */
  static to(path: string, lost: (why: string) => void): KeeperLink {
    return new KeeperLink(UnixSocket.connect(path), lost);
  }

  /** For a thread of this process: the descriptor stays open as long as the process lives. */
  static ofNumber(fd: number, lost: (why: string) => void): KeeperLink {
    return new KeeperLink(new UnixSocket(new OwnedFd(fd)), lost);
  }

  /** Nothing waits here: what its socket does not take at once, it is not told. */
  readonly hasAll = true;

  /** What keeps the descriptors of a guest. */
  of(guest: string): DescriptorKeeper {
    return {
      keep: (number, fd) => this.#tell(KEEPER_OPERATION.keep, guest, number, [fd]),
      drop: number => this.#tell(KEEPER_OPERATION.drop, guest, number),
    };
  }

  /** Nothing of the guest is to be kept any more. */
  clear(guest: string): void {
    this.#tell(KEEPER_OPERATION.clear, guest, 0);
  }

  /**
   * Takes what the keeper has; waits for a moment until the daemon before has ended.
   * @throws SystemError; AerostatError AEROSTAT_KEEPER when that does not end
   */
  take(): Promise<KeptDescriptors> {
    return takeAll(this.#socket, monotonicMs() + FORMER_MS_MAX);
  }

  /**
   * Waits until the daemon before has ended, however long that takes, and takes what it left.
   * @throws AerostatError, SystemError; the reason of `interrupt`, when that comes first
   */
  takeInTurn(interrupt: AbortSignal): Promise<KeptDescriptors> {
    return takeAll(this.#socket, Number.POSITIVE_INFINITY, interrupt);
  }

  /** The same connection, for another process. */
  get descriptor(): OwnedFd {
    return this.#socket.fd;
  }

  close(): void {
    this.#socket.close();
  }

  #tell(operation: number, guest: string, number: number, fds: readonly OwnedFd[] = []): void {
    if (this.#broken) return;
    try {
      const sent = this.#socket.send(encodeKeeperRecord({ operation, guest, number }), fds);
      if (sent === 0) this.#breaks('it does not take what it is told as fast as it comes');
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#breaks(error.message);
    }
  }

  #breaks(why: string): void {
    this.#broken = true;
    this.#lost(why);
  }
}

/**
 * Connects to the keeper at `path` and takes what it keeps; waits until the daemon before has ended.
 * @throws SystemError when there is none; AerostatError AEROSTAT_KEEPER when another daemon does not end
 */
export async function connectToKeeper(
  path: string,
  lost: (why: string) => void,
): Promise<{ readonly link: KeeperLink; readonly kept: KeptDescriptors }> {
  const link = KeeperLink.to(path, lost);
  try {
    return { link, kept: await link.take() };
  } catch (error) {
    link.close();
    throw error;
  }
}

/** The keeper serves one daemon at a time, and this one when the kernel has closed the connection of the one before. */
async function takeAll(
  socket: UnixSocket,
  untilMs: number,
  interrupt?: AbortSignal,
): Promise<KeptDescriptors> {
  const kept = new Map<string, Map<number, OwnedFd>>();
  try {
    socket.send(encodeKeeperRecord({ operation: KEEPER_OPERATION.take, guest: '', number: 0 }));
    while (!takeKept(socket, kept)) {
      interrupt?.throwIfAborted();
      if (monotonicMs() > untilMs) {
        throw new AerostatError(
          'AEROSTAT_KEEPER',
          'the keeper serves another daemon; end that one, or give this one a keeper of its own',
        );
      }
      await untilReadable(socket.fd);
    }
    return kept;
  } catch (error) {
    for (const fds of kept.values()) closeAll(fds.values());
    throw error;
  }
}

/** True when all is there. */
function takeKept(socket: UnixSocket, kept: Map<string, Map<number, OwnedFd>>): boolean {
  const bytes = new Uint8Array(KEEPER_RECORD_BYTES);
  for (let received = socket.receive(bytes); received; received = socket.receive(bytes)) {
    const [fd, ...extra] = received.fds;
    closeAll(extra);
    if (received.length !== KEEPER_RECORD_BYTES) {
      fd?.close();
      throw new AerostatError(
        'AEROSTAT_KEEPER',
        'the keeper has ended, or is none; start one with aerostat keep',
      );
    }
    const { operation, guest, number } = decodeKeeperRecord(bytes);
    if (operation === KEEPER_OPERATION.end) return true;
    if (fd === undefined) continue;
    const fds = kept.get(guest) ?? new Map<number, OwnedFd>();
    kept.set(guest, fds.set(number, fd));
  }
  return false;
}
