/**
 * A host's agent: it reports what the host has, obeys orders of the leader, and leads when it falls to it. Without NATS it
 * waits, and the host goes on alone: its machines and its policy are other processes. What each part does is in its file.
 */
import { randomUUID } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { readVersion } from '../sys/version.ts';
import type { AgentOptions } from './agent-options.ts';
import { Arrivals } from './arrivals.ts';
import { Attempts } from './attempts.ts';
import type { Bus, BusState } from './bus.ts';
import { Claims } from './claims.ts';
import { Departures } from './departures.ts';
import { FleetRefusalError, FleetUnreachableError, HostNameTakenError } from './errors.ts';
import { Faults } from './faults.ts';
import { HostOrders } from './host-orders.ts';
import { HostsSeen } from './hosts-seen.ts';
import { Leadership, LOOKS_PER_PERIOD } from './leadership.ts';
import { Leading } from './leading.ts';
import type { Machine } from './machines.ts';
import {
  type FleetOrder,
  type HostAnswer,
  type HostQuestion,
  MESSAGE_BYTES_MAX,
  type OrderOutcome,
  REFUSALS,
  type Refusal,
  type Report,
  readMessage,
  VERSION,
  writeMessage,
} from './messages.ts';
import { PlanningPace } from './planning-pace.ts';
import { OwnReport } from './report-loop.ts';
import { type AgentStatus, type Role, summaryOf } from './status.ts';

/** Between two attempts at what NATS did not answer: from the pause between two looks to two periods. */
const RETRY_PERIODS_MAX = 2;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 8000;
const TOLD_EVERY = 100;

/** All that needs a bus. */
interface Joined {
  readonly bus: Bus;
  readonly leadership: Leadership;
  readonly departures: Departures;
  readonly arrivals: Arrivals;
  readonly leading: Leading;
  readonly report: OwnReport;
  readonly orders: HostOrders;
  readonly leave: readonly (() => void)[];
}

/** A machine is asked no more often for what is reported of it, unless it has begun to move or has left. */
const READINGS_PER_PERIOD = 4;

export class Agent {
  readonly #options: AgentOptions;
  readonly #agent = randomUUID();
  readonly #hosts: HostsSeen;
  readonly #refused = new Map<Refusal, number>(REFUSALS.map(refusal => [refusal, 0]));
  readonly #timers = new Set<NodeJS.Timeout>();
  #joined: Joined | undefined;
  #pace: PlanningPace | undefined;
  #machines: readonly Machine[] = [];
  readonly #faults: Faults;
  readonly #attempts: Attempts;
  #closed = false;
  #lookingAround: Promise<void> | undefined;
  #reporting: Promise<void> | undefined;
  #reportAgain = false;
  #fail: (error: Error) => void = () => {};
  /** Rejects when another agent has its name. */
  readonly failed: Promise<never>;

