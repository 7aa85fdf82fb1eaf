/** The rings of a front-end, described to whichever back-end is there: started, stopped, and started again. */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { AerostatError } from '../sys/error.ts';
import { ring as ringDoorbell } from '../sys/fd.ts';
import type { Reactor } from '../sys/poll.ts';
import { checkConfig, checkMemory, type QueueConfig } from '../virtio/queue.ts';
import { VhostUserUnsupportedError } from './frontend-errors.ts';
import type { FrontendLink } from './frontend-link.ts';
import { FrontendRing, type RingListener } from './frontend-ring.ts';
import { F_PROTOCOL_FEATURES, U64, VRING_ADDRESSES, VRING_STATE } from './protocol.ts';

/** Doorbell messages have eight bits for a ring's number. */
export const RINGS_MAX = 256;

export class FrontendRings {
  readonly #memory: GuestMemory;
  readonly #reactor: Pick<Reactor, 'watch'>;
  readonly #listener: RingListener;
  readonly #rings = new Map<number, FrontendRing>();

  constructor(memory: GuestMemory, reactor: Pick<Reactor, 'watch'>, listener: RingListener) {
    this.#memory = memory;
    this.#reactor = reactor;
    this.#listener = listener;
  }

  /** Numbers of the rings that are there. */
  get indices(): Iterable<number> {
    return this.#rings.keys();
  }

  /**
   * Starts a new ring, or at `base` one that another back-end has run.
   * @throws VirtqueueError when the ring is no ring or lies outside guest memory
   */
  async add(link: FrontendLink, index: number, config: QueueConfig, base?: number): Promise<void> {
    if (this.#rings.has(index) || index >= RINGS_MAX) {
      const why = index >= RINGS_MAX ? `none has a number above ${RINGS_MAX - 1}` : 'it is, until a reset';
      throw new VhostUserUnsupportedError(`ring ${index} cannot be enabled: ${why}`);
    }
    checkConfig(config);
    checkMemory(config, this.#memory);
    const ring = new FrontendRing(index, config, this.#reactor, this.#listener);
    this.#rings.set(index, ring);
    await this.#start(link, ring, base ?? ring.firstBase);
  }

  /** Starts all rings where they stopped, or where `bases` says; the back-end may know it. */
  async start(link: FrontendLink, bases: ReadonlyMap<number, number>, knownThere = false): Promise<void> {
    for (const ring of this.#rings.values()) {
      const known = bases.get(ring.index) ?? ring.base ?? ring.baseFromMemory(this.#memory);
      const base = known ?? (knownThere ? ring.firstBase : undefined);
      if (base === undefined) {
        throw new VhostUserUnsupportedError(
          `it is not known where packed ring ${ring.index} stopped; pass its base to reconnect`,
        );
      }
      await this.#start(link, ring, base);
    }
  }

  /** Stops all rings and keeps where they stopped. */
  async stop({ requester }: FrontendLink): Promise<void> {
    const stopping = [...this.#rings.values()].map(async ring => {
      const request = VRING_STATE.encode({ index: ring.index, num: 0 });
      ring.base = VRING_STATE.read(await requester.ask('GET_VRING_BASE', request)).num;
    });
    await Promise.all(stopping);
  }

  kick(index: number): void {
    const ring = this.#rings.get(index);
    if (ring === undefined) throw new VhostUserUnsupportedError(`ring ${index} was kicked before its time`);
    ringDoorbell(ring.kick);
  }

  /** Forgets all rings. */
  close(): void {
    for (const ring of this.#rings.values()) ring.close();
    this.#rings.clear();
  }

  async #start(link: FrontendLink, ring: FrontendRing, base: number): Promise<void> {
    const { index, config } = ring;
    const { requester } = link;
    const number = U64.encode({ value: BigInt(index) });
    const state = (num: number) => VRING_STATE.encode({ index, num });
    const addresses = VRING_ADDRESSES.encode({
      index,
      flags: 0,
      descriptorTable: this.#userAddress(config.descriptorArea),
      availRing: this.#userAddress(config.driverArea),
      usedRing: this.#userAddress(config.deviceArea),
      log: 0,
    });
    // From here on only the back-end knows where it is.
    ring.base = undefined;
    const steps = [
      requester.tell('SET_VRING_NUM', state(config.size)),
      requester.tell('SET_VRING_BASE', state(base)),
      requester.tell('SET_VRING_ADDR', addresses),
      requester.tell('SET_VRING_CALL', number, [ring.call]),
      requester.tell('SET_VRING_ERR', number, [ring.error]),
      // The kick descriptor is what starts a ring, so it comes when all else is there.
      requester.tell('SET_VRING_KICK', number, [ring.kick]),
    ];
    // Without protocol features rings are enabled from the start, and the request does not exist.
    if ((link.features & F_PROTOCOL_FEATURES) !== 0n)
      steps.push(requester.tell('SET_VRING_ENABLE', state(1)));
    await Promise.all(steps);
  }

  #userAddress(gpa: number): number {
    const region = this.#memory.find(gpa);
    if (region === undefined) {
      throw new AerostatError(
        'AEROSTAT_VHOST_USER_RING',
        `0x${gpa.toString(16)} is not guest memory any more`,
      );
    }
    return region.userAddress + (gpa - region.guestAddress);
  }
}
