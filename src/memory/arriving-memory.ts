/**
 * Guest memory of which pages come while the guest runs, as the threads of its process share it: which pages are missing,
 * where the memory is mapped, and who puts what in a page. A thread that touches a missing page sleeps in the kernel. Where
 * pages come from is not here.
 *
 * Three threads act on a page: the one that places what arrived (it never touches the memory through a mapping of the
 * guest's), the one that hears of faults, and the ones that discard. The rules:
 *
 * - A page's bit in `missing` is cleared after the page was placed: who finds it clear finds the page, or a page of zeros.
 * - What a page was given while it was missing wins over what arrives: the kernel places no page where one is.
 * - A page that the guest gives away is missing no more, and what comes of it later is dropped. Who discards clears the bit
 *   first, waits for a placing that is under way, and punches then; who places says so first, and looks at the bit then.
 */
import { AerostatError } from '../sys/error.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { Arena } from '../sys/mapping.ts';
import { awaitMissing, openMissingPages, placePages, placeZeros, wakeAt } from '../sys/missing-pages.ts';
import { type ArrivingPages, type Backing, WINDOW_BYTES } from './backing.ts';
import { PAGE_SIZE } from './page.ts';
import { maskOf, wordsFor } from './page-bitmap.ts';

/** What threads are told of it; plain data. */
export interface ArrivingShared {
  /** The process's userfaultfd, by its number. */
  readonly userfault: number;
  /** A bit for each page: it has yet to come. */
  readonly missing: Int32Array;
  /** A bit for each page: a thread may wait for it. */
  readonly wanted: Int32Array;
  readonly control: Int32Array;
  /** Three numbers for each mapping: its address, its bytes, and its first page. */
  readonly mappings: Float64Array;
}

/** The first page that is being placed, and one after the last; equal when nothing is. */
const PLACING_FROM = 0;
const PLACING_TO = 1;
const MAPPINGS = 2;
const OVER = 3;
const CONTROL_WORDS = 4;

/** Windows of the guest, its device and of who places, of memory of 1 TiB. */
const MAPPINGS_MAX = 4096;
const MAPPING_NUMBERS = 3;

const bitmap = (pages: number): Int32Array => new Int32Array(new SharedArrayBuffer(wordsFor(pages) * 4));
const has = (words: Int32Array, page: number): boolean =>
  (Atomics.load(words, page >>> 5) & (1 << (page & 31))) !== 0;

function clearBits(words: Int32Array, start: number, count: number): void {
  const end = start + count;
  for (let word = start >>> 5; word * 32 < end; word++) {
    const mask = maskOf(word, start, end);
    if ((Atomics.load(words, word) & mask) !== 0) Atomics.and(words, word, ~mask);
  }
}

/** One thread's view of it. */
export class ArrivingMemory implements ArrivingPages {
  readonly shared: ArrivingShared;

  constructor(shared: ArrivingShared) {
    this.shared = shared;
  }

  get over(): boolean {
    return Atomics.load(this.shared.control, OVER) !== 0;
  }

  /** A window was mapped here, before it is touched: a touch of a page that the file has not got waits from now on. */
  mapped(address: number, length: number, offset: number): void {
    if (this.over) return;
    const { control, mappings, userfault } = this.shared;
    const index = Atomics.add(control, MAPPINGS, 1);
    if (index >= MAPPINGS_MAX) {
      throw new AerostatError(
        'AEROSTAT_REGION_ADDRESS',
        `more than ${MAPPINGS_MAX} mappings of memory that arrives`,
      );
    }
    mappings.set([address, length, offset / PAGE_SIZE], index * MAPPING_NUMBERS);
    try {
      awaitMissing({ number: userfault }, address, length);
    } catch (error) {
      // It was over between the look and the call: all pages are there.
      if (!this.over) throw error;
    }
  }

  /** Pages are about to be discarded by this thread: nothing of them arrives after this. */
  forget(offset: number, length: number): void {
    if (this.over) return;
    const { missing, control } = this.shared;
    const from = Math.floor(offset / PAGE_SIZE);
    const to = Math.ceil((offset + length) / PAGE_SIZE);
    clearBits(missing, from, to - from);
    // A placing takes microseconds, waits for no thread, and ends whatever becomes of it.
    while (Atomics.load(control, PLACING_FROM) < to && Atomics.load(control, PLACING_TO) > from);
    // Who waits for one of them waits for nothing any more.
    this.wake(from, to - from);
  }

  isMissing(page: number): boolean {
    return has(this.shared.missing, page);
  }

  /**
   * Of a thread that waits at `address`: the page that it waits for, where that has to come. Any other it has when this
   * returns: zeros, where none was there.
   */
  answer(address: number): number | undefined {
    const { missing, wanted, userfault } = this.shared;
    const start = address - (address % PAGE_SIZE);
    const page = this.#pageAt(start);
    if (page === undefined) return undefined;
    if (has(missing, page)) {
      Atomics.or(wanted, page >>> 5, 1 << (page & 31));
      // Who places clears the one and looks at the other.
      if (has(missing, page)) return page;
    }
    placeZeros({ number: userfault }, start, PAGE_SIZE);
    return undefined;
  }