  constructor(options: AgentOptions) {
    this.#options = options;
    const { periodMs, now, sleep } = options;
    this.#faults = new Faults(options.log);
    this.#attempts = new Attempts({
      ...{ faults: this.#faults, now, sleep },
      minMs: Math.min(RETRY_MS_MIN, periodMs / LOOKS_PER_PERIOD),
      maxMs: Math.min(RETRY_MS_MAX, RETRY_PERIODS_MAX * periodMs),
    });
    this.#hosts = new HostsSeen(options.now, (host, why) => this.#tellRefused(`the report of ${host}`, why));
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {});
  }

  /** Joins as soon as NATS lets it; does not wait for that. */
  start(): void {
    void this.#join();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#attempts.end();
    for (const timer of this.#timers) clearInterval(timer);
    this.#pace?.close();
    const joined = this.#joined;
    if (joined === undefined) return;
    for (const leave of joined.leave) leave();
    // So that others need not wait until it is missed. Who does not answer now will miss it.
    await joined.leadership.resign().catch(() => {});
    await joined.report.leave().catch(() => {});
    await joined.bus.close();
  }

  status(): AgentStatus {
    const { fleet, host, now, staleMs } = this.#options;
    const joined = this.#joined;
    const storedMs = joined?.report.storedMs ?? null;
    const messagesRefused = { ...this.#hosts.refusals };
    for (const [refusal, count] of this.#refused) messagesRefused[refusal] += count;
    return {
      fleet,
      host,
      agent: this.#agent,
      nats: {
        state: joined?.bus.state ?? 'connecting',
        server: joined?.bus.server ?? null,
        storedAgoMs: storedMs === null ? null : now() - storedMs,
        error: this.#faults.newest,
      },
      role: this.#role(),
      leader: joined?.leadership.leader?.host ?? null,
      epoch: joined?.leadership.highest ?? 0,
      elections: joined?.leadership.elections ?? 0,
      ordersGiven: joined?.leading.ordered ?? 0,
      ordersTaken: joined?.orders.taken ?? 0,
      ordersRefused: joined?.orders.refused ?? 0,
      messagesRefused,
      guests: this.#machines.filter(({ isHere }) => isHere).length,
      incoming: joined?.arrivals.all ?? [],
      departures: joined?.departures.all ?? [],
      hosts: this.#hosts.all().map(seen => summaryOf(seen, staleMs, joined?.leading.draining ?? null)),
    };
  }

  #role(): Role {
    if (this.#joined === undefined) return 'alone';
    if (this.#joined.leadership.epoch !== null) return 'leader';
    return this.#joined.leadership.leader === null ? 'alone' : 'follower';
  }

  async #join(): Promise<void> {
    const { openBus, log, fleet } = this.#options;
    await this.#attempts.until('join', async () => {
      const bus = await openBus();
      if (this.#closed) return await bus.close();
      const joined = this.#parts(bus);
      try {
        await this.#resync(joined);
        // The server has read our subscriptions by now.
        if (bus.denied !== null) throw new FleetRefusalError(bus.denied);
      } catch (error) {
        await bus.close();
        throw error;
      }
      this.#joined = joined;
      log('info', `joined the fleet ${fleet} at ${bus.server ?? 'NATS'}`);
      this.#begin(joined);
    });
  }

  #parts(bus: Bus): Joined {
    const {
      host,
      machines,
      startReceiver,
      memoryBytes,
      reserveBytes,
      now,
      sleep,
      periodMs,
      placement,
      staleMs,
      log,
    } = this.#options;
    const claims = new Claims(bus.buckets.orders, this.#agent);
    const leadership = new Leadership({
      bucket: bus.buckets.leader,
      host,
      incarnation: this.#agent,
      periodMs,
      now,
      onRefusal: why => this.#tellRefused("the leader's record", why),
    });
    const onChange = () => this.#reportNow();
    const departures: Departures = new Departures({
      host,
      machines,
      claims,
      ask: (to, question, timeoutMs) => this.#askHost(bus, to, { version: VERSION, ...question }, timeoutMs),
      sleep,
      onChange,
      onOutcome: (order, outcome) => void this.#recordOutcome(bus, leadership, order, outcome),
    });
    const arrivals = new Arrivals({
      host,
      machines,
      claims,
      startReceiver,
      freeBytes: async () => {
        const here = await machines.all(periodMs / READINGS_PER_PERIOD);
        const held = here.reduce((sum, { known }) => sum + Math.max(known.residentBytes, known.needBytes), 0);
        return memoryBytes - reserveBytes - held;
      },
      memoryMaxBytes: memoryBytes,
      startsMax: Math.max(1, Math.floor(availableParallelism() / 2)),
      now,
      onChange,
    });
    const leading = new Leading({
      ...{ host, bus, leadership, claims, hosts: this.#hosts, settings: placement, periodMs, now },
      log: message => log('info', message),
    });
    const report = new OwnReport({ bucket: bus.buckets.hosts, host, agent: this.#agent, periodMs, now });
    const orders = new HostOrders({
      ...{ host, staleMs, leadership, report, arrivals, departures },
      onRefusedMessage: (refusal, why) => this.#countRefused(refusal, 'an order', why),
      onArrival: onChange,
      log: message => log('warn', message),
    });
    const leave = this.#listen({ bus, leadership, leading, orders });
    return { bus, leadership, departures, arrivals, leading, report, orders, leave };
  }

  #listen({
    bus,
    leadership,
    leading,
    orders,
  }: Pick<Joined, 'bus' | 'leadership' | 'leading' | 'orders'>): Joined['leave'] {
    return [
      bus.buckets.hosts.watch(
        entry => {
          // A guest that left or came makes room for the next one.
          if (this.#hosts.heard(entry) && leading.hasWishes) this.#pace?.soon();
        },
        key => this.#hosts.gone(key),
      ),
      bus.buckets.leader.watch(entry => leadership.heard(entry)),
      bus.serve(`host.${this.#options.host}`, bytes => orders.answer(bytes)),
      bus.serve('leader', bytes => this.#answerLeader(bytes)),
      bus.onState(state => this.#busBecame(state)),
      bus.onTrouble(why => this.#attempts.failed('be let in', new FleetUnreachableError(why))),
    ];
  }

  #begin({ leadership, leading, departures }: Joined): void {
    const { periodMs, now } = this.#options;
    const attempts = this.#attempts;
    this.#pace = new PlanningPace(() => attempts.once('order', () => leading.tick()), periodMs, now);
    const look = () => attempts.once('lead', () => leadership.look());
    const report = () => {
      if (!attempts.isResting('report')) this.#reportNow();
    };
    this.#timers.add(setInterval(look, periodMs / LOOKS_PER_PERIOD));
    this.#timers.add(setInterval(report, periodMs));
    // An order that an agent before this one began is watched again as soon as it can be read which.
    void attempts.until('take up its orders', () => departures.resume());
    report();
    this.#pace.start();
    void look();
  }

  /** What is stored while nothing is heard is found again; how old it is, is not known then. */
  async #resync({ bus, leadership }: Joined): Promise<void> {
    const [reports, leader] = await Promise.all([bus.buckets.hosts.all(), bus.buckets.leader.get('leader')]);
    for (const entry of reports) this.#hosts.found(entry);
    if (leader !== null) leadership.heard(leader);
  }

  #busBecame(state: BusState): void {
    const { log } = this.#options;
    log(state === 'connected' ? 'info' : 'warn', `NATS: ${state}`);
    const joined = this.#joined;
    if (state !== 'connected' || joined === undefined) return;
    this.#attempts.wake();
    if (joined.bus.denied === null) this.#attempts.succeeded('be let in');
    // The servers that are left may have to choose leaders first.
    this.#lookingAround ??= this.#attempts
      .until('look around', () => this.#resync(joined))
      .finally(() => {
        this.#lookingAround = undefined;
      });
  }

  /** One report at a time is written; what changes meanwhile is in the next. */
  #reportNow(): void {
    if (this.#closed || this.#joined === undefined) return;
    if (this.#reporting !== undefined) {
      this.#reportAgain = true;
      return;
    }
    this.#reportAgain = false;
    this.#reporting = this.#write(this.#joined)
      .catch(error => {
        if (error instanceof HostNameTakenError) this.#fail(error);
        else this.#attempts.failed('report', error);
      })
      .finally(() => {
        this.#reporting = undefined;
        if (this.#reportAgain) this.#reportNow();
      });
  }

  async #write({ arrivals, departures, leadership, report, orders }: Joined): Promise<void> {
    const { host, periodMs, memoryBytes, reserveBytes, linkBytesPerSecond, machines, wallClock } =
      this.#options;
    this.#machines = await machines.all(periodMs / READINGS_PER_PERIOD);
    const here = this.#machines.filter(({ isHere }) => isHere);
    arrivals.settle(new Set(here.map(({ guest }) => guest)));
    const said: Report = {
      ...{ version: VERSION, host, agent: this.#agent, periodMs, program: readVersion() },
      epoch: leadership.highest,
      ...{ memoryBytes, reserveBytes, othersBytes: 0, linkBytesPerSecond },
      guests: here.map(({ known, guest }) => ({
        ...known,
        moving: departures.movingOf(guest),
        left: [...arrivals.leftOf(guest)],
      })),
      incoming: arrivals.all,
      departures: [...departures.all],
      outcomes: [...departures.outcomes],
      refusals: orders.refused,
      atMs: wallClock(),
    };
    const text = writeMessage('report', said);
    if (text.length > MESSAGE_BYTES_MAX)
      throw new FleetUnreachableError(`the report of ${here.length} guests is larger than a message may be`);
    const isOurs = await report.write(text);
    if (isOurs) this.#attempts.succeeded('report');
    else
      this.#faults.begin('report', `another agent reports as ${host}; this one waits until that is silent`);
  }

  async #answerLeader(bytes: Uint8Array): Promise<string | undefined> {
    const read = readMessage('leaderQuestion', bytes);
    if ('refusal' in read) {
      this.#countRefused(read.refusal, 'a question to the leader', read.why);
      return undefined;
    }
    const answer = await this.#joined?.leading.answer(read.value);
    if (answer?.refusal === null && read.value.ask !== 'plan') this.#pace?.soon();
    return answer === undefined ? undefined : writeMessage('leaderAnswer', answer);
  }

  async #askHost(bus: Bus, to: string, question: HostQuestion, timeoutMs: number): Promise<HostAnswer> {
    const read = readMessage(
      'hostAnswer',
      await bus.ask(`host.${to}`, writeMessage('hostQuestion', question), timeoutMs),
    );
    if ('value' in read) return read.value;
    throw new FleetUnreachableError(`${to} answers in words that are not understood: ${read.why}`);
  }

  async #recordOutcome(
    bus: Bus,
    { highest: epoch }: Leadership,
    order: FleetOrder,
    outcome: OrderOutcome,
  ): Promise<void> {
    const { log } = this.#options;
    const why = outcome.why === null ? '' : `: ${outcome.why}`;
    log(
      outcome.result === 'moved' ? 'info' : 'warn',
      `${order.id} (${order.guest} to ${order.to}): ${outcome.result}${why}`,
    );
    const text = writeMessage('audit', { version: VERSION, epoch, event: 'outcome', order, outcome });
    await this.#attempts.until('record', () => bus.record(text, `outcome-${order.id}`));
  }

  #countRefused(refusal: Refusal, what: string, why: string): void {
    this.#refused.set(refusal, (this.#refused.get(refusal) ?? 0) + 1);
    this.#tellRefused(what, why);
  }

  #tellRefused(what: string, why: string): void {
    const { messagesRefused } = this.status();
    const count = Object.values(messagesRefused).reduce((sum, each) => sum + each, 0);
    if (count % TOLD_EVERY === 1 || count === 0)
      this.#options.log('warn', `${what} was refused: ${why} (${count} messages so far)`);
  }
}
