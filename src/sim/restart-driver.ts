/**
 * The driver of a guest whose back-end dies now and then: what it does on each of its queues, and what it knows of its own
 * pages, without any of the real driver's code. Who the back-end is and when it is served is restart-guest.ts's.
 */
import type { QueueRole } from '../balloon/features.ts';
import { HINT_DONE, HINT_ID_MIN, HINT_STOP } from '../balloon/hint-session.ts';
import { PageList } from '../balloon/page-list.ts';
import { EncodeCursor, type PageListFormat } from '../balloon/page-list-format.ts';
import { listFormat, type Profile, queueRoles } from '../balloon/profiles.ts';
import type { Request } from '../balloon/request-messages.ts';
import { STATISTIC_BYTES, STATISTIC_NAMES } from '../balloon/statistics.ts';
import type { Random } from '../guest/random.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { PAGE_SIZE, type PageSink } from '../memory/page.ts';
import { PageRanges } from '../memory/page-ranges.ts';
import { writeU64 } from '../sys/struct.ts';
import { SegmentList } from '../virtio/chain.ts';
import { createDriverQueue } from '../virtio/create.ts';
import { hasFeature, RING_INDIRECT_DESC, RING_PACKED } from '../virtio/features.ts';
import type { DriverQueue, QueueConfig } from '../virtio/queue.ts';
import type { SimBacking } from './sim-backing.ts';
import { ViolationError } from './sim-checks.ts';

export const PAGES = 96;
/** Rings and lists lie below it. */
const FIRST_PAGE = 20;
/** Small ones are gone round more often; those of split rings are powers of two. */
const QUEUE_SIZES = { split: [4, 8], packed: [3, 4, 5, 8] };
/** Where the lists lie that are with the device: a place for each of so many buffers. */
const LISTS = 8 * PAGE_SIZE;
const PLACES = 128;
const LIST_BYTES = 256;
const TABLE_BYTES = 64;
const LIST_PAGES_MAX = 16;
const EXTENTS_MAX = 3;

/** Whose a page is, as the guest knows it. */
const OWN = 0;
/** Named in a buffer that is not back. */
const GIVING = 1;
const GIVEN = 2;
const TAKING = 3;
/** The same of a driver that need not wait for the host, and uses the page already. */
const TAKEN = 4;
/** It keeps them for a session of hints. */
const HINTED = 5;
/** It keeps them until their report is back, and they may be discarded meanwhile. */
const REPORTED = 6;

interface Outstanding {
  readonly role: QueueRole;
  readonly pages: readonly number[];
  /** The device keeps it as long as it likes. */
  readonly stays: boolean;
  readonly address: number;
}

export class RestartDriver {
  readonly roles: readonly QueueRole[];
  readonly configs: readonly QueueConfig[];
  readonly queueSize: number;
  /** Told of what it offers. */
  offered: (what: string) => void = () => {};
  readonly #abi: Profile;
  readonly #features: bigint;
  /** Hinted pages may be discarded until their buffers are back. */
  readonly #waitsForHints: boolean;
  readonly #random: Random;
  readonly #memory: GuestMemory;
  readonly #backing: SimBacking;
  readonly #told: boolean;
  readonly #pages = new Uint8Array(PAGES);
  /** What the guest has written into pages of its own. */
  readonly #contents = new Uint32Array(PAGES);
  readonly #queues: readonly DriverQueue[];
  readonly #outstanding = new Map<number, Outstanding>();
  readonly #segments = new SegmentList();
  readonly #list = new PageList();
  readonly #used = { token: 0, written: 0 };
  #token = 1;
  #stamp = 1;
  /** Ids of sessions that it has answered, the one that it is in, and under which id it named each page last. */
  readonly #answeredIds = new Set<number>();
  #session = 0;
  readonly #hintedUnder = new Float64Array(PAGES);
  /** Requests that it has to answer, and by which request it named each page last. */
  readonly #requests: Request[] = [];
  readonly #answered = new Map<number, ReadonlySet<number>>();
  /** The number in the sample that it has given last. */
  sampleValue = 0;

