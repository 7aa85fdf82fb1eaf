/**
 * What the leader does each period: it has the hosts' reports planned about, records the decision and each order, and asks
 * the sources to carry them out. An order of which no answer came is taken back, or is found to be under way. What is
 * decided is placement's; nothing is ordered that is not recorded, and nothing without a lease.
 */
import { plan } from '../placement/plan.ts';
import type {
  FleetView,
  MoveOrder,
  Placement,
  PlacementMemory,
  PlacementSettings,
} from '../placement/types.ts';
import type { Bus } from './bus.ts';
import type { Claims } from './claims.ts';
import { FleetUnreachableError, RevisionError } from './errors.ts';
import type { HostsSeen } from './hosts-seen.ts';
import type { Leadership } from './leadership.ts';
import {
  type AuditEvent,
  inWords,
  type LeaderAnswer,
  type LeaderQuestion,
  MESSAGE_BYTES_MAX,
  type OrderOutcome,
  readMessage,
  VERSION,
  type WishedMove,
  writeMessage,
} from './messages.ts';
import { reasonsOf, stayWords } from './reasons.ts';
import { fleetView } from './view.ts';
import { WishList } from './wishes.ts';

/** What answers carry at most; a person reads no more. */
const SHOWN_MAX = 500;
/** Beside the input of a decision, its message has orders and reasons. */
const INPUT_BYTES_MAX = MESSAGE_BYTES_MAX / 2;
/** A guest in a report is no shorter. */
const GUEST_BYTES_MIN = 150;
const ASK_MS_MIN = 1000;
const FAILED_KEPT = 1000;
/** A wish that meets one of these will not be granted by waiting. */
const HOPELESS = [
  'stale',
  'obstacle',
  'doubtful',
  'implausible',
  'room',
  'cool-down',
  'rest',
  'missing',
  'receiver',
  'dirty',
];

interface LeadingOptions {
  readonly host: string;
  readonly bus: Bus;
  readonly leadership: Leadership;
  readonly claims: Claims;
  readonly hosts: HostsSeen;
  readonly settings: PlacementSettings;
  readonly periodMs: number;
  readonly now: () => number;
  readonly log: (message: string) => void;
}

/** What one leader knows while it leads. */
interface Term {
  readonly epoch: number;
  readonly wishes: WishList;
  memory: PlacementMemory | undefined;
  /** Given, and not known to have been taken or refused. */
  readonly doubtful: Map<string, MoveOrder>;
  readonly failed: Set<string>;
  /** How the last decision looked, so that the same one is not recorded again and again. */
  recorded: string;
  decisions: number;
}

export class Leading {
  readonly #options: LeadingOptions;
  #term: Term | undefined;
  /** A question may come while the first period of a term begins: both have the same term. */
  #beginning: { readonly epoch: number; readonly term: Promise<Term> } | undefined;
  /** Orders that this host gave since it joined. */
  ordered = 0;

  constructor(options: LeadingOptions) {
    this.#options = options;
  }

  /** Whether persons wait for something that it does. */
  get hasWishes(): boolean {
    const { draining = [], moves = [] } = this.#term?.wishes ?? {};
    return draining.length + moves.length > 0;
  }

  /** Hosts that are to be empty; null where this host does not lead. */
  get draining(): readonly string[] | null {
    return this.#term?.wishes.draining ?? null;
  }

