/**
 * Orders as their destination carries them out: memory is kept, a machine is started that waits for the guest, and when the
 * guest runs or does not come what was kept is free again. It admits no guest for which there is no memory.
 */
import type { Claims } from './claims.ts';
import type { Machines } from './machines.ts';
import { AWAITED, type FleetOrder, type Report } from './messages.ts';

/** A process that waits for one machine, and is its host afterwards. It outlives the agent. */
export interface Receiver {
  /** Where the machine is to be sent. */
  readonly address: string;
  /** Resolves when the process has ended, with what it said last. */
  readonly ended: Promise<string>;
  end(): void;
}

export type StartReceiver = (place: {
  readonly guest: string;
  readonly socket: string;
  readonly log: string;
  readonly memoryMaxBytes: number;
}) => Promise<Receiver>;

const LEFT_KEPT = 16;

interface ArrivalsOptions {
  readonly host: string;
  readonly machines: Machines;
  readonly claims: Claims;
  readonly startReceiver: StartReceiver;
  /** What may still be promised; without what is kept for guests on their way. */
  readonly freeBytes: () => Promise<number>;
  /** Guests that come are no larger. */
  readonly memoryMaxBytes: number;
  /**
   * Machines that are started at a time. A start is all work of a processor: more at once than there are processors end no
   * sooner than one after the other, and the first guest begins to move the later.
   */
  readonly startsMax: number;
  readonly now: () => number;
  readonly onChange: () => void;
}

interface Incoming {
  readonly order: FleetOrder;
  receiver: Receiver | undefined;
  /** Resolves with the address, or why there is none. */
  readonly place: Promise<{ readonly address: string } | { readonly refusal: string }>;
}

interface Left {
  readonly host: string;
  readonly atMs: number;
}

export class Arrivals {
  readonly #options: ArrivalsOptions;
  readonly #incoming = new Map<string, Incoming>();
  readonly #left = new Map<string, readonly Left[]>();
  /** Admissions are judged one after the other: two may not be promised the same memory. */
  #judging: Promise<unknown> = Promise.resolve();
  /** The last start of each lane. */
  readonly #lanes: Promise<unknown>[] = [];
  #started = 0;

  constructor(options: ArrivalsOptions) {
    this.#options = options;
  }

  get all(): Report['incoming'] {
    return [...this.#incoming.values()].map(({ order }) => ({
      order: order.id,
      guest: order.guest,
      from: order.from,
      bytes: order.reserveBytes,
    }));
  }

  /** Hosts that the guest left before it came here, as far as orders said. */
  leftOf(guest: string): FleetOrder['left'] {
    const nowMs = this.#options.now();
    return (this.#left.get(guest) ?? []).map(({ host, atMs }) => ({
      host,
      agoMs: Math.max(0, nowMs - atMs),
    }));
  }

  knows({ id }: FleetOrder): boolean {
    return this.#incoming.has(id);
  }

  /** Asked again, it answers the same. */
  async receive(order: FleetOrder): Promise<{ readonly address: string } | { readonly refusal: string }> {
    const known = this.#incoming.get(order.id);
    if (known !== undefined) return known.place;
    const judged = this.#judging.then(() => this.#admit(order));
    this.#judging = judged.catch(() => {});
    const admitted = await judged;
    return 'refusal' in admitted ? admitted : admitted.place;
  }

  /** The guest did not leave its source. */
  async release(order: FleetOrder): Promise<void> {
    const incoming = this.#incoming.get(order.id);
    if (incoming === undefined) return;
    await incoming.place;
    incoming.receiver?.end();
    this.#forget(order);
  }

  /** Whether the guest runs here; else why it is thought that it does not. */
  async arrived(order: FleetOrder): Promise<string | null> {
    const machine = await this.#options.machines.find(order.guest);
    if (machine?.isHere === true) return null;
    return this.knows(order) ? AWAITED : `no ${order.guest} runs here`;
  }

  /** Guests that run here by now need nothing kept for them. */
  settle(here: ReadonlySet<string>): void {
    for (const { order } of this.#incoming.values()) if (here.has(order.guest)) this.#forget(order);
    for (const guest of this.#left.keys())
      if (!here.has(guest) && !this.#awaits(guest)) this.#left.delete(guest);
  }

  async #admit(order: FleetOrder): Promise<Incoming | { readonly refusal: string }> {
    const { machines, claims, host, freeBytes, now, onChange } = this.#options;
    const again = this.#incoming.get(order.id);
    if (again !== undefined) return again;
    if (this.#awaits(order.guest)) return { refusal: `another ${order.guest} is awaited here` };
    if ((await machines.find(order.guest)) !== undefined)
      return { refusal: `a ${order.guest} is here already` };
    const kept = [...this.#incoming.values()].reduce(
      (sum, { order: { reserveBytes } }) => sum + reserveBytes,
      0,
    );
    const free = (await freeBytes()) - kept;
    if (free < order.reserveBytes)
      return { refusal: `it would need ${order.reserveBytes} bytes here, and ${Math.max(0, free)} are free` };
    const before = await claims.claim(order, 'to', host);
    if (before !== undefined) return { refusal: 'it was carried out before' };
    const nowMs = now();
    this.#left.set(
      order.guest,
      order.left.map(({ host: left, agoMs }) => ({ host: left, atMs: nowMs - agoMs })).slice(0, LEFT_KEPT),
    );
    const incoming: Incoming = { order, receiver: undefined, place: this.#start(order) };
    this.#incoming.set(order.id, incoming);
    onChange();
    return incoming;
  }

  /** After those before it. */
  #startInTurn(place: Parameters<StartReceiver>[0]): Promise<Receiver> {
    const { startReceiver, startsMax } = this.#options;
    const lane = this.#started++ % startsMax;
    const receiver = (this.#lanes[lane] ?? Promise.resolve()).then(() => startReceiver(place));
    this.#lanes[lane] = receiver.catch(() => {});
    return receiver;
  }

  async #start(order: FleetOrder): Promise<{ readonly address: string } | { readonly refusal: string }> {
    const { machines, memoryMaxBytes } = this.#options;
    const { guest } = order;
    try {
      const receiver = await this.#startInTurn({
        guest,
        socket: machines.socketOf(guest),
        log: machines.logOf(guest),
        memoryMaxBytes,
      });
      const incoming = this.#incoming.get(order.id);
      if (incoming !== undefined) incoming.receiver = receiver;
      void receiver.ended.then(() => this.#forget(order));
      return { address: receiver.address };
    } catch (error) {
      this.#forget(order);
      return { refusal: `no machine can be started: ${(error as Error).message}` };
    }
  }

  #awaits(guest: string): boolean {
    return [...this.#incoming.values()].some(({ order }) => order.guest === guest);
  }

  #forget(order: FleetOrder): void {
    if (this.#incoming.delete(order.id)) this.#options.onChange();
  }
}
