/**
 * systemd's store of file descriptors (`FDSTORE=1` of sd_notify(3)) as the keeper of guests: what it has comes with the next
 * process of the unit, by name. A name is the guest's, a slash, and the number that the descriptor is kept under.
 *
 * The store takes one descriptor of those that share an open file, and front-ends send the same one more than once: memory
 * for two regions, a doorbell for two rings. Of such numbers the first one's name has the file, and each other has a name
 * that says whose, with an empty file of its own. A file stays in the store as long as a name of either kind needs it.
 */
import type { OwnedFd } from '../sys/fd.ts';
import { createMemfd, isSameOpenFile } from '../sys/file.ts';
import type { UnixSocket } from '../sys/socket.ts';
import type { GuestsKeeper } from './guests-keeper.ts';
import type { KeptDescriptors } from './keeper-link.ts';
import type { DescriptorKeeper } from './kept-guest.ts';
import { StoreOutbox, type StoreWorld } from './store-outbox.ts';

/** A guest's name holds none of the last two characters. */
const NAME = /^([^/=]+)\/(\d{1,9})(?:=(\d{1,9}))?$/;
const ROOM_MAX = 2 ** 31 - 1;

type Environment = Readonly<Record<string, string | undefined>>;

/** How many descriptors the service manager stores, of which all threads of the daemon have to take their part. */
export class StoreRoom {
  readonly shared: SharedArrayBuffer;
  readonly #left: Int32Array;

  constructor(shared: SharedArrayBuffer) {
    this.shared = shared;
    this.#left = new Int32Array(shared);
  }

  /** systemd says it from version 254 on (`FDSTORE`); before that a store that is full keeps silent. */
  static of({ FDSTORE: most = '' }: Environment): StoreRoom {
    const room = new StoreRoom(new SharedArrayBuffer(4));
    room.#left[0] = /^\d{1,9}$/.test(most) ? Number(most) : ROOM_MAX;
    return room;
  }