  constructor(
    abi: Profile,
    features: bigint,
    random: Random,
    memory: GuestMemory,
    backing: SimBacking,
    told: boolean,
  ) {
    this.#abi = abi;
    this.#features = features;
    this.#waitsForHints = hasFeature(features, abi.hintAckFeature);
    this.#random = random;
    this.#memory = memory;
    this.#backing = backing;
    this.#told = told;
    this.roles = queueRoles(abi, features);
    const sizes = QUEUE_SIZES[hasFeature(features, RING_PACKED) ? 'packed' : 'split'];
    this.queueSize = sizes[random.below(sizes.length)];
    this.configs = this.roles.map((_, index) => ({
      size: this.queueSize,
      descriptorArea: index * PAGE_SIZE,
      driverArea: index * PAGE_SIZE + 1024,
      deviceArea: index * PAGE_SIZE + 2048,
      features,
    }));
    this.#queues = this.configs.map(config => createDriverQueue(config));
    for (const queue of this.#queues) queue.initialize(memory);
  }

  // What is true at any time ------------------------------------------------------------------------------

  /** Why pages must not be discarded now. */
  objectionTo(page: number, count: number): string | undefined {
    for (let at = page; at < page + count; at++) {
      const state = this.#pages[at];
      if (state === OWN || state === TAKEN || state === HINTED)
        return `page ${at} is discarded and is the guest's`;
    }
    return undefined;
  }

  /** Takes pages that the device believes to be unused, of the session or request with this id. */
  unused(id: () => number): PageSink {
    return {
      add: (pfn, count) => {
        for (let page = pfn; page < pfn + count; page++) {
          const under =
            this.#abi.freePages.kind === 'session'
              ? this.#hintedUnder[page] === id()
              : this.#answered.get(id())?.has(page) === true;
          if (!under)
            throw new ViolationError(`page ${page} counts as unused under id ${id()}, and was not named so`);
        }
      },
    };
  }

  /** Buffers that the device has to return. */
  get owed(): number {
    let owed = 0;
    for (const { stays } of this.#outstanding.values()) owed += stays ? 0 : 1;
    return owed;
  }

  /** Buffers of a queue that the device has. */
  with(role: QueueRole): number {
    return [...this.#outstanding.values()].filter(buffer => buffer.role === role).length;
  }

  get ownPages(): number {
    return this.#pages.subarray(FIRST_PAGE).filter(state => state === OWN).length;
  }

  /** Compares what the device has with what is known here. */
  compare(isBallooned: (page: number) => boolean): void {
    for (let page = FIRST_PAGE; page < PAGES; page++) {
      const given = this.#pages[page] === GIVEN;
      if (isBallooned(page) !== given) {
        throw new ViolationError(
          `the account is wrong of page ${page}, which is ${given ? '' : 'not '}given`,
        );
      }
      if (given && this.#backing.resident.test(page)) {
        throw new ViolationError(`the host holds page ${page}, which was given`);
      }
      if (!given && this.#memory.u32(page * PAGE_SIZE) !== this.#contents[page]) {
        throw new ViolationError(`page ${page} does not hold what the guest wrote`);
      }
    }
  }

  // Inflation and reports ---------------------------------------------------------------------------------

  /** Offers pages of the guest's own, or of its balloon. */
  move(role: 'inflate' | 'deflate'): void {
    const inflates = role === 'inflate';
    const pages = this.#some(inflates ? OWN : GIVEN);
    const format = listFormat(this.#abi, this.#features);
    const named = this.#offer(role, format, pages);
    for (const page of named) {
      this.#pages[page] = inflates ? GIVING : TAKING;
      // It need not wait for the host.
      if (!inflates && !this.#told) this.#write(page, TAKEN);
    }
  }

  /** Reports pages as free. */
  report(role: 'reporting' | 'hinting'): void {
    const named = this.#offer(role, this.#abi.freePages.format, this.#some(OWN));
    for (const page of named) this.#pages[page] = REPORTED;
  }

  /** Up to some pages that are in this state. */
  #some(state: number, countMax = LIST_PAGES_MAX): number[] {
    const pages: number[] = [];
    const first = this.#random.between(FIRST_PAGE, PAGES - 1);
    for (let at = first; at < PAGES && pages.length < countMax; at++) {
      if (this.#pages[at] === state && this.#random.chance(0.8)) pages.push(at);
    }
    return pages;
  }

  /** Offers a list of pages; returns those that it names. */
  #offer(role: QueueRole, format: PageListFormat, pages: readonly number[]): readonly number[] {
    if (pages.length === 0) return [];
    const list = this.#list;
    list.clear();
    const ranges = rangesOf(pages);
    const count = format.encode(ranges, new EncodeCursor(), list, {
      bytesMax: LIST_BYTES,
      extentsMax: EXTENTS_MAX,
    });
    const named = pages.slice(0, count);
    return this.#post(role, named) ? named : [];
  }

  /** Makes {@link #list} available. */
  #post(
    role: QueueRole,
    pages: readonly number[],
    { stays = false, writable = 0, at = this.#place() } = {},
  ): boolean {
    const queue = this.#queues[this.roles.indexOf(role)];
    const list = this.#list;
    const segments = this.#segments.clear();
    if (list.length > 0) this.#memory.write(at, list.bytes, 0, list.length);
    const cut = list.length > 1 && this.#random.chance(0.3) ? this.#random.between(1, list.length - 1) : 0;
    if (cut > 0) segments.addReadable(at, cut);
    if (list.length > 0) segments.addReadable(at + cut, list.length - cut);
    for (let index = 0; index < list.extentCount; index++) {
      segments.addWritable(list.extentAddresses[index], list.extentLengths[index]);
    }
    if (writable > 0) segments.addWritable(at, writable);
    const token = this.#token++;
    const indirect =
      hasFeature(this.#features, RING_INDIRECT_DESC) && segments.count > 1 && this.#random.chance(0.5);
    const table = indirect ? LISTS + PLACES * LIST_BYTES + (token % PLACES) * TABLE_BYTES : undefined;
    if (!queue.addBuffer(this.#memory, segments, token, table)) return false;
    queue.publish(this.#memory);
    this.#outstanding.set(token, { role, pages, stays, address: at });
    this.offered(`offers on ${role}: ${pages.join(' ')}`);
    return true;
  }

  #place(): number {
    return LISTS + (this.#token % PLACES) * LIST_BYTES;
  }

  #write(page: number, state = OWN): void {
    this.#pages[page] = state;
    this.#contents[page] = this.#stamp++;
    this.#memory.setU32(page * PAGE_SIZE, this.#contents[page]);
    this.#backing.touch(page, 1);
  }

  // Statistics --------------------------------------------------------------------------------------------

  /** Fills the buffer for statistics, when it is here. */
  fillSample(): void {
    if (this.with('stats') > 0) return;
    const list = this.#list;
    list.clear();
    list.length = STATISTIC_BYTES;
    list.view.setUint16(0, STATISTIC_NAMES.indexOf('freeBytes'), true);
    writeU64(list.view, 2, ++this.sampleValue);
    this.#post('stats', [], { stays: true });
  }

  // Hints -------------------------------------------------------------------------------------------------

  /** The host begins a session. */
  sessionBegun(id: number): void {
    if (this.#answeredIds.has(id)) throw new ViolationError(`session id ${id} is issued twice`);
  }

  /** Reads what the configuration says, and does the next step. */
  hint(shown: number): void {
    if (shown === HINT_STOP || shown === HINT_DONE) {
      if (this.#session !== 0 && !this.#command(HINT_STOP)) return;
      this.#session = 0;
      if (shown === HINT_DONE) this.#release();
    } else if (shown !== this.#session) {
      if (shown < HINT_ID_MIN) throw new ViolationError(`the configuration shows session id ${shown}`);
      if (!this.#command(shown)) return;
      this.#session = shown;
      this.#answeredIds.add(shown);
    } else {
      const id = this.#session;
      const named = this.#offer('hint', this.#abi.freePages.format, this.#some(OWN, 3));
      for (const page of named) {
        this.#hintedUnder[page] = id;
        if (this.#keepsHints) this.#pages[page] = this.#waitsForHints ? REPORTED : HINTED;
      }
    }
  }

  get #keepsHints(): boolean {
    return this.#abi.freePages.kind === 'session' && this.#abi.freePages.hasDone;
  }

  #command(id: number): boolean {
    this.#list.clear();
    this.#list.length = 4;
    this.#list.view.setUint32(0, id, true);
    return this.#post('hint', []);
  }

  #release(): void {
    for (let page = FIRST_PAGE; page < PAGES; page++)
      if (this.#pages[page] === HINTED) this.#pages[page] = OWN;
  }

  // Requests ----------------------------------------------------------------------------------------------

  /** Answers requests that came, and posts the buffer for the next; one `early` comes before the answers. */
  answer(early: boolean): void {
    const { freePages } = this.#abi;
    if (freePages.kind !== 'request') return;
    const { protocol, format } = freePages;
    const request = this.#requests[0];
    if (request !== undefined && !early) {
      const pages = this.#all(OWN);
      const list = this.#list;
      list.clear();
      list.beginAt(protocol.prefixBytes);
      const count = format.encode(rangesOf(pages), new EncodeCursor(), list, {
        bytesMax: LIST_BYTES - 8,
        extentsMax: 0,
      });
      protocol.writeAnswer(list, { ...request, done: true });
      pages.length = count;
      if (!this.#post('request', [])) return;
      this.#answered.set(request.id, new Set([...(this.#answered.get(request.id) ?? []), ...pages]));
      this.#requests.shift();
      return;
    }
    // Without ids it is not known which request an answer is to that comes after another buffer was posted.
    if (early && protocol.idMax === 0) return;
    if (this.with('request') > (early ? 1 : 0)) return;
    this.#list.clear();
    this.#post('request', [], { stays: true, writable: protocol.requestBytes });
  }

  #all(state: number): number[] {
    const pages: number[] = [];
    for (let page = FIRST_PAGE; page < PAGES; page++) if (this.#pages[page] === state) pages.push(page);
    return pages;
  }

  #requested(address: number, written: number): void {
    const { freePages } = this.#abi;
    if (freePages.kind !== 'request' || written !== freePages.protocol.requestBytes) return;
    const bytes = new Uint8Array(written);
    this.#memory.read(address, bytes, 0, written);
    this.#requests.push(freePages.protocol.readRequest(new DataView(bytes.buffer), written));
  }

  // Buffers that are back ---------------------------------------------------------------------------------

  collect(): void {
    for (const queue of this.#queues) {
      while (queue.popUsed(this.#memory, this.#used)) {
        const { token, written } = this.#used;
        const buffer = this.#outstanding.get(token);
        if (buffer === undefined) throw new ViolationError(`buffer ${token} came back twice`);
        this.#outstanding.delete(token);
        if (buffer.role === 'request' && buffer.stays) this.#requested(buffer.address, written);
        for (const page of buffer.pages) this.#returned(buffer.role, page);
      }
    }
  }

  #returned(role: QueueRole, page: number): void {
    const state = this.#pages[page];
    if (role === 'inflate') this.#pages[page] = GIVEN;
    else if (role === 'deflate') {
      if (state === TAKING) this.#write(page);
      else this.#pages[page] = OWN;
    } else if (state === REPORTED && (role !== 'hint' || this.#waitsForHints)) {
      this.#write(page, role === 'hint' ? HINTED : OWN);
    }
  }
}

function rangesOf(pages: readonly number[]): PageRanges {
  const ranges = new PageRanges();
  for (const page of pages) ranges.add(page, 1);
  return ranges;
}
