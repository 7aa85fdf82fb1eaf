/**
 * How a data-plane thread reaches the threads that discard: guests and their regions go over message ports, one for each
 * discarding thread; "something is pending" through one word of shared memory, which costs a system call only when the
 * leader of those threads sleeps. News come back as a ring of the data-plane thread's wake-up descriptor.
 *
 * A guest has a lane: a word that a discarding thread takes while it works for the guest, so that a guest whose file makes
 * calls take long has one thread at a time, and the others are left for the others.
 */
import type { MessagePort } from 'node:worker_threads';
import { ArrivingMemory, type ArrivingShared } from '../memory/arriving-memory.ts';
import type { MemoryFile } from '../memory/backing.ts';
import type { MemoryRegion } from '../memory/guest-memory.ts';
import type { PendingDiscards } from '../memory/pending-discards.ts';
import { CLAIM_BYTES_MAX } from '../memory/pending-state.ts';
import type { OwnedFd } from '../sys/fd.ts';

/** Words of the memory that all discarding threads share. */
export const WAKE_WORD = 0;
/** The number of the thread that leads. */
export const LEADER_WORD = 1;
/** 1 while the leader works. */
export const BUSY_WORD = 2;
/** Rises with everything that the leader gets done. */
export const PROGRESS_WORD = 3;
/** Threads that watch the leader, or will when it works. */
export const WATCHERS_WORD = 4;
/** The kernel's number of the thread that leads. */
export const LEADER_THREAD_WORD = 5;
/** 1 when guests wait that the helper may take; it sleeps on this word. */
export const HELP_WORD = 6;
/** 1 as soon as a helper was asked for; there is one at most. */
export const HELPER_WORD = 7;
export const CONTROL_WORDS = 8;

/** Values of {@link WAKE_WORD}: the leader sleeps or is about to; there is work; it ends; there is work that cannot wait. */
export const ASLEEP = 0;
export const WORK = 1;
export const STOPPED = 2;
export const HURRY = 3;

/** Words of a lane. */
export const LANE_LOCK = 0;
export const LANE_CLOSED = 1;
export const LANE_SEALING = 2;
export const LANE_FILES = 3;
/** As many files as a memory table may bring. */
export const LANE_FILES_MAX = 8;
const LANE_WORDS = LANE_FILES + LANE_FILES_MAX;

/** Values of {@link LANE_SEALING} beside 0, nothing to do: files to be sealed, their number in the next words; done. */
export const SEALING_ASKED = 1;
export const SEALING_DONE = 2;

/**
 * How long pending memory gathers before it is discarded. Ten milliseconds of a fast guest are some 8000
 * pages, enough for runs of megabytes; a host that waits for memory does not notice them.
 */
export const GATHER_MS = 10;

/** Threads that have nothing to discard are woken when so many guests and regions wait to be heard of. */
const UNHEARD_MAX = 64;

export interface DiscardThreadData {
  /** {@link CONTROL_WORDS}. */
  readonly control: SharedArrayBuffer;
  /** This thread's number, from 1. */
  readonly number: number;
  /** It never leads: it takes guests beside the one that does. */
  readonly helps?: boolean;
  /** One port for each data-plane thread. */
  readonly ports: readonly MessagePort[];
}

/** What a discarding thread tells the main thread. */
export type DiscardNews = { readonly failure: string } | { readonly wanted: 'watcher' | 'helper' };

export interface LaneMessage {
  readonly kind: 'lane';
  readonly lane: number;
  /** {@link LANE_WORDS}. */
  readonly control: SharedArrayBuffer;
  /** The eventfd that wakes the guest's data-plane thread; open as long as the process's threads are. */
  readonly wakeFd: number;
  /** Of a guest whose memory comes while it runs: one region at address 0. */
  readonly arriving?: ArrivingShared | undefined;
}

export interface RegionMessage {
  readonly kind: 'region';
  readonly lane: number;
  readonly shared: SharedArrayBuffer;
  readonly units: number;
  readonly unitBytes: number;
  /** See {@link MemoryFile.hugePageBytes}. */
  readonly hugePageBytes: number;
  /** Descriptors are the process's: the number is as good here as there. It stays open until the set is closed and left. */
  readonly fd: number;
  readonly fileOffset: number;
}

export type LinkMessage = LaneMessage | RegionMessage;

export class DiscardLink {
  readonly #wake: Int32Array;
  readonly #ports: MessagePort[];
  readonly #wakeFd: number;
  readonly #lanes = new Set<DiscardLane>();
  #nextLane = 1;
  #posted = 0;

  /** `wakeFd` rings the data-plane thread; {@link addThread} brings further discarding threads. */
  constructor(control: SharedArrayBuffer, port: MessagePort, wakeFd: number) {
    this.#wake = new Int32Array(control);
    this.#ports = [port];
    this.#wakeFd = wakeFd;
  }

