/** Guest memory of a simulated host: it knows which pages it backs, and giving memory back may fail or end the host. */
import { HeapBacking } from '../memory/backing.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { PageBitmap } from '../memory/page-bitmap.ts';
import { SystemError } from '../sys/error.ts';

const ENOMEM = 12;

/** The host's process died in the middle of something. No code handles this error. */
export class HostDeath extends Error {}

export class SimBacking extends HeapBacking {
  /** Pages that the host holds memory for. */
  readonly resident: PageBitmap;
  /** Discards fail, as punches of a file do when the kernel is short of memory. */
  failing = false;
  /** The host dies at the next discard, after it was made. */
  deadly = false;
  /** Called before pages, counted from the region's start, are discarded. */
  onDiscard: (page: number, count: number) => void = () => {};

  constructor(size: number, discardUnit: number) {
    super(size, discardUnit);
    this.resident = new PageBitmap(size / PAGE_SIZE);
  }

  override discard(offset: number, length: number): void {
    if (this.failing) throw new SystemError('fallocate', ENOMEM, 'simulated');
    const [page, count] = [offset / PAGE_SIZE, length / PAGE_SIZE];
    this.onDiscard(page, count);
    super.discard(offset, length);
    this.resident.clear(page, count);
    if (!this.deadly) return;
    this.deadly = false;
    throw new HostDeath('the host dies');
  }

  /** The guest wrote to pages: the host backs the whole unit from then on. */
  touch(page: number, count: number): void {
    const unit = this.discardUnit / PAGE_SIZE;
    const first = Math.floor(page / unit) * unit;
    this.resident.set(first, Math.ceil((page + count) / unit) * unit - first);
  }
}
