/**
 * The way of blocks of pages to the host and back: batches are gathered, written as lists of the negotiated format,
 * put into the ring, and settled when the host has returned every buffer that names a page of theirs. Inflation and
 * deflation are two channels; which pages they carry is fill.ts's and leak.ts's business.
 *
 * Everything goes on until there is nothing to send, until the host has to do something, or until this turn's share is
 * used up; so one loop serves a host that answers within the kick, and one that answers by interrupt.
 */
import { PageList } from '../balloon/page-list.ts';
import { EncodeCursor, type EncodeLimits, type PageListFormat } from '../balloon/page-list-format.ts';
import { PageRanges } from '../memory/page-ranges.ts';
import { assert } from '../sys/error.ts';
import { Batch } from './batch.ts';
import type { DriverMemory, Stretch } from './driver-memory.ts';
import { type DriverRing, tableFor } from './driver-ring.ts';

/** Blocks that one turn gathers at most: some 15 ms of work, after which others in the thread have theirs. */
const TURN_BLOCKS_MAX = 32_768;

/** The shortest list that is worth having where memory is in fragments: a page. */
const LIST_BYTES_MIN = 4096;
const PFN_BYTES = 4;

/** Where a channel's pages come from and go to. */
export interface PageSource {
  /** Adds the blocks that are to be sent next to an empty batch; none when there is nothing to send for now. */
  gather(batch: Batch): void;
  /** The host acknowledged all of the batch. */
  settled(batch: Batch): void;
  /** The batch will not be sent; the host does not know of it. */
  withdrawn(batch: Batch): void;
}

export interface PageChannelOptions {
  readonly format: PageListFormat;
  /** How large one list may be. */
  readonly limits: EncodeLimits;
  /** Buffers that may be with the host at once. */
  readonly depth: number;
  /** Blocks that are gathered at a time. */
  readonly batchBlocks: number;
  /** Sort the blocks of a batch by address before they are listed. */
  readonly sort: boolean;
  /** Have the next batch ready while the host has the last one. */
  readonly ahead: boolean;
  /** Hears of pages that the host made zeros: lists have room for its bitmap of them. */
  readonly zeroed?: ((pfn: number) => void) | undefined;
}

/** What became of a turn: nothing is left to do, the host has to do something, or it is to be called again soon. */
type TurnOutcome = 'idle' | 'waiting' | 'more';

/** Where one list lies while the host reads it. */
interface ListMemory {
  readonly list: Stretch | undefined;
  readonly table: Stretch | undefined;
  /** Where the host says which of its pages are zeros. */
  readonly bitmap: Stretch | undefined;
  /** Pages that it names. */
  pages: number;
  /** The batch whose pages it names. */
  batch: Batch | undefined;
}

export class PageChannel {
  readonly #ring: DriverRing;
  readonly #source: PageSource;
  readonly #format: PageListFormat;
  readonly #limits: EncodeLimits;
  readonly #batchBlocks: number;
  readonly #sort: boolean;
  readonly #ahead: boolean;
  readonly #zeroed: ((pfn: number) => void) | undefined;
  readonly #bits: Uint8Array;
  /** The pages are the buffers: the ring is filled and the host kicked once, and then all of them are collected. */
  readonly #byRingful: boolean;
  readonly #lists: readonly ListMemory[];
  readonly #vacantLists: number[];
  readonly #batches: Batch[] = [];
  readonly #vacantBatches: Batch[] = [];
  readonly #batchesMax: number;
  /** Batches of which a host that is gone was told, and its successor in part. */
  readonly #repeat: Batch[] = [];
  /** Batches that the host has returned, and that are still to be settled. */
  readonly #returned: Batch[] = [];
  /** The batch that is being written, as runs, and how far that has come. */
  #open: Batch | undefined;
  readonly #ranges = new PageRanges();
  readonly #cursor = new EncodeCursor();
  readonly #encoded = new PageList();
  /** {@link #encoded} is the next list, which waits for its place in the ring. */
  #ready = false;
  #waitingSince: number | undefined;
  #running = false;

