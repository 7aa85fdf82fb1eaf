/**
 * Whether and where a back-end logs what it writes into guest memory: the front-end gives a log (SET_LOG_BASE), a doorbell
 * for it (SET_LOG_FD), and says when it is to be kept (F_LOG_ALL, or the flag of a ring). What of it says more than is
 * needed is harmless: a page that is sent once too often.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { PeerDoorbell } from '../sys/peer-doorbell.ts';
import { F_LOG_ALL, LOG_AREA } from './protocol.ts';
import type { FdList, SavedFds } from './saved-fds.ts';
import { type SessionState, SessionStateError } from './saved-session.ts';
import type { UnclaimedFds } from './unclaimed-fds.ts';
import { acceptDoorbell } from './vring.ts';
import { DirtyPagesLog } from './write-log.ts';

type SavedLogs = Pick<SessionState, 'log' | 'logDoorbell' | 'logsAll'>;

export class BackendLog {
  readonly #memory: GuestMemory;
  #log: DirtyPagesLog | undefined;
  #doorbell: PeerDoorbell | undefined;
  #all = false;
  #rings = false;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  save(fds: FdList): SavedLogs {
    const { backing } = this.#log ?? {};
    return {
      log: backing && { size: backing.size, fileOffset: backing.fileOffset, file: fds.note(backing.fd) },
      logDoorbell: fds.note(this.#doorbell?.fd),
      logsAll: this.#all,
    };
  }

  /**
   * Goes on with a log that was saved, before anything is written here; `rings` says whether those of any ring are logged.
   * @throws SessionStateError, VhostUserError, AerostatError when it is none; it is to be cleared then
   */
  load({ log, logDoorbell, logsAll }: SavedLogs, rings: boolean, fds: SavedFds): void {
    const file = fds.take(log?.file);
    if (log !== undefined) {
      if (file === undefined) throw new SessionStateError('it has a log without a file');
      this.#log = DirtyPagesLog.open(file, log.fileOffset, log.size);
    }
    const doorbell = fds.take(logDoorbell);
    this.#doorbell = doorbell && acceptDoorbell(doorbell);
    this.#all = logsAll;
    this.#rings = rings;
    this.#apply();
  }

  /** SET_LOG_BASE: the log takes the place of the one before. */
  setBase(body: DataView, fds: UnclaimedFds): void {
    const { size, offset } = LOG_AREA.read(body);
    const fd = fds.take();
    if (fd === undefined) return;
    const log = DirtyPagesLog.open(fd, offset, size);
    this.#log?.close();
    this.#log = log;
    this.#apply();
  }

  /** SET_LOG_FD. */
  setDoorbell(fds: UnclaimedFds): void {
    const fd = fds.take();
    if (fd === undefined) return;
    const doorbell = acceptDoorbell(fd);
    this.#doorbell?.close();
    this.#doorbell = doorbell;
    this.#apply();
  }

  /** Takes the bit out of the features that a driver took; true when it says something else than before. */
  switched(features: bigint): boolean {
    const all = (features & F_LOG_ALL) !== 0n;
    const changed = all !== this.#all;
    this.#all = all;
    this.#apply();
    return changed;
  }

  /** Whether the writes of any ring are to be logged. */
  ringsLogged(logged: boolean): void {
    this.#rings = logged;
    this.#apply();
  }

  /** Another front-end, or none. */
  clear(): void {
    this.#memory.log = undefined;
    this.#log?.close();
    this.#doorbell?.close();
    this.#log = undefined;
    this.#doorbell = undefined;
    this.#all = false;
    this.#rings = false;
  }

  #apply(): void {
    if (this.#log !== undefined) this.#log.doorbell = this.#doorbell;
    this.#memory.log = this.#all || this.#rings ? this.#log : undefined;
  }
}
