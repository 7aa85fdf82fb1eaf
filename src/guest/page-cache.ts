/**
 * The page cache: file pages on an active and an inactive list, read in on demand, evicted from the cold end.
 * There is no disk: what a file's page holds follows from how often it was written, so "reading" it makes its
 * bytes anew and a page that comes back different is recognised.
 */
import type { PageOwner } from '../memory/kernel-memory.ts';
import { LinkedPages } from '../memory/linked-pages.ts';
import { NIL } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import { type Coverage, checkContents, stamp } from './contents.ts';
import type { PageSupply } from './frame-allocator.ts';
import { GFP_MOVABLE } from './gfp.ts';
import type { PageAccess } from './page-access.ts';
import { KIND_ALLOCATED, type PageState } from './page-state.ts';
import { SavedGuestError, type StateReader, type StateWriter } from './saved-state.ts';
import type { VmEvents } from './vm-events.ts';

/** A page's `index` is file number and page number in one word: 4096 files of 4 GiB. */
const FILE_PAGE_BITS = 20;
export const FILE_PAGES_MAX = 1 << FILE_PAGE_BITS;
export const FILES_MAX = 1 << (32 - FILE_PAGE_BITS);
/** Set in the serial number that file pages are stamped with, so that no process has the same. */
const FILE_TAG = 0x80000000;

const REFERENCED = 1;
const ACTIVE = 2;
const DIRTY = 4;

export class CachedFile {
  /** Among the files that are there. */
  readonly id: number;
  /** Among all files that ever were: what its pages are stamped with. */
  readonly serial: number;
  /** Frame of each page, or NIL. */
  readonly frames: Int32Array;
  /** How often each page was written: all that the disk would have to remember. */
  readonly versions: Uint32Array;

  constructor(id: number, serial: number, pages: number) {
    assert(pages > 0 && pages <= FILE_PAGES_MAX, `a file of ${pages} pages`);
    this.id = id;
    this.serial = serial;
    this.frames = new Int32Array(pages).fill(NIL);
    this.versions = new Uint32Array(pages);
  }

  get pages(): number {
    return this.frames.length;
  }
}

interface Eviction {
  readonly scanned: number;
  readonly reclaimed: number;
}

export class PageCache implements PageOwner {
  readonly name = 'page cache';
  readonly contents = 'kept';
  readonly active: LinkedPages;
  readonly inactive: LinkedPages;
  dirtyPages = 0;
  /** How much of its pages is written and checked. */
  readonly coverage: Coverage;
  readonly #files: (CachedFile | undefined)[] = [];
  #serialNext = 0;
  readonly #owner: number;
  readonly #flags: Uint8Array;
  readonly #index: Uint32Array;
  readonly #supply: PageSupply;
  readonly #access: PageAccess;
  readonly #events: VmEvents;

  constructor(
    supply: PageSupply,
    pages: PageState,
    access: PageAccess,
    events: VmEvents,
    coverage: Coverage,
  ) {
    this.active = new LinkedPages(pages);
    this.inactive = new LinkedPages(pages);
    this.coverage = coverage;
    this.#flags = pages.flags;
    this.#index = pages.index;
    this.#supply = supply;
    this.#access = access;
    this.#events = events;
    this.#owner = supply.addOwner(this);
  }

  get pages(): number {
    return this.active.length + this.inactive.length;
  }

  /** All files that are there. */
  get files(): readonly CachedFile[] {
    return this.#files.filter(file => file !== undefined);
  }

  file(id: number): CachedFile | undefined {
    return this.#files[id];
  }

