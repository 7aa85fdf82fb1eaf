/**
 * A guest whose back-end dies and is followed by another: its front-end, and the back-end of the moment, compared with what
 * the guest knows itself. No page is discarded that it has, none of its buffers is lost, every message is answered once.
 */
import { MUST_TELL_HOST, PAGE_POISON } from '../balloon/features.ts';
import { type Profile, profile } from '../balloon/profiles.ts';
import { GET_UNUSED_PAGES } from '../balloon/request-messages.ts';
import { Random } from '../guest/random.ts';
import { GuestMemory, MemoryRegion } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { createEventFd, type OwnedFd } from '../sys/fd.ts';
import {
  CONFIG_HEADER,
  F_PROTOCOL_FEATURES,
  FRONTEND_REQUEST,
  type FrontendRequest,
  HEADER,
  INFLIGHT_AREA,
  U64,
  VRING_ADDRESSES,
  VRING_STATE,
} from '../vhost-user/protocol.ts';
import { IN_ORDER, RING_EVENT_IDX, RING_INDIRECT_DESC, RING_PACKED, VERSION_1 } from '../virtio/features.ts';
import { initialState } from '../virtio/queue.ts';
import { stateToVringBase } from '../virtio/vring-base.ts';
import { PAGES, RestartDriver } from './restart-driver.ts';
import { type HostPlan, MortalHost } from './restart-host.ts';
import { SimInflight } from './restart-inflight.ts';
import { BOUNDARIES, Survivors, send } from './restart-survivors.ts';
import { SimBacking } from './sim-backing.ts';
import { ViolationError } from './sim-checks.ts';
import { SIM_PROFILES } from './sim-plan.ts';

const DEATHS_MAX = 3;

const REPLIES: ReadonlySet<FrontendRequest> = new Set<FrontendRequest>([
  'GET_FEATURES',
  'GET_INFLIGHT_FD',
  'GET_CONFIG',
  'GET_VRING_BASE',
]);

/** What a history is about: every profile on either kind of ring comes in turn. */
interface RestartPlan {
  readonly abi: Profile;
  readonly packed: boolean;
  /** Its front-end keeps what is in flight, too. */
  readonly keepsInflight: boolean;
}

const planOf = (seed: number): RestartPlan => ({
  abi: profile(SIM_PROFILES[seed % SIM_PROFILES.length]),
  packed: Math.floor(seed / SIM_PROFILES.length) % 2 === 1,
  keepsInflight: Math.floor(seed / SIM_PROFILES.length / 2) % 3 === 1,
});

export class RestartGuest {
  readonly world: Survivors;
  readonly random: Random;
  readonly driver: RestartDriver;
  host: MortalHost;
  /** Where hosts died. */
  readonly boundaries: string[] = [];
  readonly trace: string[] = [];
  readonly #plan: HostPlan;
  readonly #keepsInflight: boolean;
  readonly #memory: GuestMemory;
  readonly #traced: boolean;
  /** The reply that the front-end waits for, and the payload of the last one. */
  #awaited: FrontendRequest | undefined;
  #reply: DataView = new DataView(new ArrayBuffer(0));
  #complaint: string | undefined;

  constructor(seed: number, traced: boolean) {
    this.random = new Random(seed);
    this.#traced = traced;
    const { abi, packed, keepsInflight } = planOf(seed);
    this.#keepsInflight = keepsInflight;
    const backing = new SimBacking(PAGES * PAGE_SIZE, PAGE_SIZE);
    const addresses = { guestAddress: 0, userAddress: 0, size: backing.size };
    const region = new MemoryRegion(addresses, backing);
    const memory = new GuestMemory([region]);
    this.#memory = memory;
    this.world = new Survivors(backing, region);
    const features = this.#features(abi, packed);
    const told = (features & MUST_TELL_HOST) !== 0n;
    this.driver = new RestartDriver(abi, features, this.random, memory, backing, told);
    this.driver.offered = what => this.note(() => what);
    backing.onDiscard = (page, count) => {
      this.#complaint ??= this.driver.objectionTo(page, count);
    };
    this.#plan = {
      abi,
      features,
      unusedPages: device =>
        this.driver.unused(() =>
          abi.freePages.kind === 'session'
            ? (device().hints.session.id ?? 0)
            : (device().requests.progress?.id ?? 0),
        ),
    };
    this.host = MortalHost.begin(this.world, this.#plan);
  }