  /** @throws FleetUnreachableError when nothing could be recorded or read: nothing was ordered then */
  async tick(): Promise<void> {
    const { leadership } = this.#options;
    const { epoch } = leadership;
    if (epoch === null) {
      this.#term = undefined;
      return;
    }
    const term = await this.#termOf(epoch);
    try {
      await this.#withdraw(term);
      const { view, settings, placement, memory } = this.#plan(term);
      await this.#endWishes(term, placement);
      await this.#recordDecision(term, placement, { view, memory, settings });
      await Promise.all(placement.orders.map(order => this.#recordOrder(term, order)));
      // What could not be recorded was not ordered, and is planned anew.
      term.memory = placement.memory;
      await Promise.all(placement.orders.map(order => this.#give(term, order)));
    } catch (error) {
      // Another leader wrote the wishes.
      if (!(error instanceof RevisionError)) throw error;
      this.#term = undefined;
    }
  }

  /** Undefined where this host does not lead: the one that does will answer. */
  async answer(question: LeaderQuestion): Promise<LeaderAnswer | undefined> {
    const { leadership, host } = this.#options;
    const { epoch } = leadership;
    if (epoch === null) return undefined;
    const term = await this.#termOf(epoch);
    const refusal = await this.#obey(term, question);
    const { placement } = this.#plan(term);
    return {
      version: VERSION,
      host,
      epoch,
      refusal: refusal === null ? null : inWords(refusal),
      orders: placement.orders.slice(0, SHOWN_MAX).map(copyOf),
      reasons: reasonsOf(placement).slice(0, SHOWN_MAX).map(inWords),
    };
  }

  #termOf(epoch: number): Promise<Term> {
    if (this.#term?.epoch === epoch) return Promise.resolve(this.#term);
    if (this.#beginning?.epoch !== epoch) {
      const term = this.#begin(epoch).finally(() => {
        this.#beginning = undefined;
      });
      this.#beginning = { epoch, term };
    }
    return this.#beginning.term;
  }

  async #begin(epoch: number): Promise<Term> {
    const { bus, host, log } = this.#options;
    const wishes = new WishList(bus.buckets.wishes);
    await wishes.load();
    await this.#record({ version: VERSION, epoch, event: 'leads', host }, `leads-${epoch}`);
    log(`leads the fleet (epoch ${epoch})`);
    const term: Term = {
      epoch,
      wishes,
      memory: undefined,
      doubtful: new Map(),
      failed: new Set(),
      recorded: '',
      decisions: 0,
    };
    this.#term = term;
    return term;
  }

  #plan(term: Term): {
    readonly view: FleetView;
    readonly memory: PlacementMemory | undefined;
    readonly settings: PlacementSettings;
    readonly placement: Placement;
  } {
    const { hosts, settings, now } = this.#options;
    const seen = hosts.all();
    const reported = seen.flatMap(({ report }) => report.outcomes).filter(({ result }) => result !== 'moved');
    const view: FleetView = {
      ...fleetView(seen, term.wishes.draining, now()),
      wishes: term.wishes.moves.map(({ guest, to }) => ({ guest, to })),
      failed: [...term.failed, ...reported.map(({ id }) => id)],
    };
    const { memory } = term;
    return { view, memory, settings, placement: plan(view, memory, settings) };
  }

  /** Why not; null when it is done. */
  async #obey({ epoch, wishes }: Term, question: LeaderQuestion): Promise<string | null> {
    switch (question.ask) {
      case 'plan':
        return null;
      case 'drain':
      case 'undrain': {
        const { ask, host, id } = question;
        if (this.#reportOf(host) === undefined && !wishes.draining.includes(host))
          return `no host of the fleet is called ${host}`;
        await wishes[ask](host);
        await this.#record({ version: VERSION, epoch, event: ask, host, wish: id }, `${ask}-${id}`);
        return null;
      }
      case 'move': {
        const { id, guest, from, to } = question;
        const refusal = this.#againstMove(guest, from, to);
        if (refusal !== null) return refusal;
        const wish: WishedMove = { id, guest, to };
        await wishes.move(wish);
        await this.#record({ version: VERSION, epoch, event: 'wish', wish }, `wish-${id}`);
        return null;
      }
    }
  }

  #againstMove(guest: string, from: string | null, to: string): string | null {
    const at = this.#options.hosts
      .all()
      .filter(({ report }) => report.guests.some(known => known.guest === guest))
      .map(({ report }) => report.host);
    if (this.#reportOf(to) === undefined) return `no host of the fleet is called ${to}`;
    if (at.length === 0) return `no host of the fleet reports a guest ${guest}`;
    if (at.length > 1)
      return `${at.join(' and ')} report a guest ${guest} each; give one of them another name`;
    if (from !== null && at[0] !== from) return `${guest} is at ${at[0]}, not at ${from}`;
    return at[0] === to ? `${guest} is at ${to} already` : null;
  }

