/**
 * A process: anonymous memory, faulted in page by page, written and checked through guest memory. Its pages
 * move when compaction asks; its page tables, one page for each 2 MiB in use, do not.
 */
import type { PageOwner } from '../memory/kernel-memory.ts';
import { NIL } from '../memory/page-blocks.ts';
import { assert } from '../sys/error.ts';
import { type Coverage, checkContents, stamp } from './contents.ts';
import type { PageSupply } from './frame-allocator.ts';
import { GFP_MOVABLE, GFP_UNMOVABLE } from './gfp.ts';
import type { Victim } from './oom.ts';
import type { PageAccess } from './page-access.ts';
import type { PageState } from './page-state.ts';
import { SavedGuestError, type StateReader, type StateWriter } from './saved-state.ts';
import type { VmEvents } from './vm-events.ts';

/** Pages that one page of page table maps. */
const PAGES_PER_TABLE = 512;
/** Room that a process starts with, in pages. */
const EXTENT_MIN = 16;
/** Page tables are stamped as pages of the process above all that it can map (2^31 pages are 8 TiB). */
const TABLE_TAG = 0x80000000;
export const PROCESS_PAGES_MAX = 2 ** 31;
/** Process ids are never used again; above them lie the tags of files and of the slab. */
export const PID_MAX = 2 ** 30;

export interface ProcessServices {
  readonly supply: PageSupply;
  readonly pages: PageState;
  readonly access: PageAccess;
  readonly events: VmEvents;
  /** Called once when the process has ended. */
  readonly ended: (process: Process) => void;
}

export interface ProcessOptions {
  /** What it runs. */
  readonly command: string;
  readonly coverage: Coverage;
  /** Whether the out-of-memory killer may end it; true unless said otherwise. */
  readonly killable?: boolean;
  /** Its pages never move (something does DMA to them); false unless said otherwise. */
  readonly pinned?: boolean;
}

export class Process implements PageOwner, Victim {
  readonly pid: number;
  readonly command: string;
  /** Command and process id, as in a system log: no two are alike. */
  readonly name: string;
  readonly contents = 'kept';
  readonly coverage: Coverage;
  readonly killable: boolean;
  readonly pinned: boolean;
  residentPages = 0;
  /** `exited` by itself, or `killed` for want of memory. */
  state: 'running' | 'exited' | 'killed' = 'running';
  #frames = new Int32Array(0);
  /** Counts the writes of each page, over unmapping too, so that bytes of an earlier life are never right. */
  #versions = new Uint32Array(0);
  #tables = new Int32Array(0);
  #tablesUsed = new Uint16Array(0);
  readonly #owner: number;
  readonly #services: ProcessServices;
  readonly #index: Uint32Array;

  constructor(pid: number, options: ProcessOptions, services: ProcessServices) {
    this.pid = pid;
    this.command = options.command;
    this.name = `${options.command}[${pid}]`;
    this.coverage = options.coverage;
    this.killable = options.killable ?? true;
    this.pinned = options.pinned ?? false;
    this.#services = services;
    this.#index = services.pages.index;
    this.#owner = services.supply.addOwner(this);
  }

  /** Pages that the tables reach; those beyond are unmapped. */
  get extent(): number {
    return this.#frames.length;
  }

  /** Frame of page `index`, or NIL. */
  frameOf(index: number): number {
    return index < this.#frames.length ? this.#frames[index] : NIL;
  }

