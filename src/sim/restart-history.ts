/**
 * A guest that gives pages to a back-end and takes them back while that dies and is followed by another, compared with what
 * the guest knows itself: no page is discarded that it has, none of its buffers is lost, every message is answered once.
 */

import { MUST_TELL_HOST } from '../balloon/features.ts';
import { Random } from '../guest/random.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { createEventFd } from '../sys/fd.ts';
import {
  CONFIG_HEADER,
  F_PROTOCOL_FEATURES,
  FRONTEND_REQUEST,
  type FrontendRequest,
  HEADER,
  U64,
  VRING_ADDRESSES,
  VRING_STATE,
} from '../vhost-user/protocol.ts';
import { SegmentList } from '../virtio/chain.ts';
import { createDriverQueue } from '../virtio/create.ts';
import { IN_ORDER, RING_EVENT_IDX, VERSION_1 } from '../virtio/features.ts';
import type { DriverQueue, QueueConfig } from '../virtio/queue.ts';
import { MortalHost, Survivors, send } from './restart-host.ts';
import { SimBacking } from './sim-backing.ts';
import { ViolationError } from './sim-checks.ts';

const PAGES = 96;
/** Rings and lists lie below it. */
const FIRST_PAGE = 24;
const QUEUE_SIZE = 8;
/** Where the list of a descriptor lies. */
const LISTS = 8 * PAGE_SIZE;
const LIST_BYTES = 128;
const LIST_PAGES_MAX = 16;
const STEPS = 30;
const DEATHS_MAX = 3;

/** Whose a page is, as the guest knows it. */
const OWN = 0;
/** Named in a buffer that is not back. */
const GIVING = 1;
const GIVEN = 2;
const TAKING = 3;
/** The same of a driver that need not wait for the host, and uses the page already. */
const TAKEN = 4;

const INFLATE = 0;
const DEFLATE = 1;

const REPLIES: ReadonlySet<FrontendRequest> = new Set<FrontendRequest>([
  'GET_FEATURES',
  'GET_CONFIG',
  'GET_VRING_BASE',
]);

class RestartGuest {
  readonly world: Survivors;
  readonly random: Random;
  readonly features: bigint;
  host: MortalHost;
  /** Where hosts died. */
  readonly boundaries: string[] = [];
  readonly trace: string[] = [];
  readonly #memory: GuestMemory;
  readonly #pages = new Uint8Array(PAGES);
  /** What the guest has written into pages of its own. */
  readonly #contents = new Uint32Array(PAGES);
  readonly #queues: readonly DriverQueue[];
  readonly #configs: readonly QueueConfig[];
  readonly #lists = new Map<number, readonly number[]>();
  readonly #segments = new SegmentList();
  readonly #used = { token: 0, written: 0 };
  #token = 1;
  #stamp = 1;
  /** The reply that the front-end waits for. */
  #awaited: FrontendRequest | undefined;
  #complaint: string | undefined;