  #features(abi: Profile, packed: boolean): bigint {
    const offered = [
      ...abi.features
        .map(({ mask }) => mask)
        .filter(mask => mask !== PAGE_POISON || abi.poisonFeature === 0n),
      ...(abi.freePages.kind === 'request' ? [] : [IN_ORDER]),
      RING_EVENT_IDX,
      RING_INDIRECT_DESC,
    ];
    return offered.reduce(
      (features, feature) => (this.random.chance(0.7) ? features | feature : features),
      VERSION_1 | (packed ? RING_PACKED : 0n),
    );
  }

  note(what: () => string): void {
    if (this.#traced) this.trace.push(what());
  }

  // The host ----------------------------------------------------------------------------------------------

  /** Has the host do something, or die at it; then another goes on. True when it did not die. */
  act(what: string, act: (host: MortalHost) => void): boolean {
    const deaths = this.boundaries.length;
    this.note(() => what);
    try {
      act(this.host);
    } catch (error) {
      if (!this.world.dead) throw error;
    }
    const { blame } = this.host;
    if (this.world.dead) this.#next();
    this.#check(blame);
    return this.boundaries.length === deaths;
  }

  #next(): void {
    for (;;) {
      this.boundaries.push(this.world.diedAt);
      this.note(() => `dies ${this.world.diedAt}`);
      this.#checkPages();
      this.world.bury();
      this.world.inflight?.check(this.world, this.#memory);
      this.host.leave();
      this.arm();
      try {
        this.host = MortalHost.takeUp(this.world, this.#plan);
      } catch (error) {
        if (!this.world.dead) throw error;
      }
      if (!this.world.dead) return;
    }
  }

  /** Lets the host die some boundaries from now on: soon, or after more was done. */
  arm(): void {
    if (this.boundaries.length >= DEATHS_MAX) return;
    if (this.random.chance(0.5)) {
      this.world.lives = this.random.between(1, this.random.chance(0.5) ? 30 : 200);
    } else {
      this.world.deadly = BOUNDARIES[this.random.below(BOUNDARIES.length)];
      this.world.lives = this.random.between(1, 12);
    }
  }

  #check(blame = this.host.blame): void {
    if (this.#complaint !== undefined) throw new ViolationError(this.#complaint);
    if (blame !== undefined) {
      throw new ViolationError(`the guest, which sends no nonsense, is said to: ${blame}`);
    }
    if (this.host.failure !== undefined) {
      throw new ViolationError(`what the front-end said was refused: ${this.host.failure.message}`);
    }
  }

  #checkPages(): void {
    const { badPages } = this.host.device.counters;
    if (badPages > 0) throw new ViolationError(`${badPages} pages that it takes back are said to be bad`);
  }

  // The front-end -----------------------------------------------------------------------------------------

  say(name: FrontendRequest, payload: Uint8Array = new Uint8Array(0), fds: readonly OwnedFd[] = []): void {
    send(this.world, FRONTEND_REQUEST[name], payload, fds);
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
      this.#reply = new DataView(reply.buffer, HEADER.size);
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

  /** Returns the payload of the reply. */
  ask(name: FrontendRequest, payload?: Uint8Array): DataView {
    this.say(name, payload);
    this.#await();
    return this.#reply;
  }

  begin(): void {
    const { features } = this.#plan;
    this.ask('GET_FEATURES');
    this.say('SET_FEATURES', U64.encode({ value: features | F_PROTOCOL_FEATURES }));
    if (this.#keepsInflight) this.#keepInflight();
    const fresh = initialState(features);
    const base = stateToVringBase(features, fresh);
    for (const index of this.driver.configs.keys()) this.startRing(index, base);
  }

  #keepInflight(): void {
    const { configs, queueSize } = this.driver;
    const wanted = { size: 0, offset: 0, queues: configs.length, queueSize };
    const reply = this.ask('GET_INFLIGHT_FD', INFLIGHT_AREA.encode(wanted));
    this.world.inflight = new SimInflight(reply, this.world.replied, configs);
    this.world.replied = undefined;
    const { payload, fd } = this.world.inflight.given;
    this.say('SET_INFLIGHT_FD', payload, [fd]);
  }

  startRing(index: number, base: number): void {
    const { descriptorArea, driverArea, deviceArea } = this.driver.configs[index];
    this.say('SET_VRING_NUM', VRING_STATE.encode({ index, num: this.driver.queueSize }));
    this.say('SET_VRING_BASE', VRING_STATE.encode({ index, num: base }));
    const addresses = { descriptorTable: descriptorArea, availRing: driverArea, usedRing: deviceArea };
    this.say('SET_VRING_ADDR', VRING_ADDRESSES.encode({ index, flags: 0, log: 0, ...addresses }));
    this.say('SET_VRING_KICK', U64.encode({ value: BigInt(index) }), [createEventFd()]);
    this.say('SET_VRING_ENABLE', VRING_STATE.encode({ index, num: 1 }));
  }

  /** Stops a ring in order and starts it again where it stopped. */
  pause(index: number): void {
    const { num } = VRING_STATE.read(this.ask('GET_VRING_BASE', VRING_STATE.encode({ index, num: 0 })));
    this.driver.collect();
    this.startRing(index, num);
  }

  writeActual(): void {
    const payload = new Uint8Array(CONFIG_HEADER.size + 4);
    CONFIG_HEADER.write(new DataView(payload.buffer), 0, { offset: 4, size: 4, flags: 0 });
    this.say('SET_CONFIG', payload);
  }

  /** Reads the configuration: the id of the session of hints that it shows, 0 where it has no room for one. */
  #shownId(): number {
    const size = this.#plan.abi.configBytes;
    const payload = new Uint8Array(CONFIG_HEADER.size + size);
    CONFIG_HEADER.write(new DataView(payload.buffer), 0, { offset: 0, size, flags: 0 });
    const reply = this.ask('GET_CONFIG', payload);
    return size > 8 ? reply.getUint32(CONFIG_HEADER.size + 8, true) : 0;
  }

  // Steps -------------------------------------------------------------------------------------------------

  /** Something is done on the queue for free pages or statistics, by the guest or for its host. */
  free(): void {
    const role = this.driver.roles[this.random.between(2, this.driver.roles.length - 1)];
    const asks = this.random.chance(0.5);
    if (role === 'stats') {
      if (asks) this.act('asks for statistics', host => host.device.statistics.request());
      else this.driver.fillSample();
    } else if (role === 'hint') {
      if (asks) this.#steerHints();
      else this.driver.hint(this.#shownId());
    } else if (role === 'request') {
      if (asks) this.act('asks for unused pages', host => host.device.requests.send(GET_UNUSED_PAGES));
      else this.driver.answer(this.random.chance(0.4));
    } else if (role === 'reporting' || role === 'hinting') {
      this.driver.report(role);
    }
  }

  #steerHints(): void {
    const choice = this.random.below(4);
    let id = 0;
    const done = this.act('steers hints', ({ device: { hints } }) => {
      if (choice < 2) id = hints.begin();
      else if (choice < 3) hints.end();
      else hints.done();
    });
    if (done && id !== 0) this.driver.sessionBegun(id);
  }

  // What is true in the end -------------------------------------------------------------------------------

  rest(): void {
    this.world.lives = Number.POSITIVE_INFINITY;
    this.world.deadly = undefined;
    const { driver } = this;
    if (driver.roles.includes('hint')) {
      this.act('ends hints', ({ device: { hints } }) => hints.done());
      for (let reads = 0; reads < 3; reads++) {
        driver.hint(this.#shownId());
        this.#settle();
      }
    }
    this.#settle();
    if (driver.roles.includes('stats')) this.#sampleOnce();
    if (driver.roles.includes('request')) this.#requestOnce();
    this.hear();
    this.#checkPages();
    const [{ ballooned }] = this.host.device.accounts.all;
    driver.compare(page => ballooned.test(page));
    this.world.inflight?.check(this.world, this.#memory);
  }

  #settle(): void {
    for (let turns = 0; this.driver.owed > 0 || !this.host.idle || turns === 0; turns++) {
      if (turns > 400) throw new ViolationError(`${this.driver.owed} buffers never come back`);
      this.act('serves', host => {
        for (const index of this.driver.roles.keys()) host.serve(index);
        host.discard();
        host.read();
      });
      this.driver.collect();
    }
  }

  /** The host still gets what it asks for: the sample that it has is the last that was given. */
  #sampleOnce(): void {
    for (let samples = 0; samples < 2; samples++) {
      this.driver.fillSample();
      this.#settle();
      const { freeBytes } = this.host.device.statistics.sample;
      if (freeBytes !== this.driver.sampleValue) {
        throw new ViolationError(
          `the sample says ${freeBytes}, and the guest gave ${this.driver.sampleValue}`,
        );
      }
      this.act('asks for statistics', host => host.device.statistics.request());
      this.driver.collect();
      if (this.driver.with('stats') > 0)
        throw new ViolationError('the buffer for statistics does not come back');
    }
  }

  #requestOnce(): void {
    for (let turns = 0; turns < 6; turns++) {
      this.driver.answer(false);
      this.#settle();
    }
    this.act('asks for unused pages', host => host.device.requests.send(GET_UNUSED_PAGES));
    for (let turns = 0; turns < 6; turns++) {
      this.driver.collect();
      this.driver.answer(false);
      this.#settle();
    }
    const { progress } = this.host.device.requests;
    if (progress?.done !== true) throw new ViolationError('a request for unused pages is never answered');
  }

  close(): void {
    this.host.leave();
    this.world.close();
  }
}