  /** @throws DriverProbeError when the guest has no memory for the lists */
  constructor(
    ring: DriverRing,
    source: PageSource,
    memory: DriverMemory,
    { format, limits, depth, batchBlocks, sort, ahead, zeroed }: PageChannelOptions,
  ) {
    const { bytesMax, extentsMax } = limits;
    const listCount = Math.min(depth, ring.queue.size);
    this.#ring = ring;
    this.#source = source;
    this.#format = format;
    this.#batchBlocks = batchBlocks;
    this.#sort = sort;
    this.#ahead = ahead;
    this.#byRingful = bytesMax === 0;
    // A list and its bitmap are two descriptors.
    this.#zeroed = ring.queue.size > 1 ? zeroed : undefined;
    this.#bits = new Uint8Array(this.#zeroed === undefined ? 0 : Math.ceil(bytesMax / PFN_BYTES / 8));
    this.#lists = Array.from({ length: listCount }, () => ({
      list: bytesMax === 0 ? undefined : memory.allocateUpTo(bytesMax, Math.min(bytesMax, LIST_BYTES_MIN)),
      table: tableFor(ring, memory, bytesMax, extentsMax + Math.min(1, this.#bits.length)),
      bitmap: this.#bits.length > 0 ? memory.allocate(this.#bits.length) : undefined,
      pages: 0,
      batch: undefined,
    }));
    // All lists are as long as the shortest, so that any of them will do.
    const listBytes = this.#lists.reduce((least, { list }) => Math.min(least, list?.size ?? 0), bytesMax);
    this.#limits = { bytesMax: listBytes, extentsMax };
    this.#vacantLists = Array.from({ length: listCount }, (_, index) => listCount - 1 - index);
    this.#batchesMax = (this.#byRingful ? 1 : listCount) + (ahead ? 1 : 0);
  }

  /** Nothing is with the host, and nothing is to be sent that was begun. */
  get idle(): boolean {
    const { outstandingCount } = this.#ring.queue;
    return outstandingCount === 0 && this.#open === undefined && this.#repeat.length === 0;
  }

  /** Batches whose pages are with the host, or about to be. */
  get inFlight(): readonly Batch[] {
    return this.#batches.filter(batch => batch.count > 0);
  }

  /**
   * Settles what came back and sends what there is to send.
   * @throws VirtqueueError when the device breaks the ring's rules
   */
  turn(): TurnOutcome {
    // What is settled may make others ask for a turn; the one that is under way is theirs too.
    if (this.#running) return 'waiting';
    this.#running = true;
    try {
      return this.#turn();
    } finally {
      this.#running = false;
    }
  }

  /**
   * Takes back what was gathered and of which the host has heard nothing yet, because something changed; returns its
   * pages.
   */
  withdraw(): number {
    const batch = this.#open;
    if (this.#running || batch === undefined || batch.told) return 0;
    const { pages } = batch;
    this.#open = undefined;
    this.#ready = false;
    this.#source.withdrawn(batch);
    batch.clear();
    this.#vacantBatches.push(batch);
    return pages;
  }

  /**
   * Another device will take the place of this one, and go on with the ring. Settles what came back, and sends nothing.
   * @throws VirtqueueError when the device made no sense
   */
  deviceLost(): void {
    this.#collect();
    this.#settle();
    // What was taken back from a host that is gone needs no repetition: it is the guest's.
    if (this.#ring.role !== 'inflate') return;
    for (const batch of this.inFlight) batch.repeated = batch.returned > 0;
  }

  #turn(): TurnOutcome {
    const { queue } = this.#ring;
    this.#ring.suppressInterrupts();
    let worked = 0;
    for (;;) {
      const collected = this.#collect();
      const mayAdd = !this.#byRingful || queue.outstandingCount === 0;
      const sent = mayAdd && worked < TURN_BLOCKS_MAX ? this.#send() : 0;
      // The host has something to do again: time for all that it does not wait for.
      this.#settle();
      if (worked >= TURN_BLOCKS_MAX) return 'more';
      const prepared = this.#prepare();
      worked += sent + prepared;
      if (collected || sent + prepared > 0) continue;
      if (queue.outstandingCount === 0) return 'idle';
      this.#waitingSince ??= this.#ring.world.scheduler.now();
      if (!this.#ring.enableInterrupts(this.#byRingful ? queue.outstandingCount - 1 : 0)) return 'waiting';
      this.#ring.suppressInterrupts();
    }
  }

  /** Takes what the host returned; whether there was anything. */
  #collect(): boolean {
    let collected = false;
    while (this.#ring.takeUsed()) {
      if (!collected) this.#waited();
      collected = true;
      const { token, written } = this.#ring.used;
      const memory = this.#lists[token];
      const { batch } = memory;
      this.#noteZeroed(memory, written);
      assert(batch !== undefined, 'a page list came back that was not sent');
      memory.batch = undefined;
      this.#vacantLists.push(token);
      batch.outstanding--;
      batch.returned++;
      if (batch.outstanding > 0 || batch === this.#open) continue;
      if (batch.repeated) {
        // The host knows a part of it: enough that none of it may be the guest's, too little to count on.
        batch.repeated = false;
        batch.returned = 0;
        this.#repeat.push(batch);
        continue;
      }
      this.#returned.push(batch);
    }
    return collected;
  }

  #settle(): void {
    for (const batch of this.#returned) {
      this.#source.settled(batch);
      batch.clear();
      this.#vacantBatches.push(batch);
    }
    this.#returned.length = 0;
  }

  /** Has the next list ready for when the host returns one; returns the blocks that were gathered for it. */
  #prepare(): number {
    if (!this.#ahead || this.#ring.queue.outstandingCount === 0) return 0;
    const gathered = this.#open === undefined ? this.#gather() : 0;
    if (this.#open !== undefined) this.#encode();
    return gathered;
  }

  /** Sends what there is room for. Returns the blocks that were gathered for it, and 1 at least if any list was sent. */
  #send(): number {
    let gathered = 0;
    let sent = 0;
    while (this.#vacantLists.length > 0 && gathered < TURN_BLOCKS_MAX) {
      if (this.#open === undefined) {
        const blocks = this.#gather();
        if (blocks === 0) break;
        gathered += blocks;
      }
      if (!this.#sendList()) break;
      sent++;
      // The host reads this list while the next one is made.
      if (!this.#byRingful) this.#ring.flush();
    }
    this.#ring.flush();
    return Math.max(gathered, sent);
  }

  /** Has the next batch filled and opens it; returns its blocks. */
  #gather(): number {
    const batch = this.#repeat.pop() ?? this.#vacantBatch();
    if (batch === undefined) return 0;
    if (batch.count === 0) this.#source.gather(batch);
    if (batch.count === 0) {
      this.#vacantBatches.push(batch);
      return 0;
    }
    const { scheduler, counters } = this.#ring.world;
    const started = scheduler.now();
    if (this.#sort) batch.sort();
    batch.listIn(this.#ranges);
    this.#cursor.reset();
    this.#open = batch;
    counters.runs += this.#ranges.length;
    counters.encodingMs += scheduler.now() - started;
    return batch.count;
  }

  #vacantBatch(): Batch | undefined {
    const vacant = this.#vacantBatches.pop();
    if (vacant !== undefined || this.#batches.length >= this.#batchesMax) return vacant;
    const batch = new Batch(this.#batchBlocks);
    this.#batches.push(batch);
    return batch;
  }

  /** Adds the next list of the open batch; false when the ring has no room for it. */
  #sendList(): boolean {
    const index = this.#vacantLists.at(-1);
    const batch = this.#open;
    if (index === undefined || batch === undefined) return false;
    const memory = this.#lists[index];
    this.#encode();
    const { scheduler, counters } = this.#ring.world;
    const started = scheduler.now();
    this.#ring.place(this.#encoded, memory.list);
    if (memory.bitmap !== undefined) {
      memory.pages = this.#encoded.length / PFN_BYTES;
      this.#ring.segments.addWritable(memory.bitmap.address, Math.ceil(memory.pages / 8));
    }
    const added = this.#ring.add(index, memory.table);
    if (added) {
      this.#ready = false;
      this.#vacantLists.pop();
      memory.batch = batch;
      batch.told = true;
      batch.outstanding++;
      if (this.#ring.role === 'inflate') counters.inflateBuffers++;
      else counters.deflateBuffers++;
      counters.listBytes += this.#encoded.length;
      if (this.#cursor.done(this.#ranges)) this.#open = undefined;
    }
    counters.encodingMs += scheduler.now() - started;
    return added;
  }

  /** Writes the next list of the open batch, unless it is written and waits for room. */
  #encode(): void {
    if (this.#ready) return;
    const { scheduler, counters } = this.#ring.world;
    const started = scheduler.now();
    this.#encoded.clear();
    this.#format.encode(this.#ranges, this.#cursor, this.#encoded, this.#limits);
    this.#ready = true;
    counters.encodingMs += scheduler.now() - started;
  }

  /** The host wrote so many bytes of the bitmap of the list's pages. */
  #noteZeroed({ list, bitmap, pages }: ListMemory, written: number): void {
    if (list === undefined || bitmap === undefined || written === 0) return;
    const { memory } = this.#ring;
    const bytes = Math.min(written, Math.ceil(pages / 8));
    memory.read(bitmap.address, this.#bits, 0, bytes);
    for (let at = 0; at < Math.min(pages, bytes * 8); at++) {
      if ((this.#bits[at >>> 3] & (1 << (at & 7))) === 0) continue;
      this.#zeroed?.(memory.u32(list.address + at * PFN_BYTES));
    }
  }

  #waited(): void {
    if (this.#waitingSince === undefined) return;
    const { scheduler, counters } = this.#ring.world;
    counters.waitingMs += scheduler.now() - this.#waitingSince;
    this.#waitingSince = undefined;
  }
}
