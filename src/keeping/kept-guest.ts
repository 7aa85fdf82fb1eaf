/**
 * A guest in memory that outlives its daemon, and the descriptors of its session with a keeper: what another daemon needs to
 * go on with a guest whose front-end notices nothing, at whichever moment this one ends. The layout is `guest-file.ts`'s, the
 * order in which messages are served and recorded `vhost-user/message-journal.ts`'s.
 *
 * - The account of the balloon is there and nowhere else, so it is always what it is. A deflation leaves it before its buffer
 *   is returned, and an inflation enters it before.
 * - Of a split ring nothing is written: where it stands is in its used ring, and what was taken after that is taken again. A
 *   packed ring has a log here (`virtio/ring-log.ts`). Both are right because all rings return buffers in their order.
 * - What is pending is not kept: all of the account is pending again, once the inflate ring starts.
 */

import type { BalloonDevice } from '../device/balloon-device.ts';
import { DISCARD_MODES, type DiscardMode } from '../device/discard-mode.ts';
import type { AccountPlace } from '../device/page-accounts.ts';
import type { BlockWords } from '../memory/block-bitmap.ts';
import { BLOCK_PAGES } from '../memory/block-bitmap.ts';
import type { MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { wordsFor } from '../memory/page-bitmap.ts';
import { AerostatError, assert } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import type { AddressedBytes } from '../sys/marked-send.ts';
import type { KeptConversation, KeptSession } from '../vhost-user/backend-connection.ts';
import type { BackendSession } from '../vhost-user/backend-session.ts';
import { MessageJournal, RECORD_BYTES_MAX } from '../vhost-user/message-journal.ts';
import { MEM_SLOTS_MAX } from '../vhost-user/protocol.ts';
import { RING_LOG_BYTES, RingLog } from '../virtio/ring-log.ts';
import {
  ACCOUNTS_AT,
  GUEST,
  GUEST_MAGIC,
  GUEST_VERSION,
  GUEST_VERSION_MIN,
  type GuestFile,
  JOURNAL_AT,
  PROFILE_AT,
  PROFILE_BYTES_MAX,
  RECORD,
  RING_LOGS,
  RING_LOGS_AT,
  TENURE,
} from './guest-file.ts';
import { NumberedFds } from './numbered-fds.ts';

/** A kept guest that cannot go on here. */
export class KeptGuestError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_KEPT_GUEST', `kept guest not taken over: ${message}`);
  }
}

/** Keeps descriptors of a guest, by numbers; what it keeps already under a number it lets go of first. */
export interface DescriptorKeeper {
  keep(number: number, fd: OwnedFd): void;
  drop(number: number): void;
  /** False as long as something of it would be lost with this process, and is waited for; where it is silent, nothing would. */
  readonly isKept?: boolean;
}

/** Numbers of descriptors that every guest has, and the first of others. */
export const FILE_NUMBER = 0;
export const SOCKET_NUMBER = 1;
const NUMBER_MIN = 2;

/** How a guest is steered. */
interface Steering {
  readonly targetPages: number;
  readonly mode: DiscardMode;
  readonly pollIntervalMs: number;
  readonly wishedMemoryBytes: number | null;
}

interface Area {
  readonly offset: number;
  readonly length: number;
  readonly memory: AddressedBytes & { close(): void };
}

export class KeptGuest implements AccountPlace, KeptConversation {
  readonly journal: MessageJournal;
  readonly untold: Uint32Array;
  /** The device, from when there is one; what is kept of it is written from then on. */
  device: BalloonDevice | undefined;
  /** How the guest is steered now, from when it is. */
  steered: (() => Steering) | undefined;
  readonly #file: GuestFile;
  readonly #keeper: DescriptorKeeper;
  readonly #memory: AddressedBytes;
  readonly #areas = new Map<MemoryRegion, Area>();
  #accountsEnd = ACCOUNTS_AT;
  /** Places of accounts that are there, for the regions that come next. */
  #found: number[] = [];
  #names = new Map<OwnedFd, number>();
  /** Numbers in the last record. */
  #recorded = new Set<number>();
  #regions: ReadonlySet<MemoryRegion> = new Set();
  #nextNumber = NUMBER_MIN;

