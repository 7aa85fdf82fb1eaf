/**
 * The request queue of the proposals v3 to v10: the guest posts one buffer, the device fills in what it wants
 * and returns it, and the guest answers with page lists on the same queue. Pages that it names as unused go to
 * the sink that the caller gave; they are never discarded.
 */
import { PageListError } from '../balloon/page-list.ts';
import type { Profile } from '../balloon/profiles.ts';
import type { RequestProtocol } from '../balloon/request-messages.ts';
import type { PageSink } from '../memory/page.ts';
import type { PoppedBuffer } from '../virtio/chain.ts';
import type { DeviceCounters } from './counters.ts';
import type { PageAccounts } from './page-accounts.ts';
import type { RunningQueue } from './running-queue.ts';

/** Room for the longest request of any protocol. */
const REQUEST_BYTES_MAX = 64;
/**
 * Buffers for requests that are kept. One is enough; v10's driver posts its own once more at every interrupt, and at once
 * again when it comes back empty.
 */
const POSTED_MAX = 16;

/** A request under way, or the last one. */
export interface RequestProgress {
  readonly command: number;
  readonly id: number;
  readonly pages: number;
  readonly lists: number;
  /** A list said that it was the last. The last lists of an answer may all say so, as v4 has it. */
  readonly done: boolean;
}

/** A buffer of the guest's for a request, with where to write. */
interface Posted {
  readonly buffer: PoppedBuffer;
  readonly address: number;
}

export class RequestChannel {
  readonly #profile: Profile;
  readonly #counters: DeviceCounters;
  readonly #sink: PageSink;
  readonly #changed: () => void;
  readonly #scratch = new Uint8Array(REQUEST_BYTES_MAX);
  readonly #view = new DataView(this.#scratch.buffer);
  #running = false;
  /** The oldest first. */
  readonly #posted: Posted[] = [];
  /** A command that waits for the guest to post its buffer. */
  #waiting: number | undefined;
  #id = 0;
  #progress: RequestProgress | null = null;
  /** The request is with the guest: it is over when the guest posts its buffer again, whether it was answered or not. */
  #open = false;
  /** An answer whose pages are being taken, and the request that it is of. */
  #answer: { readonly of: RequestProgress; pages: number; readonly done: boolean } | undefined;

  /** `changed` is called when a request is over: its progress says whether it was answered. */
  constructor(profile: Profile, counters: DeviceCounters, sink: PageSink, changed: () => void) {
    this.#profile = profile;
    this.#counters = counters;
    this.#sink = sink;
    this.#changed = changed;
  }

  get running(): boolean {
    return this.#running;
  }

  get progress(): RequestProgress | null {
    return this.#progress;
  }

  start(): void {
    this.#running = true;
  }

  /**
   * Asks for `command`, or notes that it is to be asked as soon as the guest posts its buffer. True when a
   * buffer was pushed: the caller publishes.
   */
  send(running: RunningQueue, command: number): boolean {
    const { freePages } = this.#profile;
    if (freePages.kind !== 'request') return false;
    const posted = this.#posted.shift();
    if (posted === undefined) {
      this.#waiting = command;
      return false;
    }
    const { protocol } = freePages;
    this.#id = protocol.idMax === 0 ? 0 : (this.#id + 1) % Math.min(protocol.idMax, 0xffff);
    protocol.writeRequest(this.#view, { command, id: this.#id });
    running.memory.write(posted.address, this.#scratch, 0, protocol.requestBytes);
    // The driver tells a request from a mere return of its buffer by this exact length.
    running.queue.pushUsed(running.memory, posted.buffer, protocol.requestBytes);
    this.#waiting = undefined;
    this.#open = true;
    this.#progress = { command, id: this.#id, pages: 0, lists: 0, done: false };
    return true;
  }

  /** What is asked for is wished for no more: what is still answered counts for nothing. */
  cancel(): void {
    this.#waiting = undefined;
    this.#open = false;
  }

  /**
   * Takes the buffer that was popped. False when it is kept: it is the guest's buffer for the next request. The pages of an
   * answer are begun as the list of the queue's walk; {@link answered} when that is done.
   * @throws PageListError when it is neither that nor an answer
   */
  take(running: RunningQueue, accounts: PageAccounts): boolean {
    const { freePages } = this.#profile;
    if (freePages.kind !== 'request') throw new PageListError('message', 'the profile has no requests');
    const { chain } = running;
    if (chain.readableCount === 0) {
      this.#post(running, freePages.protocol);
      this.#end();
      if (this.#waiting !== undefined) this.send(running, this.#waiting);
      return false;
    }
    this.#takeAnswer(running, freePages.protocol, accounts);
    return true;
  }

  #post({ chain, queue, memory }: RunningQueue, protocol: RequestProtocol): void {
    // One segment is what every driver posts, and all that a request needs.
    if (chain.count !== 1 || chain.writableBytes < protocol.requestBytes) {
      throw new PageListError(
        'message',
        `a buffer of ${chain.writableBytes} bytes in ${chain.count} segments for requests`,
      );
    }
    if (this.#posted.length === POSTED_MAX) queue.pushUsed(memory, this.#posted.shift()!.buffer, 0);
    this.#posted.push({ buffer: chain.hold(), address: chain.address(0) });
  }

  /** A driver that posts its buffer again has said all that it had to say. */
  #end(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#changed();
  }

  #takeAnswer(running: RunningQueue, protocol: RequestProtocol, accounts: PageAccounts): void {
    const list = running.readList();
    this.#counters.hintBuffers++;
    this.#counters.listBytes += list.length;
    const answer = protocol.readAnswer(list);
    const progress = this.#progress;
    // An answer to something that was not asked, or to an older request, counts for nothing.
    if (
      progress === null ||
      !this.#open ||
      answer.command !== progress.command ||
      answer.id !== progress.id
    ) {
      return;
    }
    running.walk.begin(this.#profile.freePages.format, this.#named, accounts);
    this.#answer = { of: progress, pages: 0, done: answer.done };
  }

  readonly #named: PageSink = {
    add: (pfn, count) => {
      if (this.#answer !== undefined) this.#answer.pages += count;
      this.#counters.hintedPages += count;
      this.#sink.add(pfn, count);
    },
  };

  /** The list that was begun last is done. */
  answered(): void {
    const answer = this.#answer;
    this.#answer = undefined;
    // A request that was cancelled or made anew meanwhile was not answered by it.
    if (answer === undefined || this.#progress !== answer.of) return;
    const { of: progress, pages } = answer;
    const done = progress.done || answer.done;
    this.#progress = { ...progress, pages: progress.pages + pages, lists: progress.lists + 1, done };
  }

  /** Gives the guest's buffer back before a ring that goes on elsewhere stops. True when it was pushed. */
  release({ queue, memory }: RunningQueue): boolean {
    this.#running = false;
    if (this.#posted.length === 0) return false;
    for (const { buffer } of this.#posted.splice(0)) queue.pushUsed(memory, buffer, 0);
    return true;
  }

  reset(): void {
    this.#running = false;
    this.#posted.length = 0;
    this.#waiting = undefined;
    this.#open = false;
    this.#progress = null;
    this.#answer = undefined;
  }
}
