/**
 * A page list on its way into the accounts, in as many turns as it takes: a list of a megabyte, or a run over terabytes,
 * goes on where the last turn ended, after the others had theirs. The list is ours (`RunningQueue.readList` copied it), and
 * was checked whole before any of it counts.
 */
import { PageList } from '../balloon/page-list.ts';
import type { PageListFormat } from '../balloon/page-list-format.ts';
import type { PageSink } from '../memory/page.ts';
import type { AddressedAccounts, UsePart } from './addressed-accounts.ts';

export class ListWalk {
  readonly list = new PageList();
  /** Pages that the list may still name: as many as memory has, in whatever order. */
  pagesLeft = 0;
  #format: PageListFormat | undefined;
  #sink: PageSink | undefined;
  // What is left of the run in which the last turn ended.
  #restPfn = 0;
  #restCount = 0;
  #restUse: UsePart | undefined;

  /** The list is begun and not finished. */
  get active(): boolean {
    return this.#format !== undefined;
  }

  /**
   * Begins the list; its runs go to `sink`, which passes them on to `AddressedAccounts.forEachPart`.
   * @throws PageListError
   */
  begin(format: PageListFormat, sink: PageSink, accounts: AddressedAccounts): void {
    this.list.at = 0;
    format.check(this.list);
    this.pagesLeft = accounts.memoryPages;
    this.#restCount = 0;
    this.#format = format;
    this.#sink = sink;
  }

  /** Goes on until the list is done, which is true, or the turn is over. */
  resumeList(accounts: AddressedAccounts): boolean {
    const format = this.#format;
    const sink = this.#sink;
    if (format === undefined || sink === undefined) return true;
    accounts.walk = this;
    const count = this.#restCount;
    if (count > 0 && this.#restUse !== undefined) {
      this.#restCount = 0;
      accounts.goOnWithRun(this.#restPfn, count, this.#restUse);
    }
    const done = this.#restCount === 0 && format.decodeSome(this.list, sink, accounts.budget);
    accounts.walk = undefined;
    if (!done || this.#restCount > 0) return false;
    this.#format = undefined;
    return true;
  }

  /** Keeps what the turn has no time for. */
  keepRest(pfn: number, count: number, use: UsePart): void {
    this.#restPfn = pfn;
    this.#restCount = count;
    this.#restUse = use;
  }

  drop(): void {
    this.#format = undefined;
  }
}