  /** Another discarding thread came, which learns of all guests. */
  addThread(port: MessagePort): void {
    this.#ports.push(port);
    port.once('close', () => this.#ports.splice(this.#ports.indexOf(port), 1));
    for (const lane of this.#lanes) for (const message of lane.messages()) port.postMessage(message);
    this.wake();
  }

  /** `arriving`: pages of the guest's memory come while it runs, and none is to arrive that was discarded. */
  openLane(arriving?: ArrivingShared): DiscardLane {
    const lane = new DiscardLane(this.#nextLane++, this.#wakeFd, {
      arriving,
      post: message => {
        for (const port of this.#ports) port.postMessage(message);
        // There may be nothing to discard yet, but what waits at a port is kept in memory, and so are regions that have gone.
        this.#posted++;
        if (this.#posted % UNHEARD_MAX === 0) this.wake();
      },
      wake: () => this.wake(),
      hurry: () => this.hurry(),
      closed: () => this.#lanes.delete(lane),
    });
    this.#lanes.add(lane);
    return lane;
  }

  /** Something was marked. */
  wake(): void {
    if (Atomics.compareExchange(this.#wake, WAKE_WORD, ASLEEP, WORK) === ASLEEP)
      Atomics.notify(this.#wake, WAKE_WORD);
  }

  /** The same, and a guest or its host waits for it. */
  hurry(): void {
    for (const now of [ASLEEP, WORK]) {
      if (Atomics.compareExchange(this.#wake, WAKE_WORD, now, HURRY) !== now) continue;
      Atomics.notify(this.#wake, WAKE_WORD);
      return;
    }
  }

  close(): void {
    for (const port of this.#ports) port.close();
  }
}

/** Fewer regions are not worth a look at which of them have gone. */
const REGIONS_MIN = 16;

interface LaneWorld {
  readonly arriving: ArrivingShared | undefined;
  post(message: LinkMessage): void;
  wake(): void;
  hurry(): void;
  closed(): void;
}

/** One guest's part of it. */
export class DiscardLane {
  readonly #number: number;
  readonly #control = new SharedArrayBuffer(LANE_WORDS * 4);
  readonly #words = new Int32Array(this.#control);
  readonly #world: LaneWorld;
  readonly #wakeFd: number;
  #regions: { readonly pending: PendingDiscards; readonly message: RegionMessage }[] = [];
  #regionsMax = REGIONS_MIN;

  constructor(number: number, wakeFd: number, world: LaneWorld) {
    this.#number = number;
    this.#wakeFd = wakeFd;
    this.#world = world;
    world.post(this.#laneMessage());
  }

  /** What a discarding thread has to know that comes now. */
  messages(): LinkMessage[] {
    this.#dropClosed();
    return [this.#laneMessage(), ...this.#regions.map(({ message }) => message)];
  }

  #dropClosed(): void {
    this.#regions = this.#regions.filter(({ pending }) => !pending.closed);
    // Twice as many before all are looked at again: a guest may have hundreds, each of which would look at all.
    this.#regionsMax = 2 * this.#regions.length + REGIONS_MIN;
  }

  #laneMessage(): LaneMessage {
    const { arriving } = this.#world;
    return { kind: 'lane', lane: this.#number, control: this.#control, wakeFd: this.#wakeFd, arriving };
  }

  /** From now on `pending`, units of `region`, is drained, until it is closed. */
  add({ backing }: MemoryRegion, pending: PendingDiscards): void {
    // Memory that is no file cannot come over vhost-user.
    const { file } = backing;
    if (file === undefined) return;
    const { arriving } = this.#world;
    // Before the guest's thread touches it, which waits for its pages as the guest does.
    if (arriving !== undefined) backing.arriving ??= new ArrivingMemory(arriving);
    const message: RegionMessage = {
      kind: 'region',
      lane: this.#number,
      shared: pending.shared,
      units: pending.units,
      unitBytes: backing.discardUnit,
      hugePageBytes: file.hugePageBytes,
      fd: file.fd.number,
      fileOffset: file.fileOffset,
    };
    this.#regions.push({ pending, message });
    if (this.#regions.length > this.#regionsMax) this.#dropClosed();
    this.#world.post(message);
    if (pending.outstanding > 0) this.#world.wake();
  }

  wake(): void {
    this.#world.wake();
  }

  /** Something was marked, and so much is pending. A little may gather, so that runs grow; what fills a claim has grown. */
  marked(pendingBytes: number): void {
    if (pendingBytes < CLAIM_BYTES_MAX) this.#world.wake();
    else this.#world.hurry();
  }

  hurry(): void {
    this.#world.hurry();
  }

  /** Whether files wait to be sealed, or are being sealed. */
  get sealing(): boolean {
    return Atomics.load(this.#words, LANE_SEALING) === SEALING_ASKED;
  }

  /**
   * Has files sealed against shrinking; there is news when it is done. The descriptors stay the caller's: duplicates are
   * sealed, and closed after that.
   */
  seal(files: readonly OwnedFd[]): void {
    for (let index = 0; index < LANE_FILES_MAX; index++) {
      this.#words[LANE_FILES + index] = files[index]?.duplicate().release() ?? -1;
    }
    Atomics.store(this.#words, LANE_SEALING, SEALING_ASKED);
    this.#world.hurry();
  }

  /** Its regions are gone. */
  close(): void {
    Atomics.store(this.#words, LANE_CLOSED, 1);
    this.#world.closed();
    this.#world.wake();
  }
}

export function stopDiscarding(control: SharedArrayBuffer): void {
  const words = new Int32Array(control);
  Atomics.store(words, WAKE_WORD, STOPPED);
  // Watchers sleep while the leader does.
  Atomics.store(words, BUSY_WORD, 1);
  Atomics.store(words, HELP_WORD, 1);
  for (const word of [WAKE_WORD, BUSY_WORD, PROGRESS_WORD, HELP_WORD]) Atomics.notify(words, word);
}