  /** Has those look again who wait for one of these pages, wherever they have it mapped. */
  wake(start: number, count: number): void {
    const { wanted, mappings, control, userfault } = this.shared;
    for (let page = start; page < start + count; page++) {
      if (!has(wanted, page)) continue;
      Atomics.and(wanted, page >>> 5, ~(1 << (page & 31)));
      const known = Math.min(MAPPINGS_MAX, Atomics.load(control, MAPPINGS));
      for (let at = 0; at < known * MAPPING_NUMBERS; at += MAPPING_NUMBERS) {
        const inside = (page - mappings[at + 2]) * PAGE_SIZE;
        if (inside < 0 || inside >= mappings[at + 1]) continue;
        wakeAt({ number: userfault }, mappings[at] + inside, PAGE_SIZE);
      }
    }
  }

  #pageAt(address: number): number | undefined {
    const { mappings, control } = this.shared;
    const known = Math.min(MAPPINGS_MAX, Atomics.load(control, MAPPINGS));
    for (let at = 0; at < known * MAPPING_NUMBERS; at += MAPPING_NUMBERS) {
      const inside = address - mappings[at];
      if (inside >= 0 && inside < mappings[at + 1]) return mappings[at + 2] + inside / PAGE_SIZE;
    }
    return undefined;
  }
}

/** Pages of one section at most. */
const PLACED_PAGES_MAX = 256;

/** The thread that places what arrives. It owns the descriptor. */
export class ArrivingPlacer extends ArrivingMemory {
  readonly userfault: OwnedFd;
  readonly #arena = new Arena(PLACED_PAGES_MAX * PAGE_SIZE);
  readonly #backing: Backing;

  private constructor(shared: ArrivingShared, userfault: OwnedFd, backing: Backing) {
    super(shared);
    this.userfault = userfault;
    this.#backing = backing;
  }

  /**
   * Of all pages of `backing`, none of which is missing yet.
   * @throws AerostatError AEROSTAT_WRITE_TRACKING where the kernel cannot, or does not let us
   */
  static over(backing: Backing): ArrivingPlacer {
    const userfault = openMissingPages();
    const pages = backing.size / PAGE_SIZE;
    const shared = {
      userfault: userfault.number,
      missing: bitmap(pages),
      wanted: bitmap(pages),
      control: new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4)),
      mappings: new Float64Array(new SharedArrayBuffer(MAPPINGS_MAX * MAPPING_NUMBERS * 8)),
    };
    return new ArrivingPlacer(shared, userfault, backing);
  }

  /** Puts pages there that are missing still, from `from` at `at`, or as zeros; returns how many were. */
  place(start: number, count: number, from: Uint8Array | undefined, at: number): number {
    let placed = 0;
    for (let done = 0; done < count; ) {
      const first = start + done;
      const room = (WINDOW_BYTES - ((first * PAGE_SIZE) % WINDOW_BYTES)) / PAGE_SIZE;
      const part = Math.min(count - done, PLACED_PAGES_MAX, room);
      const bytes = from?.subarray(at + done * PAGE_SIZE, at + (done + part) * PAGE_SIZE);
      placed += this.#placePart(first, part, bytes);
      done += part;
    }
    return placed;
  }

  /** No page is awaited any more: those who wait have zeros where nothing came. Idempotent. */
  close(): void {
    Atomics.store(this.shared.control, OVER, 1);
    this.userfault.close();
    this.#arena.close();
  }

  /** Pages in one window. */
  #placePart(start: number, count: number, bytes: Uint8Array | undefined): number {
    const { control, missing } = this.shared;
    if (bytes !== undefined) this.#arena.bytes.set(bytes);
    const offset = start * PAGE_SIZE;
    const window = this.#backing.addressOf(Math.floor(offset / WINDOW_BYTES)) ?? 0;
    const base = window + (offset % WINDOW_BYTES);
    let placed = 0;
    Atomics.store(control, PLACING_FROM, start);
    Atomics.store(control, PLACING_TO, start + count);
    try {
      for (let page = 0; page < count; ) {
        if (!has(missing, start + page)) {
          page++;
          continue;
        }
        let run = 1;
        while (page + run < count && has(missing, start + page + run)) run++;
        const [to, length] = [base + page * PAGE_SIZE, run * PAGE_SIZE];
        if (bytes === undefined) placeZeros(this.userfault, to, length);
        else placePages(this.userfault, to, this.#arena.address + page * PAGE_SIZE, length);
        clearBits(missing, start + page, run);
        placed += run;
        page += run;
      }
    } finally {
      // In this order: at no time is what is being placed less than it was.
      Atomics.store(control, PLACING_TO, 0);
      Atomics.store(control, PLACING_FROM, 0);
    }
    this.wake(start, count);
    return placed;
  }
}
