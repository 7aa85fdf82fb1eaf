/**
 * A ring's share of the thread that it has in common with others: what serving its buffers counts, and how much of it
 * one turn has. A guest writes one number to have all its buffers served again, so each counts something.
 */
import { LIST_BYTES_MAX } from '../balloon/page-list.ts';
import type { DecodePace } from '../balloon/page-list-format.ts';
import type { DescriptorChain } from '../virtio/chain.ts';

/**
 * Batches of one ring that are served in a row. A guest that keeps its ring full gets its next turn after the
 * others had theirs.
 */
export const BATCHES_PER_TURN = 4;

/**
 * Work of one turn, after which the others have theirs even in the middle of a list: a byte that is read counts one, as a
 * page of a long run does (see `PageAccount.work`). It is 13 of Linux's buffers with scattered pages, a millisecond or two, to
 * which one buffer may add the reading of LIST_BYTES_MAX.
 */
export const WORK_PER_TURN = 2 ** 17;

/**
 * The same where others are served by the thread, too. A guest that waits for each of its buffers gets one for each turn of
 * the others, so their turns are to be about as long as serving it takes: a tenth of a millisecond.
 */
export const WORK_PER_SHARED_TURN = 2 ** 13;

/** What a buffer costs, however little it says: it is taken, understood or refused, and returned. */
const BUFFER_WORK = 512;
/** What a descriptor costs, though it may have no bytes, and all buffers of a ring may be one and the same chain. */
const DESCRIPTOR_WORK = 32;

/** What it costs to take and read the buffer in `chain`; the pages that it names are counted where they are found. */
export const workOf = ({ descriptorCount, tableEntries, readableBytes }: DescriptorChain): number =>
  BUFFER_WORK + (descriptorCount + tableEntries) * DESCRIPTOR_WORK + Math.min(readableBytes, LIST_BYTES_MAX);

/** What one turn after the other costs. Work that is done outside of turns is counted too, and never over. */
export class TurnBudget implements DecodePace {
  /** All work so far; it only rises. */
  spent = 0;
  #end = Number.POSITIVE_INFINITY;

  get over(): boolean {
    return this.spent >= this.#end;
  }

  /** A turn of so much work begins. */
  begin(work = WORK_PER_TURN): void {
    this.#end = this.spent + work;
  }

  end(): void {
    this.#end = Number.POSITIVE_INFINITY;
  }
}