  #reportOf(host: string) {
    return this.#options.hosts.all().find(({ report }) => report.host === host);
  }

  async #endWishes({ epoch, wishes }: Term, placement: Placement): Promise<void> {
    if (placement.state !== 'moves') return;
    const outcomes = wishes.moves.flatMap(({ id, guest, to }): OrderOutcome[] => {
      const stays = placement.staying.find(staying => staying.guest === guest && staying.detail === to);
      const stay = stays ?? placement.staying.find(staying => staying.guest === guest);
      if (stay === undefined) return [];
      if (stay.why === 'there') return [{ id, result: 'moved', why: null }];
      // Between its report from one host and that from the other, it is kept room for.
      if (stay.why === 'missing' && this.#isOnItsWay(placement, guest)) return [];
      const failure = this.#failureOf(placement, guest);
      if (!HOPELESS.includes(stay.why)) return [];
      return [{ id, result: failure === null ? 'refused' : 'failed', why: failure ?? stayWords(stay) }];
    });
    await wishes.end(outcomes);
    for (const outcome of outcomes) {
      await this.#record(
        { version: VERSION, epoch, event: 'wish-ended', outcome },
        `wish-ended-${outcome.id}`,
      );
    }
  }

  #isOnItsWay({ memory }: Placement, guest: string): boolean {
    const reports = this.#options.hosts.all().map(({ report }) => report);
    const moves = reports.flatMap(({ incoming, departures }) => [...incoming, ...departures]);
    return [...memory.orders, ...moves].some(moving => moving.guest === guest);
  }

  /** What a host said of the order for this guest that failed. */
  #failureOf(placement: Placement, guest: string): string | null {
    const failed = placement.ends.find(({ order, end }) => end === 'failed' && order.guest === guest);
    if (failed === undefined) return null;
    const outcomes = this.#options.hosts.all().flatMap(({ report }) => report.outcomes);
    return outcomes.find(({ id }) => id === failed.order.id)?.why ?? null;
  }

  async #recordDecision(
    term: Term,
    placement: Placement,
    input: {
      readonly view: FleetView;
      readonly memory: PlacementMemory | undefined;
      readonly settings: PlacementSettings;
    },
  ): Promise<void> {
    const reasons = reasonsOf(placement).slice(0, SHOWN_MAX).map(inWords);
    const looks = JSON.stringify([placement.state, placement.orders.length, placement.staying]);
    if (placement.orders.length === 0 && looks === term.recorded) return;
    const { epoch } = term;
    const event: AuditEvent = {
      version: VERSION,
      epoch,
      event: 'decision',
      orders: placement.orders.slice(0, SHOWN_MAX).map(copyOf),
      reasons,
      input: isRecordable(input) ? { ...input, memory: input.memory ?? null } : null,
    };
    await this.#record(event, `decision-${epoch}-${term.decisions++}`);
    term.recorded = looks;
  }

  #recordOrder({ epoch }: Term, order: MoveOrder): Promise<void> {
    const event: AuditEvent = { version: VERSION, epoch, event: 'order', order: copyOf(order) };
    return this.#record(event, `order-${epoch}-${order.id}`);
  }

  async #give(term: Term, order: MoveOrder): Promise<void> {
    const { leadership, bus, periodMs, log } = this.#options;
    const { epoch } = term;
    // It was recorded while others may have become the leader.
    if (leadership.epoch !== epoch) return;
    term.doubtful.set(order.id, order);
    this.ordered++;
    log(`orders ${order.guest} from ${order.from} to ${order.to} (${order.id})`);
    try {
      const question = { version: VERSION, epoch, ask: 'move', order: copyOf(order) } as const;
      const bytes = await bus.ask(
        `host.${order.from}`,
        writeMessage('hostQuestion', question),
        Math.max(ASK_MS_MIN, periodMs),
      );
      const read = readMessage('hostAnswer', bytes);
      if ('refusal' in read) throw new FleetUnreachableError(`${order.from}: ${read.why}`);
      const { refusal } = read.value;
      term.doubtful.delete(order.id);
      if (refusal !== null) await this.#end(term, order, 'refused', refusal);
    } catch (error) {
      // It may have been taken; the next period finds out.
      log(`${order.id}: ${(error as Error).message}`);
    }
  }

  /** Orders without an answer: those that no host has begun are taken back, so that none is carried out later. */
  async #withdraw(term: Term): Promise<void> {
    const { claims, host } = this.#options;
    for (const order of [...term.doubtful.values()]) {
      const claim = await claims.claim(copyOf(order), 'from', host, 'withdrawn');
      term.doubtful.delete(order.id);
      if (claim === undefined) await this.#end(term, order, 'withdrawn', `${order.from} did not answer`);
    }
  }

  async #end(term: Term, order: MoveOrder, result: OrderOutcome['result'], why: string): Promise<void> {
    const { log } = this.#options;
    log(`${order.id}: ${result}: ${why}`);
    term.failed.add(order.id);
    if (term.failed.size > FAILED_KEPT) term.failed.delete([...term.failed][0]);
    const outcome: OrderOutcome = { id: order.id, result, why: inWords(why) };
    await this.#record(
      { version: VERSION, epoch: term.epoch, event: 'outcome', order: copyOf(order), outcome },
      `outcome-${order.id}`,
    );
  }

  #record(event: AuditEvent, id: string): Promise<void> {
    return this.#options.bus.record(writeMessage('audit', event), id);
  }
}

/** Of a large fleet this is known without writing all of it, which would be the most memory that a leader ever needs. */
function isRecordable(input: { readonly view: FleetView }): boolean {
  const guests = input.view.hosts.reduce((sum, host) => sum + host.guests.length, 0);
  return guests * GUEST_BYTES_MIN <= INPUT_BYTES_MAX && JSON.stringify(input).length <= INPUT_BYTES_MAX;
}

/** An order as messages have it, whose lists are their own. */
const copyOf = (order: MoveOrder) => ({ ...order, left: [...order.left] });