  constructor(seed: number) {
    this.random = new Random(seed);
    const backing = new SimBacking(PAGES * PAGE_SIZE, PAGE_SIZE);
    const addresses = { guestAddress: 0, userAddress: 0, size: backing.size };
    const region = new MemoryRegion(addresses, backing);
    this.#memory = new GuestMemory([region]);
    this.world = new Survivors(backing, region);
    backing.onDiscard = (page, count) => this.#discarded(page, count);
    this.features = [MUST_TELL_HOST, IN_ORDER, RING_EVENT_IDX].reduce(
      (features, feature) => (this.random.chance(0.6) ? features | feature : features),
      VERSION_1,
    );
    this.#configs = [INFLATE, DEFLATE].map(index => ({
      size: QUEUE_SIZE,
      descriptorArea: index * 3 * PAGE_SIZE,
      driverArea: (index * 3 + 1) * PAGE_SIZE,
      deviceArea: (index * 3 + 2) * PAGE_SIZE,
      features: this.features,
    }));
    this.#queues = this.#configs.map(config => createDriverQueue(config));
    for (const queue of this.#queues) queue.initialize(this.#memory);
    this.host = MortalHost.begin(this.world, this.features);
  }

  // The host ----------------------------------------------------------------------------------------------

  /** Has the host do something, or die at it; then another goes on. */
  act(what: string, act: (host: MortalHost) => void): void {
    this.trace.push(what);
    try {
      act(this.host);
    } catch (error) {
      if (!this.world.dead) throw error;
    }
    if (this.world.dead) this.#next();
    this.#check();
  }

  #next(): void {
    for (;;) {
      this.boundaries.push(this.world.diedAt);
      this.trace.push(`dies ${this.world.diedAt}`);
      this.world.bury();
      this.host.leave();
      this.arm();
      try {
        this.host = MortalHost.takeUp(this.world, this.features);
      } catch (error) {
        if (!this.world.dead) throw error;
      }
      if (!this.world.dead) return;
    }
  }

  /** Lets the host die some boundaries from now on. */
  arm(): void {
    if (this.boundaries.length < DEATHS_MAX) this.world.lives = this.random.between(1, 60);
  }

  #check(): void {
    if (this.#complaint !== undefined) throw new ViolationError(this.#complaint);
    if (this.host.failure !== undefined) {
      throw new ViolationError(`what the front-end said was refused: ${this.host.failure.message}`);
    }
  }

  #discarded(page: number, count: number): void {
    for (let at = page; at < page + count; at++) {
      if (this.#pages[at] === OWN || this.#pages[at] === TAKEN)
        this.#complaint ??= `page ${at} is discarded and is the guest's`;
    }
  }

  // The front-end -----------------------------------------------------------------------------------------

  say(name: FrontendRequest, payload: Uint8Array = new Uint8Array(0), withKick = false): void {
    send(this.world, FRONTEND_REQUEST[name], payload, withKick ? [createEventFd()] : []);
    this.act(name, host => host.read());
    if (!REPLIES.has(name)) return;
    this.#awaited = name;
    this.hear();
  }

  /** Reads replies; each has to be the one that is awaited. */
  hear(): void {
    for (const reply of this.world.toFrontend.splice(0)) {
      const { request } = HEADER.read(new DataView(reply.buffer));
      if (this.#awaited === undefined || FRONTEND_REQUEST[this.#awaited] !== request) {
        throw new ViolationError(`a reply to request ${request} came that is not waited for`);
      }
      this.#awaited = undefined;
    }
  }

  /** Settles what delays a reply, and reads it. */
  #await(): void {
    for (let turns = 0; this.#awaited !== undefined; turns++) {
      if (turns > 200) throw new ViolationError(`${this.#awaited} is never answered`);
      this.act('waits', host => {
        host.discard();
        host.connection.progress();
        host.read();
      });
      this.hear();
    }
  }

  ask(name: FrontendRequest, payload?: Uint8Array): void {
    this.say(name, payload);
    this.#await();
  }

  begin(): void {
    this.ask('GET_FEATURES');
    this.say('SET_FEATURES', U64.encode({ value: this.features | F_PROTOCOL_FEATURES }));
    for (const index of [INFLATE, DEFLATE]) this.startRing(index, 0);
  }

  startRing(index: number, base: number): void {
    const { descriptorArea, driverArea, deviceArea } = this.#configs[index];
    this.say('SET_VRING_NUM', VRING_STATE.encode({ index, num: QUEUE_SIZE }));
    this.say('SET_VRING_BASE', VRING_STATE.encode({ index, num: base }));
    const addresses = { descriptorTable: descriptorArea, availRing: driverArea, usedRing: deviceArea };
    this.say('SET_VRING_ADDR', VRING_ADDRESSES.encode({ index, flags: 0, log: 0, ...addresses }));
    this.say('SET_VRING_KICK', U64.encode({ value: BigInt(index) }), true);
    this.say('SET_VRING_ENABLE', VRING_STATE.encode({ index, num: 1 }));
  }

  /** Stops a ring in order and starts it again where it stopped. */
  pause(index: number): void {
    this.ask('GET_VRING_BASE', VRING_STATE.encode({ index, num: 0 }));
    this.collect();
    this.startRing(index, this.#memory.u16(this.#configs[index].deviceArea + 2));
  }

  // The driver --------------------------------------------------------------------------------------------

  /** Offers pages of the guest's own, or of its balloon. */
  offer(index: number): void {
    const from = index === INFLATE ? OWN : GIVEN;
    const queue = this.#queues[index];
    const pages: number[] = [];
    const first = this.random.between(FIRST_PAGE, PAGES - 1);
    for (let at = first; at < PAGES && pages.length < LIST_PAGES_MAX; at++) {
      if (this.#pages[at] === from && this.random.chance(0.8)) pages.push(at);
    }
    if (pages.length === 0 || queue.freeCount === 0) return;
    const token = this.#token++;
    const address = LISTS + ((token % 64) * 2 + index) * LIST_BYTES;
    for (const [at, page] of pages.entries()) this.#memory.setU32(address + at * 4, page);
    const segments = this.#segments.clear();
    segments.addReadable(address, pages.length * 4);
    if (!queue.addBuffer(this.#memory, segments, token)) return;
    queue.publish(this.#memory);
    this.#lists.set(token, pages);
    this.trace.push(`offers ${index === INFLATE ? 'pages' : 'to take back'} ${pages.join(' ')}`);
    const told = (this.features & MUST_TELL_HOST) !== 0n;
    for (const page of pages) {
      this.#pages[page] = index === INFLATE ? GIVING : TAKING;
      // It need not wait for the host.
      if (index === DEFLATE && !told) this.#write(page, TAKEN);
    }
  }

  #write(page: number, state = OWN): void {
    this.#pages[page] = state;
    this.#contents[page] = this.#stamp++;
    this.#memory.setU32(page * PAGE_SIZE, this.#contents[page]);
    this.world.backing.touch(page, 1);
  }

  /** Takes buffers that are back. */
  collect(): void {
    for (const index of [INFLATE, DEFLATE]) {
      while (this.#queues[index].popUsed(this.#memory, this.#used)) {
        const pages = this.#lists.get(this.#used.token) ?? [];
        this.#lists.delete(this.#used.token);
        for (const page of pages) {
          if (index === INFLATE) this.#pages[page] = GIVEN;
          else if (this.#pages[page] === TAKING) this.#write(page);
          else this.#pages[page] = OWN;
        }
      }
    }
  }

  // What is true in the end -------------------------------------------------------------------------------

  rest(): void {
    this.world.lives = Number.POSITIVE_INFINITY;
    for (let turns = 0; this.#lists.size > 0 || !this.host.idle; turns++) {
      if (turns > 400) throw new ViolationError(`${this.#lists.size} buffers never come back`);
      this.act('serves', host => {
        host.serve(INFLATE);
        host.serve(DEFLATE);
        host.discard();
        host.read();
      });
      this.collect();
    }
    this.hear();
    const [{ ballooned }] = this.host.device.accounts.all;
    for (let page = FIRST_PAGE; page < PAGES; page++) {
      const given = this.#pages[page] === GIVEN;
      if (ballooned.test(page) !== given) {
        throw new ViolationError(
          `the account is wrong of page ${page}, which is ${given ? '' : 'not '}given`,
        );
      }
      if (given && this.world.backing.resident.test(page)) {
        throw new ViolationError(`the host holds page ${page}, which was given`);
      }
      if (!given && this.#memory.u32(page * PAGE_SIZE) !== this.#contents[page]) {
        throw new ViolationError(`page ${page} does not hold what the guest wrote`);
      }
    }
  }

  close(): void {
    this.host.leave();
    this.world.close();
  }
}

interface RestartOutcome {
  /** Where it died. */
  readonly boundaries: readonly string[];
  readonly trace: readonly string[];
  readonly failure: Error | undefined;
}

/** Lives through one history. */
function liveRestarts(seed: number): RestartOutcome {
  const guest = new RestartGuest(seed);
  const { random, trace } = guest;
  try {
    guest.arm();
    guest.begin();
    for (let step = 0; step < STEPS; step++) {
      const choice = random.below(20);
      if (choice < 5) guest.offer(INFLATE);
      else if (choice < 9) guest.offer(DEFLATE);
      else if (choice < 13) guest.act('serves', host => host.serve(random.below(2)));
      else if (choice < 16) guest.act('discards', host => host.discard());
      else if (choice < 18) guest.collect();
      else if (choice < 19) writeActual(guest);
      else if (random.chance(0.5)) guest.ask('GET_CONFIG', new Uint8Array(CONFIG_HEADER.size + 8));
      else guest.pause(random.below(2));
    }
    guest.rest();
    return { boundaries: guest.boundaries, trace, failure: undefined };
  } catch (error) {
    return { boundaries: guest.boundaries, trace, failure: error as Error };
  } finally {
    guest.close();
  }
}

function writeActual(guest: RestartGuest): void {
  const payload = new Uint8Array(CONFIG_HEADER.size + 4);
  CONFIG_HEADER.write(new DataView(payload.buffer), 0, { offset: 4, size: 4, flags: 0 });
  guest.say('SET_CONFIG', payload);
}

interface RestartsChoice {
  readonly seed: number;
  readonly seeds: number;
  /** So many end it. */
  readonly failuresMax?: number;
}

interface RestartsReport {
  readonly histories: number;
  readonly deaths: number;
  /** How often a host died where. */
  readonly boundaries: Readonly<Record<string, number>>;
  readonly failures: readonly { readonly seed: number; readonly message: string }[];
}

/** More failures tell nothing more. */
const FAILURES_MAX = 5;

export function reportRestarts(
  { seed, seeds, failuresMax = FAILURES_MAX }: RestartsChoice,
  print: (line: string) => void,
): RestartsReport {
  const failures: { seed: number; message: string }[] = [];
  const boundaries: Record<string, number> = {};
  let [histories, deaths] = [0, 0];
  for (; histories < seeds && failures.length < failuresMax; histories++) {
    const history = liveRestarts(seed + histories);
    deaths += history.boundaries.length;
    for (const where of history.boundaries) boundaries[where] = (boundaries[where] ?? 0) + 1;
    if (history.failure === undefined) continue;
    const { message, stack } = history.failure;
    failures.push({ seed: seed + histories, message });
    for (const line of history.trace) print(`  ${line}`);
    print(history.failure instanceof ViolationError ? message : (stack ?? message));
    print(`Again: npm run sim -- restart --seed ${seed + histories}`);
  }
  print(`${histories} histories from seed ${seed} on, with ${deaths} deaths: ${failures.length} failed`);
  return { histories, deaths, boundaries, failures };
}
