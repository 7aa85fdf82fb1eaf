/**
 * The request queue of the proposals v3 to v10 from the guest's side: one buffer stays with the host, which fills in
 * what it wants and returns it; the answers are page lists on the same queue, and then the buffer goes back.
 */
import { PageList } from '../balloon/page-list.ts';
import { EncodeCursor, type EncodeLimits, type PageListFormat } from '../balloon/page-list-format.ts';
import {
  DROP_CACHE,
  GET_UNUSED_PAGES,
  type Request,
  type RequestProtocol,
  SHRINK,
} from '../balloon/request-messages.ts';
import type { UnusedPages } from '../memory/kernel-memory.ts';
import { PFN_LIMIT } from '../memory/page.ts';
import { PageRanges } from '../memory/page-ranges.ts';
import { PageSet } from '../memory/page-set.ts';
import type { UsedBuffer } from '../virtio/queue.ts';
import type { DriverMemory, Stretch } from './driver-memory.ts';
import { type DriverRing, tableFor } from './driver-ring.ts';
import { DriverProbeError } from './errors.ts';
import type { QueuePart } from './queue-part.ts';

/** The shortest answer that is worth having where memory is in fragments: a page. */
const ANSWER_BYTES_MIN = 4096;

const REQUEST = 0;
const ANSWER = 1;

/** An answer under way: the pages that it names, and how far it has come. */
interface Answering {
  readonly request: Request;
  readonly ranges: PageRanges;
  readonly cursor: EncodeCursor;
}

interface RequestsOptions {
  readonly unused: UnusedPages;
  readonly format: PageListFormat;
  readonly protocol: RequestProtocol;
  /** How large one list may be. */
  readonly limits: EncodeLimits;
  /** The smallest free blocks that are named. */
  readonly orderMin: number;
}

export class RequestsPart implements QueuePart {
  readonly #ring: DriverRing;
  readonly #options: RequestsOptions;
  /** The buffer for requests, and the memory for one answer. */
  readonly #request: Stretch;
  readonly #answer: Stretch;
  readonly #table: Stretch | undefined;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #list = new PageList();
  #answering: Answering | undefined;
  /** The last answer is with the host still, and its memory in use. */
  #answerOut = false;
  /** The buffer for requests is ours. */
  #owned = true;
  #paused = false;
  #stopped = false;

  /** @throws DriverProbeError when the guest has no memory for the buffers */
  constructor(ring: DriverRing, memory: DriverMemory, options: RequestsOptions) {
    const { requestBytes, prefixBytes } = options.protocol;
    const { bytesMax } = options.limits;
    const request = memory.allocate(requestBytes);
    if (request === undefined) throw new DriverProbeError('the guest has no memory for requests');
    this.#ring = ring;
    this.#options = options;
    this.#request = request;
    this.#answer = memory.allocateUpTo(prefixBytes + bytesMax, ANSWER_BYTES_MIN);
    this.#table = tableFor(ring, memory, bytesMax, 0);
    this.#bytes = new Uint8Array(requestBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  start(): void {
    this.turn();
  }

  turn(): void {
    this.#ring.turn(this.#returned, this.#work);
  }

  readonly #work = (): boolean => {
    if (this.#stopped) return false;
    if (this.#paused) return true;
    if (this.#answering !== undefined && !this.#answerOut) this.#sendAnswer(this.#answering);
    if (this.#owned && this.#answering === undefined) this.#post();
    this.#ring.flush();
    return true;
  };

  pause(): void {
    this.#paused = true;
  }

  /** The buffer for requests is with the host always. */
  get quiet(): boolean {
    return !this.#answerOut;
  }

  resume(): void {
    this.#paused = false;
    this.turn();
  }

  deviceLost(): void {
    this.#answering = undefined;
  }

  stop(): void {
    this.#stopped = true;
  }

  abandon(): void {}

  readonly #returned = ({ token, written }: UsedBuffer): void => {
    if (token === ANSWER) {
      this.#answerOut = false;
      return;
    }
    this.#owned = true;
    // A buffer that comes back with any other length asks for nothing: it is only posted again.
    if (written !== this.#options.protocol.requestBytes) return;
    this.#ring.memory.read(this.#request.address, this.#bytes, 0, written);
    this.#take(this.#options.protocol.readRequest(this.#view, written));
  };

  #take(request: Request): void {
    const { unused } = this.#options;
    const { counters } = this.#ring.world;
    const ranges = new PageRanges();
    switch (request.command) {
      case GET_UNUSED_PAGES:
        this.#listUnused(ranges);
        break;
      case DROP_CACHE:
        unused.dropCaches();
        break;
      case SHRINK:
        unused.shrinkAll();
        this.#listUnused(ranges);
        break;
      default:
        counters.unknownRequests++;
        return;
    }
    counters.requests++;
    counters.answeredPages += ranges.pages;
    this.#answering = { request, ranges, cursor: new EncodeCursor() };
  }

  /** A snapshot of the free blocks, joined to maximal runs in rising order: the fewest entries in every format. */
  #listUnused(ranges: PageRanges): void {
    const { unused, orderMin } = this.#options;
    const free = new PageSet(PFN_LIMIT);
    unused.listFree(free, orderMin);
    free.forEachRun((pfn, count) => ranges.add(pfn, count));
  }

  #sendAnswer(answering: Answering): void {
    const { format, protocol } = this.#options;
    const { request, ranges, cursor } = answering;
    const list = this.#list;
    const before = { run: cursor.run, page: cursor.page };
    list.clear();
    list.beginAt(protocol.prefixBytes);
    format.encode(ranges, cursor, list, {
      bytesMax: this.#answer.size - protocol.prefixBytes,
      extentsMax: 0,
    });
    const done = cursor.done(ranges);
    protocol.writeAnswer(list, { ...request, done });
    this.#ring.place(list, this.#answer);
    if (!this.#ring.add(ANSWER, this.#table)) {
      // Nothing but the answers' own segments can be in the way, and they come back.
      Object.assign(cursor, before);
      return;
    }
    this.#answerOut = true;
    this.#ring.world.counters.listBytes += list.length;
    // An answer ends with a list that says so, be it empty.
    if (done) this.#answering = undefined;
  }

  #post(): void {
    const { segments } = this.#ring;
    segments.clear().addWritable(this.#request.address, this.#options.protocol.requestBytes);
    if (this.#ring.add(REQUEST)) this.#owned = false;
  }
}