  /** For one that is to be stored; false where there is no room for it. */
  take(): boolean {
    if (Atomics.sub(this.#left, 0, 1) > 0) return true;
    this.give();
    return false;
  }

  /** For one that is there already. */
  note(): void {
    Atomics.sub(this.#left, 0, 1);
  }

  give(): void {
    Atomics.add(this.#left, 0, 1);
  }
}

export class DescriptorStore implements GuestsKeeper {
  readonly #outbox: StoreOutbox;
  readonly #room: StoreRoom;
  readonly #warn: (message: string) => void;
  readonly #guests = new Map<string, StoredGuest>();

  /** Takes ownership of the socket to the service manager. */
  constructor(socket: UnixSocket, room: StoreRoom, world: StoreWorld) {
    this.#outbox = new StoreOutbox(socket, world);
    this.#room = room;
    this.#warn = world.warn;
  }

  get descriptor(): OwnedFd {
    return this.#outbox.descriptor;
  }

  get room(): StoreRoom {
    return this.#room;
  }

  get hasAll(): boolean {
    return this.#outbox.waiting === 0;
  }

  of(guest: string, kept: ReadonlyMap<number, OwnedFd> = new Map()): DescriptorKeeper {
    const known =
      this.#guests.get(guest) ?? new StoredGuest(guest, this.#outbox, this.#room, this.#warn, kept);
    this.#guests.set(guest, known);
    return known;
  }

  clear(guest: string): void {
    this.#guests.get(guest)?.clear();
  }

  /** Once more what waits: the thread ends. */
  flush(): void {
    this.#outbox.flush();
  }

  close(): void {
    for (const guest of this.#guests.values()) guest.close();
    this.#outbox.close();
  }
}

interface Stored {
  /** A duplicate, to be compared with what comes. */
  readonly fd: OwnedFd;
  /** The number whose name has the file. */
  readonly file: number;
  /** There was room for it. */
  readonly isThere: boolean;
  /** Dropped, and in the store still for another number's sake. */
  dropped: boolean;
}

class StoredGuest implements DescriptorKeeper {
  readonly #guest: string;
  readonly #outbox: StoreOutbox;
  readonly #room: StoreRoom;
  readonly #warn: (message: string) => void;
  readonly #stored = new Map<number, Stored>();
  #warned = false;

  constructor(
    guest: string,
    outbox: StoreOutbox,
    room: StoreRoom,
    warn: (message: string) => void,
    kept: ReadonlyMap<number, OwnedFd>,
  ) {
    this.#guest = guest;
    this.#outbox = outbox;
    this.#room = room;
    this.#warn = warn;
    // Of those that share a file, the first number's name has it.
    for (const [number, fd] of [...kept].sort(([one], [other]) => one - other)) {
      room.note();
      this.#note(number, fd, true);
    }
  }

  get isKept(): boolean {
    return this.#outbox.isPast;
  }

  keep(number: number, fd: OwnedFd): void {
    this.drop(number);
    // It is there for others' sake, and its name is needed.
    if (this.#stored.has(number)) this.#rename(number);
    const isThere = this.#room.take();
    const { file } = this.#note(number, fd, isThere);
    if (!isThere) {
      this.#tellFull();
      return;
    }
    const name = this.#nameOf(number, file);
    if (file === number) {
      this.#outbox.store(name, fd);
      return;
    }
    // Empty files are no two alike, and cost next to nothing.
    const empty = createMemfd({ name: 'aerostat-alias', size: 0 });
    this.#outbox.store(name, empty);
    empty.close();
  }

  drop(number: number): void {
    const stored = this.#stored.get(number);
    if (stored === undefined) return;
    stored.dropped = true;
    const { file } = stored;
    if (file !== number) this.#remove(number);
    if (this.#stored.get(file)?.dropped === true && this.#sharersOf(file).length === 0) this.#remove(file);
  }

  clear(): void {
    for (const number of [...this.#stored.keys()]) this.#remove(number);
  }

  close(): void {
    for (const { fd } of this.#stored.values()) fd.close();
    this.#stored.clear();
  }

  /** The numbers that have their file under this one's name. */
  #sharersOf(file: number): number[] {
    return [...this.#stored].flatMap(([number, stored]) =>
      stored.file === file && number !== file ? [number] : [],
    );
  }

  /** The first of those that need the file of `number` has it under its own name from now on. */
  #rename(number: number): void {
    const sharers = this.#sharersOf(number);
    const fd = this.#stored.get(number)!.fd.duplicate();
    for (const one of [number, ...sharers]) this.#remove(one);
    for (const one of sharers) this.keep(one, fd);
    fd.close();
  }

  #note(number: number, fd: OwnedFd, isThere: boolean): Stored {
    const same = [...this.#stored.values()].find(stored => isSameOpenFile(stored.fd, fd));
    const stored = { fd: fd.duplicate(), file: same?.file ?? number, isThere, dropped: false };
    this.#stored.set(number, stored);
    return stored;
  }

  #nameOf(number: number, file: number): string {
    return `${this.#guest}/${number}${file === number ? '' : `=${file}`}`;
  }

  #remove(number: number): void {
    const { fd, file, isThere } = this.#stored.get(number)!;
    if (isThere) {
      this.#outbox.remove(this.#nameOf(number, file));
      this.#room.give();
    }
    fd.close();
    this.#stored.delete(number);
  }

  #tellFull(): void {
    if (this.#warned) return;
    this.#warned = true;
    this.#warn(
      `${this.#guest} is not kept whole, for the service manager has no more room (FileDescriptorStoreMax=): when this daemon ends, its front-end has to connect again`,
    );
  }
}

/** Whether the store has something of a guest under this name. */
export const isStoredName = (name: string): boolean => NAME.test(name);

/** What is kept of guests, from what the store has under which name. Takes ownership. */
export function restoredDescriptors(
  stored: readonly (readonly [name: string, fd: OwnedFd])[],
): KeptDescriptors {
  const kept = new Map<string, Map<number, OwnedFd>>();
  const named = stored.map(([name, fd]) => {
    const [, guest, number, file] = NAME.exec(name) ?? [];
    return { fd, guest, number: Number(number), file: file === undefined ? undefined : Number(file) };
  });
  for (const { fd, guest, number, file } of named) {
    if (guest === undefined || file !== undefined || kept.get(guest)?.has(number)) {
      fd.close();
      continue;
    }
    kept.set(guest, (kept.get(guest) ?? new Map<number, OwnedFd>()).set(number, fd));
  }
  for (const { guest, number, file } of named) {
    const fds = kept.get(guest ?? '');
    const shared = file === undefined ? undefined : fds?.get(file);
    if (shared !== undefined && !fds!.has(number)) fds!.set(number, shared.duplicate());
  }
  return kept;
}
