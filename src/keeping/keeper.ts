/**
 * A process that keeps descriptors for a daemon, so that they outlive it: it takes them, gives them all to the next daemon,
 * and does nothing else. One daemon is served at a time. The next one waits in the backlog until the kernel has closed the
 * connection of the former, which it does when the last thread of that process has ended.
 */
import { closeAll, type OwnedFd } from '../sys/fd.ts';
import type { Reactor, Watch } from '../sys/poll.ts';
import { Shed } from '../sys/shed.ts';
import type { UnixListener, UnixSocket } from '../sys/socket.ts';
import { peerOfFd } from '../sys/unix-peers.ts';
import {
  decodeKeeperRecord,
  encodeKeeperRecord,
  KEEPER_OPERATION,
  KEEPER_RECORD_BYTES,
  type KeeperRecord,
} from './keeper-protocol.ts';

/** Descriptors that are kept at most: some dozens for each of a hundred guests. */
const ENTRIES_MAX = 8192;

type Entry = Pick<KeeperRecord, 'guest' | 'number'> & { readonly fd: OwnedFd };

export class Keeper {
  readonly #listener: UnixListener;
  readonly #reactor: Reactor;
  readonly #warn: (message: string) => void;
  readonly #entriesMax: number;
  readonly #entries = new Map<string, Entry>();
  readonly #record = new Uint8Array(KEEPER_RECORD_BYTES);
  /** What daemons sent is closed on threads of its own: closing it can take long. */
  readonly #shed = new Shed();
  #daemon: UnixSocket | undefined;
  #watch: Watch | undefined;
  /** What is still to be given to the daemon. */
  #giving: Entry[] = [];
  #endOwed = false;

  /** Takes ownership of the listener. */
  constructor(
    listener: UnixListener,
    reactor: Reactor,
    warn: (message: string) => void,
    entriesMax = ENTRIES_MAX,
  ) {
    this.#entriesMax = entriesMax;
    this.#listener = listener;
    this.#reactor = reactor;
    this.#warn = warn;
    this.#await();
  }

  get size(): number {
    return this.#entries.size;
  }

  close(): void {
    this.#leave();
    this.#watch?.stop();
    this.#listener.close();
    for (const { fd } of this.#entries.values()) fd.close();
    this.#entries.clear();
  }

  #await(): void {
    this.#watch = this.#reactor.watch(this.#listener.fd, () => {
      const daemon = this.#listener.accept(this.#shed);
      if (daemon === undefined) return;
      const uid = peerOfFd(daemon.fd.number)?.uid;
      if (uid !== process.getuid?.() && uid !== 0) {
        this.#warn(`a process of user ${uid} was turned away`);
        daemon.close();
        return;
      }
      this.#watch?.stop();
      this.#daemon = daemon;
      this.#watch = this.#reactor.watch(daemon.fd, () => this.#serve(daemon));
    });
  }

  #leave(): void {
    if (this.#daemon === undefined) return;
    this.#daemon.close();
    this.#daemon = undefined;
    this.#giving = [];
    this.#endOwed = false;
    this.#watch?.stop();
    this.#await();
  }

  #serve(daemon: UnixSocket): void {
    try {
      for (let received = daemon.receive(this.#record); received; received = daemon.receive(this.#record)) {
        if (received.length !== KEEPER_RECORD_BYTES) {
          closeAll(received.fds);
          this.#leave();
          return;
        }
        this.#obey(decodeKeeperRecord(this.#record), received.fds);
      }
      this.#give(daemon);
    } catch (error) {
      this.#warn(`the daemon is let go: ${error instanceof Error ? error.message : String(error)}`);
      this.#leave();
    }
  }

  #obey({ operation, guest, number }: KeeperRecord, fds: readonly OwnedFd[]): void {
    const [fd] = fds;
    const key = `${guest} ${number}`;
    if (operation === KEEPER_OPERATION.keep && fd !== undefined) {
      this.#drop(key);
      if (this.#entries.size < this.#entriesMax) {
        this.#entries.set(key, { guest, number, fd });
        return;
      }
      this.#warn(`${guest} is not kept whole: the table is full with ${this.#entriesMax} descriptors`);
    } else if (operation === KEEPER_OPERATION.drop) {
      this.#drop(key);
    } else if (operation === KEEPER_OPERATION.clear) {
      for (const [kept, entry] of this.#entries) if (entry.guest === guest) this.#drop(kept);
    } else if (operation === KEEPER_OPERATION.take) {
      this.#giving = [...this.#entries.values()];
      this.#endOwed = true;
    }
    closeAll(fds);
  }

  #drop(key: string): void {
    this.#entries.get(key)?.fd.close();
    this.#entries.delete(key);
  }

  #give(daemon: UnixSocket): void {
    // Threads of the daemon may have dropped some since it asked.
    this.#giving = this.#giving.filter(({ fd }) => fd.open);
    while (this.#giving.length > 0) {
      const { guest, number, fd } = this.#giving[0];
      const record = encodeKeeperRecord({ operation: KEEPER_OPERATION.kept, guest, number });
      if (daemon.send(record, [fd]) === 0) break;
      this.#giving.shift();
    }
    if (this.#endOwed && this.#giving.length === 0) {
      const end = encodeKeeperRecord({ operation: KEEPER_OPERATION.end, guest: '', number: 0 });
      if (daemon.send(end) > 0) this.#endOwed = false;
    }
    if (this.#watch !== undefined) this.#watch.wantWrite = this.#endOwed;
  }
}
