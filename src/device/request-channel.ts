/**
 * The request queue of the proposals v3 to v10: the guest posts one buffer, the device fills in what it wants
 * and returns it, and the guest answers with page lists on the same queue. Pages that it names as unused go to
 * `PartWorld.unusedPages`; they are never discarded.
 */
import { PageListError } from '../balloon/page-list.ts';
import type { RequestProtocol } from '../balloon/request-messages.ts';
import type { PageSink } from '../memory/page.ts';
import type { PoppedBuffer } from '../virtio/chain.ts';
import type { StopReason } from '../virtio/device.ts';
import type { DevicePart, PartWorld } from './part.ts';
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

export class RequestChannel implements DevicePart {
  readonly roles = ['request'] as const;
  readonly counters = { hintBuffers: 0, hintedPages: 0 };
  readonly #world: PartWorld;
  readonly #scratch = new Uint8Array(REQUEST_BYTES_MAX);
  readonly #view = new DataView(this.#scratch.buffer);
  #ring: RunningQueue | undefined;
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

  constructor(world: PartWorld) {
    this.#world = world;
  }

  get running(): boolean {
    return this.#ring !== undefined;
  }

  get progress(): RequestProgress | null {
    return this.#progress;
  }

  /** The guest has not posted its buffer for the command that is to be sent. */
  get waiting(): boolean {
    return this.#waiting !== undefined;
  }

  start(ring: RunningQueue): void {
    this.#ring = ring;
  }

  /**
   * Asks for `command`, at once or as soon as the guest posts its buffer for it. `DeviceHost.requestAnswered` hears the end,
   * and {@link progress} says whether it was answered.
   */
  send(command: number): void {
    const ring = this.#ring;
    ring?.attempt(() => {
      if (this.#send(ring, command)) ring.publish();
    });
  }

  /** True when the guest's buffer was given back, with the command in it. */
  #send(ring: RunningQueue, command: number): boolean {
    const { freePages } = this.#world.profile;
    if (freePages.kind !== 'request') return false;
    const posted = this.#posted.shift();
    if (posted === undefined) {
      this.#waiting = command;
      return false;
    }
    const { protocol } = freePages;
    this.#id = protocol.idMax === 0 ? 0 : (this.#id + 1) % Math.min(protocol.idMax, 0xffff);
    protocol.writeRequest(this.#view, { command, id: this.#id });
    ring.memory.write(posted.address, this.#scratch, 0, protocol.requestBytes);
    // The driver tells a request from a mere return of its buffer by this exact length.
    ring.giveBack(posted.buffer, protocol.requestBytes);
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
   * A buffer is the guest's for the next request, which is kept, or an answer.
   * @throws PageListError when it is neither
   */
  serve(ring: RunningQueue): boolean {
    const { freePages } = this.#world.profile;
    if (freePages.kind !== 'request') throw new PageListError('message', 'the profile has no requests');
    if (ring.chain.readableCount === 0) {
      this.#post(ring, freePages.protocol);
      this.#end();
      if (this.#waiting !== undefined) this.#send(ring, this.#waiting);
      return false;
    }
    this.returnPosted(ring);
    this.#takeAnswer(ring, freePages.protocol);
    return true;
  }

  /** A buffer that is neither goes back after those that came before it, too. */
  refuse(ring: RunningQueue): void {
    this.returnPosted(ring);
  }

  /**
   * Buffers return in the order in which they came, so that a device that takes the ring up at any moment finds all that were
   * not returned in it. A driver that posts its buffer and answers afterwards gets it back empty, and posts it once more.
   */
  returnPosted(ring: RunningQueue): void {
    for (const { buffer } of this.#posted) ring.giveBack(buffer, 0);
    this.#posted.length = 0;
  }

  /** Ids begin at another one than those of a device that had the guest before: its answers may still be in the ring. */
  beginAt(id: number): void {
    this.#id = id;
  }

  #post(ring: RunningQueue, protocol: RequestProtocol): void {
    const { chain } = ring;
    // One segment is what every driver posts, and all that a request needs.
    if (chain.count !== 1 || chain.writableBytes < protocol.requestBytes) {
      throw new PageListError(
        'message',
        `a buffer of ${chain.writableBytes} bytes in ${chain.count} segments for requests`,
      );
    }
    if (this.#posted.length === POSTED_MAX) ring.giveBack(this.#posted.shift()!.buffer, 0);
    this.#posted.push({ buffer: chain.hold(), address: chain.address(0) });
  }

  /** A driver that posts its buffer again has said all that it had to say. */
  #end(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#world.host.requestAnswered();
  }

  #takeAnswer(ring: RunningQueue, protocol: RequestProtocol): void {
    const list = ring.readList();
    this.counters.hintBuffers++;
    this.#world.counters.listBytes += list.length;
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
    ring.walk.begin(this.#world.profile.freePages.format, this.#named, this.#world.accounts);
    this.#answer = { of: progress, pages: 0, done: answer.done };
  }

  readonly #named: PageSink = {
    add: (pfn, count) => {
      if (this.#answer !== undefined) this.#answer.pages += count;
      this.counters.hintedPages += count;
      this.#world.unusedPages.add(pfn, count);
    },
  };

  walked(): void {
    const answer = this.#answer;
    this.#answer = undefined;
    // A request that was cancelled or made anew meanwhile was not answered by it.
    if (answer === undefined || this.#progress !== answer.of) return;
    const { of: progress, pages } = answer;
    const done = progress.done || answer.done;
    this.#progress = { ...progress, pages: progress.pages + pages, lists: progress.lists + 1, done };
  }

  stop(ring: RunningQueue, reason: StopReason): void {
    const buffers = this.#posted.splice(0).map(({ buffer }) => buffer);
    const returned = reason === 'paused' && ring.returns(...buffers);
    this.#ring = undefined;
    if (!returned) this.reset();
  }

  reset(): void {
    this.#ring = undefined;
    this.#posted.length = 0;
    this.#waiting = undefined;
    this.#open = false;
    this.#progress = null;
    this.#answer = undefined;
  }
}
