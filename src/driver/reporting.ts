/**
 * Telling the host which memory is free (queues `reporting` and `hinting`): blocks of 2 MiB and more are taken out of
 * the allocator, named in one buffer, and put back when it returns, marked as reported so that they are not reported
 * twice. It happens a while after memory became free, because much of what is freed is used again at once.
 */

import { PageList } from '../balloon/page-list.ts';
import { EncodeCursor, type EncodeLimits, type PageListFormat } from '../balloon/page-list-format.ts';
import type { FreeBlockReports, ZeroedPages } from '../memory/kernel-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { NIL, ORDER_MAX, PAGEBLOCK_ORDER } from '../memory/page-blocks.ts';
import { PageRanges } from '../memory/page-ranges.ts';
import { assert } from '../sys/error.ts';
import type { Timer } from '../sys/poll.ts';
import type { UsedBuffer } from '../virtio/queue.ts';
import { Batch } from './batch.ts';
import type { DriverMemory, Stretch } from './driver-memory.ts';
import { type DriverRing, tableFor } from './driver-ring.ts';
import type { QueuePart } from './queue-part.ts';

/** One buffer: the blocks that are out with it, and where its list lies. */
interface Report {
  readonly blocks: Batch;
  readonly list: Stretch | undefined;
  readonly table: Stretch | undefined;
}

interface ReportingOptions {
  readonly free: FreeBlockReports;
  /** Hears of blocks that the host made zeros, where it says so. */
  readonly zeroed?: ZeroedPages | undefined;
  readonly format: PageListFormat;
  readonly delayMs: number;
  /** Blocks that are out of the allocator at most. */
  readonly blocksMax: number;
  /** In two halves: while the host has one, the other is prepared. */
  readonly pipelined: boolean;
}

export class ReportingPart implements QueuePart {
  readonly #ring: DriverRing;
  readonly #options: ReportingOptions;
  readonly #limits: EncodeLimits;
  readonly #reports: readonly Report[];
  readonly #vacant: number[];
  readonly #ranges = new PageRanges();
  readonly #cursor = new EncodeCursor();
  readonly #encoded = new PageList();
  /** A pass over the free lists is under way. */
  #passing = false;
  /** Memory became free since the last pass began. */
  #wanted = false;
  #timer: Timer | undefined;
  #paused = false;
  #stopped = false;

  /** @throws DriverProbeError when the guest has no memory for the lists */
  constructor(ring: DriverRing, memory: DriverMemory, options: ReportingOptions) {
    const { format, blocksMax, pipelined } = options;
    // Two halves need two places in the ring.
    const count = pipelined && ring.queue.size > 1 ? 2 : 1;
    const blocks = Math.max(1, Math.min(Math.floor(blocksMax / count), Math.floor(ring.queue.size / count)));
    const { bytesMax } = format.limits;
    this.#ring = ring;
    this.#options = options;
    this.#limits = bytesMax === 0 ? { bytesMax, extentsMax: blocks } : format.limits;
    this.#reports = Array.from({ length: count }, () => ({
      blocks: new Batch(blocks),
      list: bytesMax === 0 ? undefined : memory.allocateUpTo(bytesMax, bytesMax),
      table: tableFor(ring, memory, bytesMax, this.#limits.extentsMax),
    }));
    this.#vacant = Array.from({ length: count }, (_, index) => index);
  }

  start(): void {
    this.#options.free.onLargeFree = () => this.#wake();
    this.#wake();
  }

  turn(): void {
    this.#ring.turn(this.#returned, this.#work);
  }

  readonly #work = (): boolean => {
    while (this.#mayReport && this.#vacant.length > 0 && this.#report());
    return true;
  };

  get #mayReport(): boolean {
    return this.#passing && !this.#paused && !this.#stopped;
  }

  pause(): void {
    this.#paused = true;
  }

  get quiet(): boolean {
    return this.#ring.queue.outstandingCount === 0;
  }

  resume(): void {
    this.#paused = false;
    this.turn();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#options.free.onLargeFree = undefined;
  }

  abandon(): void {
    const { free } = this.#options;
    this.stop();
    for (const { blocks } of this.#reports) {
      blocks.forEach((pfn, order) => {
        free.putBack(pfn, order, false);
      });
      blocks.clear();
    }
    // The next host knows nothing of what this one was told.
    free.forgetReports();
  }

  #wake(): void {
    this.#wanted = true;
    if (this.#timer !== undefined || this.#passing || this.#stopped) return;
    this.#timer = this.#ring.world.scheduler.schedule(this.#options.delayMs, () => {
      this.#timer = undefined;
      this.#wanted = false;
      this.#passing = true;
      this.turn();
    });
  }

  /** Sends the next blocks, if there are any; ends the pass when there are none and all that was sent is back. */
  #report(): boolean {
    const index = this.#vacant[this.#vacant.length - 1];
    const { blocks, list, table } = this.#reports[index];
    this.#isolate(blocks);
    if (blocks.count === 0) {
      // What is out may be all that keeps more from going.
      if (this.#vacant.length < this.#reports.length) return false;
      this.#passing = false;
      if (this.#wanted) this.#wake();
      return false;
    }
    this.#vacant.pop();
    // Block by block: what they are put back as is what they were taken as.
    this.#ranges.clear();
    blocks.forEach((pfn, order) => {
      this.#ranges.append(pfn, 1 << order);
    });
    this.#cursor.reset();
    this.#encoded.clear();
    this.#options.format.encode(this.#ranges, this.#cursor, this.#encoded, this.#limits);
    assert(this.#cursor.done(this.#ranges), 'free blocks that one report cannot name');
    this.#ring.place(this.#encoded, list);
    const { counters } = this.#ring.world;
    counters.reports++;
    counters.listBytes += this.#encoded.length;
    assert(this.#ring.add(index, table), 'a ring without room for its reports');
    this.#ring.flush();
    return true;
  }

  /** Largest first: every block of 4 MiB, then every one of 2 MiB. */
  #isolate(blocks: Batch): void {
    const { free } = this.#options;
    for (let order = ORDER_MAX; order >= PAGEBLOCK_ORDER; order--) {
      while (!blocks.full && this.#leavesEnough(order)) {
        const pfn = free.isolateUnreported(order);
        if (pfn === NIL) break;
        blocks.add(pfn, order);
      }
    }
  }

  /**
   * What is out cannot be allocated until the host has answered, and 32 blocks may be all that a small guest has. At
   * least as much stays in, so that allocations find memory beside a slow host; the rest is for the next report.
   */
  #leavesEnough(order: number): boolean {
    const pages = 1 << order;
    const out = this.#reports.reduce((sum, { blocks }) => sum + blocks.pages, 0);
    return this.#options.free.freePages - pages >= out + pages;
  }

  /** D28: only now may the guest use these pages again. */
  readonly #returned = ({ token: index, written }: UsedBuffer): void => {
    const { blocks } = this.#reports[index];
    const { free, zeroed } = this.#options;
    const { counters } = this.#ring.world;
    counters.reportedPages += blocks.pages;
    // What the host says that it wrote are zeros, from the first block on.
    let zeros = Math.floor(written / PAGE_SIZE);
    blocks.forEach((pfn, order) => {
      free.putBack(pfn, order, true);
      zeros -= 1 << order;
      if (zeroed === undefined || zeros < 0) return;
      zeroed.note(pfn, 1 << order);
      counters.zeroedPages += 1 << order;
    });
    blocks.clear();
    this.#vacant.push(index);
  };
}