  create(pages: number): CachedFile {
    const vacant = this.#files.indexOf(undefined);
    const id = vacant < 0 ? this.#files.length : vacant;
    assert(id < FILES_MAX, 'too many files');
    const file = new CachedFile(id, this.#serialNext++, pages);
    this.#files[id] = file;
    return file;
  }

  /** Drops a file and its pages, dirty ones too. */
  delete(file: CachedFile): void {
    assert(this.#files[file.id] === file, `file ${file.id} is gone already`);
    for (const pfn of file.frames) if (pfn !== NIL) this.#release(pfn);
    this.#files[file.id] = undefined;
  }

  /** Reads one page through the cache and checks it; false if there is no memory for it. */
  read(file: CachedFile, page: number): boolean {
    const pfn = file.frames[page];
    if (pfn === NIL) return this.#fault(file, page) !== NIL;
    this.#events.minorFaults++;
    this.#check(file, page);
    this.#touch(pfn);
    return true;
  }

  /** Writes one page anew; false if there is no memory for it. */
  write(file: CachedFile, page: number): boolean {
    const known = file.frames[page];
    const pfn = known === NIL ? this.#fault(file, page) : known;
    if (pfn === NIL) return false;
    file.versions[page]++;
    this.#stamp(file, page, pfn);
    this.#touch(pfn);
    if ((this.#flags[pfn] & DIRTY) === 0) this.dirtyPages++;
    this.#flags[pfn] |= DIRTY;
    return true;
  }

  /** Checks every cached page; returns how many. */
  verify(): number {
    let checked = 0;
    for (const file of this.files) {
      for (let page = 0; page < file.pages; page++) {
        if (file.frames[page] === NIL) continue;
        this.#check(file, page);
        checked++;
      }
    }
    return checked;
  }

  #check(file: CachedFile, page: number): void {
    const owner = (FILE_TAG | file.serial) >>> 0;
    checkContents(this.#access, file.frames[page], owner, page, file.versions[page], this.coverage);
  }

  #stamp(file: CachedFile, page: number, pfn: number): void {
    stamp(this.#access, pfn, (FILE_TAG | file.serial) >>> 0, page, file.versions[page], this.coverage);
  }

  #fault(file: CachedFile, page: number): number {
    assert(page >= 0 && page < file.pages, 'a page beyond the end of its file');
    const pfn = this.#supply.allocate(0, GFP_MOVABLE);
    if (pfn === NIL) return NIL;
    this.#events.majorFaults++;
    this.#supply.own(pfn, this.#owner, file.id * FILE_PAGES_MAX + page);
    file.frames[page] = pfn;
    this.#stamp(file, page, pfn);
    this.inactive.pushHead(pfn);
    return pfn;
  }

  /** A second use makes a page active, as Linux's mark_page_accessed does. */
  #touch(pfn: number): void {
    const flags = this.#flags[pfn];
    if ((flags & (REFERENCED | ACTIVE)) === REFERENCED) {
      this.inactive.remove(pfn);
      this.active.pushHead(pfn);
      this.#flags[pfn] = (flags | ACTIVE) & ~REFERENCED;
    } else {
      this.#flags[pfn] = flags | REFERENCED;
    }
  }

  /** Writes a dirty page to the disk that is not there. */
  #clean(pfn: number): void {
    if ((this.#flags[pfn] & DIRTY) === 0) return;
    this.#flags[pfn] &= ~DIRTY;
    this.dirtyPages--;
    this.#events.writebacks++;
  }

  #release(pfn: number): void {
    const flags = this.#flags[pfn];
    if ((flags & DIRTY) !== 0) this.dirtyPages--;
    if ((flags & ACTIVE) !== 0) this.active.remove(pfn);
    else this.inactive.remove(pfn);
    const index = this.#index[pfn];
    const file = this.#files[Math.floor(index / FILE_PAGES_MAX)];
    assert(file !== undefined, 'a frame caches a page of no file');
    file.frames[index % FILE_PAGES_MAX] = NIL;
    this.#supply.free(pfn, 0);
  }

  /** Moves pages from the cold end of the active list to the inactive one until that has half of them. */
  balance(): void {
    while (this.inactive.length < this.active.length) {
      const pfn = this.active.popTail();
      this.#flags[pfn] &= ~(ACTIVE | REFERENCED);
      this.inactive.pushHead(pfn);
    }
  }

  /**
   * Looks at up to `scan` pages from the cold end: referenced ones get another round, dirty ones are written
   * out first, the rest is freed.
   */
  evict(scan: number): Eviction {
    this.balance();
    let scanned = 0;
    let reclaimed = 0;
    while (scanned < scan && this.inactive.length > 0) {
      const pfn = this.inactive.tail;
      scanned++;
      if ((this.#flags[pfn] & REFERENCED) !== 0) {
        this.inactive.remove(pfn);
        this.#flags[pfn] &= ~REFERENCED;
        this.inactive.pushHead(pfn);
        continue;
      }
      this.#clean(pfn);
      this.#release(pfn);
      reclaimed++;
    }
    return { scanned, reclaimed };
  }

  /** Writes out all dirty pages; returns how many. */
  sync(): number {
    const dirty = this.dirtyPages;
    for (const list of [this.active, this.inactive]) for (const pfn of list) this.#clean(pfn);
    return dirty;
  }

  /** Frees every page of the cache, written out first where it is dirty; returns how many. */
  drop(): number {
    const pages = this.pages;
    for (const list of [this.inactive, this.active]) {
      for (let pfn = list.tail; pfn !== NIL; pfn = list.tail) {
        this.#clean(pfn);
        this.#release(pfn);
      }
    }
    return pages;
  }

  save(into: StateWriter): void {
    const { files } = this;
    into.u32(this.#serialNext);
    into.u32(files.length);
    for (const file of files) {
      into.u32(file.id);
      into.u32(file.serial);
      into.u32(file.pages);
      into.runs(file.versions);
    }
    for (const list of [this.active, this.inactive]) into.array(list.toArray());
  }

  /**
   * Goes on from what {@link save} wrote, in a cache that is still empty; the pages are allocated and marked
   * as its own. All files together may have `filePagesMax` pages.
   */
  load(from: StateReader, pages: PageState, filePagesMax: number): void {
    this.#serialNext = from.u32('the next serial number', FILE_TAG);
    const files = from.u32('files', FILES_MAX);
    let filePages = 0;
    for (let i = 0; i < files; i++) {
      const id = from.u32('a file number', FILES_MAX - 1);
      const serial = from.u32('the serial number of a file', this.#serialNext);
      const size = from.u32('the pages of a file', Math.min(FILE_PAGES_MAX, filePagesMax - filePages));
      if (size === 0 || this.#files[id] !== undefined) throw new SavedGuestError(`file ${id} cannot be`);
      filePages += size;
      const file = new CachedFile(id, serial, size);
      from.runs('page versions', file.versions);
      this.#files[id] = file;
    }
    for (const list of [this.active, this.inactive]) {
      for (const pfn of from.array('a list of the page cache', pages.length)) this.#adopt(pfn, list, pages);
    }
  }

  #adopt(pfn: number, list: LinkedPages, pages: PageState): void {
    const file = this.#files[Math.floor(pages.index[pfn] / FILE_PAGES_MAX)];
    const page = pages.index[pfn] % FILE_PAGES_MAX;
    const flags = pages.flags[pfn];
    const sound =
      pages.state[pfn] === KIND_ALLOCATED &&
      pages.owner[pfn] === this.#owner &&
      file?.frames[page] === NIL &&
      ((flags & ACTIVE) !== 0) === (list === this.active);
    if (!sound) throw new SavedGuestError(`frame ${pfn} cannot be in the page cache`);
    file.frames[page] = pfn;
    if ((flags & DIRTY) !== 0) this.dirtyPages++;
    list.pushTail(pfn);
  }

  migrate(from: number, to: number): boolean {
    const index = this.#index[from];
    const file = this.#files[Math.floor(index / FILE_PAGES_MAX)];
    assert(file !== undefined, 'a frame caches a page of no file');
    file.frames[index % FILE_PAGES_MAX] = to;
    const list = (this.#flags[from] & ACTIVE) !== 0 ? this.active : this.inactive;
    list.replace(from, to);
    this.#supply.free(from, 0);
    return true;
  }
}