  /**
   * Writes page `index` anew, faulting it in if it is not there. False if there is no memory (try again later)
   * or the process was killed for it (see {@link state}).
   */
  write(index: number): boolean {
    if (this.state !== 'running') return false;
    if (this.frameOf(index) === NIL && !this.#fault(index)) return false;
    const version = ++this.#versions[index];
    stamp(this.#services.access, this.#frames[index], this.pid, index, version, this.coverage);
    return true;
  }

  /** Checks page `index` if it is there. @throws ContentError */
  verify(index: number): void {
    const pfn = this.frameOf(index);
    if (pfn === NIL) return;
    checkContents(this.#services.access, pfn, this.pid, index, this.#versions[index], this.coverage);
  }

  /** Checks every page, tables too; returns how many. @throws ContentError */
  verifyAll(): number {
    let checked = 0;
    for (let index = 0; index < this.#frames.length; index++) {
      if (this.#frames[index] === NIL) continue;
      this.verify(index);
      checked++;
    }
    for (let table = 0; table < this.#tables.length; table++) {
      if (this.#tables[table] === NIL) continue;
      this.#checkTable(table);
      checked++;
    }
    return checked;
  }

  /** Frees page `index` if it is there, and its page table with the last. */
  unmap(index: number): void {
    const pfn = this.frameOf(index);
    if (pfn === NIL) return;
    this.#frames[index] = NIL;
    this.residentPages--;
    this.#services.supply.free(pfn, 0);
    const table = Math.floor(index / PAGES_PER_TABLE);
    if (--this.#tablesUsed[table] === 0) this.#dropTable(table);
  }

  /** Sets up the page tables for pages [0, count); false if there is no memory for them. */
  reserve(count: number): boolean {
    if (count > this.#frames.length) this.#grow(count);
    for (let table = 0; table * PAGES_PER_TABLE < count; table++) {
      if (this.#tables[table] === NIL && !this.#addTable(table)) return false;
    }
    return true;
  }

  /** Makes an allocated single page without an owner its page `index`; the tables must be there ({@link reserve}). */
  map(index: number, pfn: number): void {
    const table = Math.floor(index / PAGES_PER_TABLE);
    assert(
      this.frameOf(index) === NIL && this.#tables[table] !== NIL,
      'a page mapped twice or without table',
    );
    this.#services.supply.own(pfn, this.#owner, index);
    this.#frames[index] = pfn;
    this.#tablesUsed[table]++;
    this.residentPages++;
    const version = ++this.#versions[index];
    stamp(this.#services.access, pfn, this.pid, index, version, this.coverage);
  }

  save(into: StateWriter): void {
    into.u32(this.pid);
    into.text(this.command);
    into.flag(this.coverage === 'whole');
    into.flag(this.killable);
    into.flag(this.pinned);
    into.u32(this.#frames.length);
    into.runs(this.#versions);
    into.array(this.#tables);
  }

  /** A process as it was saved, but for its frames: see {@link adopt}. `extentMax` bounds what it may map. */
  static restore(from: StateReader, services: ProcessServices, extentMax: number): Process {
    const pid = from.u32('a process id', PID_MAX);
    const process = new Process(
      pid,
      {
        command: from.text('a command'),
        coverage: from.flag('coverage') ? 'whole' : 'edges',
        killable: from.flag('killable'),
        pinned: from.flag('pinned'),
      },
      services,
    );
    process.#resize(from.u32('the extent of a process', extentMax));
    from.runs('page versions', process.#versions);
    const tables = from.array('page tables', process.#tables.length);
    process.#tables.set(tables);
    for (const pfn of process.#tables) if (pfn !== NIL) process.residentPages++;
    return process;
  }

  /** Takes an allocated page that is its own since before it was saved. */
  adopt(index: number, pfn: number): void {
    if (index >= this.#frames.length || this.#frames[index] !== NIL) {
      throw new SavedGuestError(`frame ${pfn} is page ${index} of ${this.name}, which cannot be`);
    }
    const table = Math.floor(index / PAGES_PER_TABLE);
    if (this.#tables[table] === NIL) throw new SavedGuestError(`page ${index} of ${this.name} has no table`);
    this.#frames[index] = pfn;
    this.#tablesUsed[table]++;
    this.residentPages++;
  }

  /** Frames of its page tables, NIL where there is none. */
  get tables(): Int32Array {
    return this.#tables;
  }

  exit(): void {
    this.#end('exited');
  }

  kill(): void {
    this.#end('killed');
  }

  #end(state: 'exited' | 'killed'): void {
    if (this.state !== 'running') return;
    this.state = state;
    for (let index = 0; index < this.#frames.length; index++) this.unmap(index);
    for (let table = 0; table < this.#tables.length; table++) this.#dropTable(table);
    assert(this.residentPages === 0, `process ${this.pid} ended and holds ${this.residentPages} pages`);
    this.#frames = new Int32Array(0);
    this.#services.supply.removeOwner(this.#owner);
    this.#services.ended(this);
  }

  #fault(index: number): boolean {
    assert(index >= 0 && index < PROCESS_PAGES_MAX, 'a page number outside of a process');
    if (index >= this.#frames.length) this.#grow(index + 1);
    const { supply, events } = this.#services;
    const table = Math.floor(index / PAGES_PER_TABLE);
    if (this.#tables[table] === NIL && !this.#addTable(table)) return false;
    const pfn = supply.allocate(0, GFP_MOVABLE);
    // The allocation may have ended the very process that asks, and its tables with it.
    if (pfn === NIL || this.state !== 'running') {
      if (pfn !== NIL) supply.free(pfn, 0);
      else if (this.state === 'running' && this.#tablesUsed[table] === 0) this.#dropTable(table);
      return false;
    }
    events.minorFaults++;
    supply.own(pfn, this.#owner, index);
    this.#frames[index] = pfn;
    this.#tablesUsed[table]++;
    this.residentPages++;
    return true;
  }

  #addTable(table: number): boolean {
    const { supply, access } = this.#services;
    const pfn = supply.allocate(0, GFP_UNMOVABLE);
    if (pfn === NIL) return false;
    if (this.state !== 'running') {
      supply.free(pfn, 0);
      return false;
    }
    stamp(access, pfn, this.pid, TABLE_TAG + table, 0, this.coverage);
    this.#tables[table] = pfn;
    this.residentPages++;
    return true;
  }

  #dropTable(table: number): void {
    if (this.#tables[table] === NIL) return;
    this.#checkTable(table);
    this.#services.supply.free(this.#tables[table], 0);
    this.#tables[table] = NIL;
    this.residentPages--;
  }

  #checkTable(table: number): void {
    checkContents(this.#services.access, this.#tables[table], this.pid, TABLE_TAG + table, 0, this.coverage);
  }

  #grow(extent: number): void {
    this.#resize(Math.max(extent, this.#frames.length * 2, EXTENT_MIN));
  }

  #resize(extent: number): void {
    const frames = new Int32Array(extent).fill(NIL);
    const versions = new Uint32Array(extent);
    const tables = new Int32Array(Math.ceil(extent / PAGES_PER_TABLE)).fill(NIL);
    const tablesUsed = new Uint16Array(tables.length);
    frames.set(this.#frames);
    versions.set(this.#versions);
    tables.set(this.#tables);
    tablesUsed.set(this.#tablesUsed);
    this.#frames = frames;
    this.#versions = versions;
    this.#tables = tables;
    this.#tablesUsed = tablesUsed;
  }

  migrate(from: number, to: number): boolean {
    const index = this.#index[from];
    if (this.pinned) return false;
    assert(this.#frames[index] === from, 'a process was asked to move a page that it does not map');
    this.#frames[index] = to;
    this.#services.supply.free(from, 0);
    return true;
  }
}