  private constructor(file: GuestFile, keeper: DescriptorKeeper) {
    this.#file = file;
    this.#keeper = keeper;
    this.#memory = file.map(0, ACCOUNTS_AT);
    const { address, bytes } = this.#memory;
    this.untold = new Uint32Array(bytes.buffer, bytes.byteOffset + GUEST.offset.untoldPages, 1);
    const journal = bytes.subarray(JOURNAL_AT);
    this.journal = new MessageJournal(
      {
        address: address + JOURNAL_AT,
        bytes: journal,
        view: new DataView(journal.buffer, journal.byteOffset, journal.length),
      },
      { keep: fds => this.#keepInRow(fds), isKept: () => keeper.isKept ?? true },
    );
  }

  /** A guest that is new: `file` is empty. */
  static create(file: GuestFile, keeper: DescriptorKeeper, profile: string): KeptGuest {
    const kept = new KeptGuest(file, keeper);
    const { view, bytes } = kept.#memory;
    const name = new TextEncoder().encode(profile).subarray(0, PROFILE_BYTES_MAX);
    view.setUint32(PROFILE_AT, name.length, true);
    bytes.set(name, PROFILE_AT + 4);
    view.setUint32(GUEST.offset.version, GUEST_VERSION, true);
    // Last: without it the file is none.
    view.setUint32(GUEST.offset.magic, GUEST_MAGIC, true);
    return kept;
  }

  /**
   * A guest that another daemon left in `file`.
   * @throws KeptGuestError when it is another version's, or speaks another profile; nothing of it was touched
   */
  static open(file: GuestFile, keeper: DescriptorKeeper, profile: string): KeptGuest {
    if (file.size < ACCOUNTS_AT) throw new KeptGuestError('its file is cut short');
    const kept = new KeptGuest(file, keeper);
    const { view, bytes } = kept.#memory;
    const { magic, version } = GUEST.read(view);
    if (magic !== GUEST_MAGIC) throw new KeptGuestError('its file is none of ours');
    if (version < GUEST_VERSION_MIN || version > GUEST_VERSION) {
      throw new KeptGuestError(
        `its state has version ${version}, and this daemon reads versions ${GUEST_VERSION_MIN} to ${GUEST_VERSION}; its front-end has to connect again`,
      );
    }
    const length = Math.min(view.getUint32(PROFILE_AT, true), PROFILE_BYTES_MAX);
    const spoken = new TextDecoder().decode(bytes.slice(PROFILE_AT + 4, PROFILE_AT + 4 + length));
    if (spoken !== profile) {
      throw new KeptGuestError(`it speaks profile ${spoken}, and this daemon offers it ${profile}`);
    }
    return kept;
  }

  // How it is steered -------------------------------------------------------------------------------------

  get steering(): Steering {
    const { targetPages, mode, pollIntervalMs, wished, wishedMemoryBytes } = GUEST.read(this.#memory.view);
    return {
      targetPages,
      mode: DISCARD_MODES[mode] ?? 'auto',
      pollIntervalMs,
      wishedMemoryBytes: wished === 1 ? wishedMemoryBytes : null,
    };
  }

  #steer({ targetPages, mode, pollIntervalMs, wishedMemoryBytes }: Steering): void {
    const { view } = this.#memory;
    const { offset } = GUEST;
    // A wish before the word that makes it count, and after the one that makes it not.
    view.setUint32(offset.wished, 0, true);
    view.setUint32(offset.targetPages, targetPages, true);
    view.setUint32(offset.mode, Math.max(0, (DISCARD_MODES as readonly string[]).indexOf(mode)), true);
    view.setUint32(offset.pollIntervalMs, pollIntervalMs, true);
    if (wishedMemoryBytes === null) return;
    const low = wishedMemoryBytes % 2 ** 32;
    view.setUint32(offset.wishedMemoryBytes, low, true);
    view.setUint32(offset.wishedMemoryBytes + 4, (wishedMemoryBytes - low) / 2 ** 32, true);
    view.setUint32(offset.wished, 1, true);
  }

  /** Writes what of the device and its steering changes with messages alone, or with what its host asks for. */
  noteDevice(): void {
    const { device } = this;
    if (device === undefined) return;
    if (this.steered !== undefined) this.#steer(this.steered());
    const { view } = this.#memory;
    const { offset } = GUEST;
    view.setUint32(offset.actualPages, device.actualPages, true);
    view.setUint32(offset.poisonValue, device.poisonValue, true);
    view.setUint32(offset.hintId, device.hints.session.id ?? 0, true);
    this.tenureChanged();
  }

  tenureChanged(): void {
    if (this.device === undefined) return;
    const { begun, partial, settled, actualKnown } = this.device.inflation.tenure;
    const flags =
      (begun ? TENURE.begun : 0) |
      (partial ? TENURE.partial : 0) |
      (settled ? TENURE.settled : 0) |
      (actualKnown ? TENURE.actualKnown : 0);
    this.#memory.view.setUint32(GUEST.offset.tenure, flags, true);
  }

  /** Has the device go on: its session is loaded, and no ring runs yet. */
  #recover(): void {
    const { device } = this;
    if (device === undefined) return;
    const { actualPages, poisonValue, hintId, tenure } = GUEST.read(this.#memory.view);
    device.recover({
      actualPages,
      poisonValue,
      hintId,
      begun: (tenure & TENURE.begun) !== 0,
      partial: (tenure & TENURE.partial) !== 0,
      settled: (tenure & TENURE.settled) !== 0,
      actualKnown: (tenure & TENURE.actualKnown) !== 0,
    });
  }

  // Accounts ----------------------------------------------------------------------------------------------

  wordsOf(region: MemoryRegion): BlockWords {
    const blocks = Math.ceil(region.pageCount / BLOCK_PAGES);
    const words = wordsFor(region.pageCount);
    const countsBytes = toPages(blocks * 4);
    const length = countsBytes + toPages(words * 4);
    let offset = this.#found.shift();
    if (offset === undefined) {
      offset = this.#accountsEnd;
      this.#file.grow(offset + length);
      this.#accountsEnd = offset + length;
    }
    const memory = this.#file.map(offset, length);
    this.#areas.set(region, { offset, length, memory });
    const { buffer, byteOffset } = memory.bytes;
    return {
      counts: new Int32Array(buffer, byteOffset, blocks),
      words: new Int32Array(buffer, byteOffset + countsBytes, words),
    };
  }

  // Conversations -----------------------------------------------------------------------------------------

  ringLog(index: number): RingLog {
    assert(index < RING_LOGS, `a log of ring ${index}`);
    return new RingLog(this.#memory.view, RING_LOGS_AT + index * RING_LOG_BYTES);
  }

  /** A front-end has come, whose socket is `fd`. */
  begin(fd: OwnedFd): void {
    this.#keeper.keep(SOCKET_NUMBER, fd);
  }

  record(session: BackendSession, channel: OwnedFd | undefined): Uint8Array {
    this.noteDevice();
    const list = new NumberedFds(fd => this.#numberOf(fd));
    const state = session.record(channel, list);
    const { regions } = session.memory;
    const numbersAt = RECORD.size;
    const placesAt = numbersAt + Math.ceil(list.count / 2) * 8;
    const stateAt = placesAt + regions.length * 8;
    const bytes = new Uint8Array(stateAt + state.length);
    if (bytes.length > RECORD_BYTES_MAX) throw new KeptGuestError('its session is too large to be kept');
    // With this record an older daemon cannot go on. With what is there before, one that serves on after an upgrade failed can.
    this.#recordedHere();
    RECORD.write(new DataView(bytes.buffer), 0, {
      fds: list.count,
      regions: regions.length,
      accountsEnd: this.#accountsEnd,
    });
    new Uint32Array(bytes.buffer, numbersAt, list.count).set(list.numbers);
    const places = new Float64Array(bytes.buffer, placesAt, regions.length);
    regions.forEach((region, index) => {
      places[index] = this.#areas.get(region)?.offset ?? 0;
    });
    bytes.set(state, stateAt);
    this.#recorded = new Set(list.numbers);
    this.#regions = new Set(regions);
    return bytes;
  }

  #recordedHere(): void {
    const { view } = this.#memory;
    const at = GUEST.offset.version;
    if (view.getUint32(at, true) !== GUEST_VERSION) view.setUint32(at, GUEST_VERSION, true);
  }

  recorded(): void {
    for (const [fd, number] of this.#names) {
      if (this.#recorded.has(number)) continue;
      this.#names.delete(fd);
      this.#keeper.drop(number);
    }
    for (const [region, area] of this.#areas) if (!this.#regions.has(region)) this.#free(region, area);
  }

  #free(region: MemoryRegion, { offset, length, memory }: Area): void {
    this.#areas.delete(region);
    memory.close();
    this.#file.punch(offset, length);
  }

  /** The conversation is over: nothing of it is to be taken up. */
  end(): void {
    this.journal.lose();
    this.noteDevice();
    this.#keeper.drop(SOCKET_NUMBER);
    for (const number of this.#names.values()) this.#keeper.drop(number);
    this.#names.clear();
    for (const [region, area] of this.#areas) this.#free(region, area);
    this.#accountsEnd = ACCOUNTS_AT;
  }

  /**
   * The conversation that another daemon had, if there is one to be taken up. `fds` are what the keeper had, by their
   * numbers, but for the file and the socket; those that are needed no more are closed and dropped.
   * @throws KeptGuestError when some are missing, or the record is damaged
   */
  takeUp(fds: Map<number, OwnedFd>): KeptSession | undefined {
    try {
      return this.journal.live ? this.#takeUp(fds) : undefined;
    } finally {
      for (const [number, fd] of fds) {
        this.#keeper.drop(number);
        fd.close();
      }
    }
  }

  #takeUp(fds: Map<number, OwnedFd>): KeptSession {
    const bytes = this.journal.record;
    if (bytes.length < RECORD.size) throw new KeptGuestError('its record is cut short');
    const { fds: count, regions, accountsEnd } = RECORD.read(new DataView(bytes.buffer));
    const placesAt = RECORD.size + Math.ceil(count / 2) * 8;
    const stateAt = placesAt + regions * 8;
    if (regions > MEM_SLOTS_MAX || stateAt > bytes.length) throw new KeptGuestError('its record is damaged');
    const numbers = [...new Uint32Array(bytes.buffer, RECORD.size, count)];
    const message = this.journal.unserved;
    const waiting = Array.from({ length: message?.fds ?? 0 }, (_, at) => message!.firstFd + at);
    for (const number of fds.keys()) this.#nextNumber = Math.max(this.#nextNumber, number + 1);
    const missing = [...numbers, ...waiting].find(number => !fds.has(number));
    if (missing !== undefined) throw new KeptGuestError(`the keeper has not got descriptor ${missing} of it`);
    this.#found = [...new Float64Array(bytes.buffer, placesAt, regions)];
    this.#accountsEnd = accountsEnd;
    this.#file.punch(accountsEnd, Math.max(0, this.#file.size - accountsEnd));
    const take = (number: number): OwnedFd => {
      const fd = fds.get(number)!;
      fds.delete(number);
      this.#names.set(fd, number);
      return fd;
    };
    this.#recorded = new Set(numbers);
    return {
      saved: { bytes: bytes.subarray(stateAt), fds: numbers.map(take) },
      fds: waiting.map(take),
      recover: () => this.#recover(),
    };
  }

  /** All that is kept but the socket of its front-end, by its numbers. They stay this one's. */
  get descriptors(): (readonly [number: number, fd: OwnedFd])[] {
    const kept = [...this.#names].map(([fd, number]) => [number, fd] as const);
    return this.#file.fd === undefined ? kept : [[FILE_NUMBER, this.#file.fd], ...kept];
  }

  /** Another process has it. The accounts stay mapped, for what the device's parts hold points there. */
  readonly abandon = (): void => this.#file.close();

  /** The guest is kept no more. */
  close(): void {
    this.#keeper.drop(FILE_NUMBER);
    this.#file.close();
  }

  #keepInRow(fds: readonly OwnedFd[]): number {
    const first = this.#nextNumber;
    for (const fd of fds) this.#numberOf(fd);
    return first;
  }

  #numberOf(fd: OwnedFd): number {
    const known = this.#names.get(fd);
    if (known !== undefined) return known;
    const number = this.#nextNumber++;
    this.#names.set(fd, number);
    this.#keeper.keep(number, fd);
    return number;
  }
}

const toPages = (bytes: number): number => Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
