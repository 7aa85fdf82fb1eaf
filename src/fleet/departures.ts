/**
 * Orders as their source carries them out: room is made at the destination, the machine is told to migrate, and watched
 * until it has left or runs on here. The agent of the leader is not needed for any of it. A failure leaves the guest here.
 */
import type { MigrationStatus } from '../control/migrations.ts';
import { AerostatError } from '../sys/error.ts';
import type { Claims } from './claims.ts';
import { NoAgentError } from './errors.ts';
import type { Machines } from './machines.ts';
import {
  AWAITED,
  type Departure,
  type FleetOrder,
  type HostAnswer,
  inWords,
  type OrderOutcome,
} from './messages.ts';

/**
 * Between two looks at a migration: half of what it still takes at the pace that it has, within these. Each look costs the
 * machine and this agent a millisecond of a processor, and many may leave at a time.
 */
const LOOK_MS_MIN = 50;
const LOOK_MS_MAX = 300;
/** While its pace is not known. */
const LOOK_MS = 100;
/** Of a destination that has to start a process on a host that is busy; it is asked again and again meanwhile. */
const PLACE_ASKED_MAX = 15;
/** A destination of which no agent listens so often, one after the other, is dead. */
const DEAD_MAX = 4;
const QUESTION_MS_MAX = 2000;
/** A store that is between two leaders of its own takes a claim some seconds later. */
const CLAIM_TRIES_MAX = 15;
/** How often a destination is asked whether a guest arrived whose machine is gone here. */
const ASK_AGAIN_MS = 1000;
const ASK_AGAIN_MAX = 120;
const OUTCOMES_KEPT = 64;

interface DeparturesOptions {
  readonly host: string;
  readonly machines: Machines;
  readonly claims: Claims;
  readonly ask: (
    host: string,
    question: {
      readonly ask: 'receive' | 'release' | 'arrived';
      readonly order: FleetOrder;
      readonly epoch: number;
    },
    timeoutMs: number,
  ) => Promise<HostAnswer>;
  readonly sleep: (ms: number) => Promise<void>;
  /** Something of this is to be reported now. */
  readonly onChange: () => void;
  readonly onOutcome: (order: FleetOrder, outcome: OrderOutcome) => void;
}

interface Underway {
  readonly order: FleetOrder;
  /** Of the leader that gave it: a destination refuses what an old one ordered. */
  readonly epoch: number;
  status: string;
  sentBytes: number | null;
  remainingBytes: number | null;
}

export class Departures {
  readonly #options: DeparturesOptions;
  readonly #underway = new Map<string, Underway>();
  readonly #outcomes: OrderOutcome[] = [];

  constructor(options: DeparturesOptions) {
    this.#options = options;
  }

  get all(): readonly Departure[] {
    return [...this.#underway.values()].map(({ order, status, sentBytes, remainingBytes }) => ({
      order: order.id,
      guest: order.guest,
      to: order.to,
      status,
      sentBytes,
      remainingBytes,
    }));
  }

  get outcomes(): readonly OrderOutcome[] {
    return this.#outcomes;
  }

  /** The order by which the guest leaves; null while it stays. */
  movingOf(guest: string): { readonly order: string; readonly to: string } | null {
    const found = [...this.#underway.values()].find(({ order }) => order.guest === guest);
    return found === undefined ? null : { order: found.order.id, to: found.order.to };
  }

  /**
   * Takes an order; what becomes of it is an outcome. Answers why it is not taken, null when it is, or was before. Nothing
   * is done before it is claimed.
   */
  async take(order: FleetOrder, epoch: number): Promise<string | null> {
    const { machines } = this.#options;
    const { id, guest, incarnation } = order;
    if (this.#underway.has(id) || this.#outcomes.some(outcome => outcome.id === id)) return null;
    const machine = await machines.find(guest);
    if (machine === undefined || !machine.isHere) return `no ${guest} runs here`;
    if (machine.known.incarnation !== incarnation) return `${guest} is another copy than the order means`;
    if (machine.known.obstacle !== null) return `${guest} cannot be moved: ${machine.known.obstacle}`;
    if (this.movingOf(guest) !== null) return `${guest} is on its way already`;
    const underway = this.#begin(order, epoch, 'is claimed');
    const claimed = await this.#claim(underway);
    if (claimed === 'silent') {
      void this.#claimLater(underway);
      return null;
    }
    if (claimed === null) void this.#carryOut(underway);
    else this.#underway.delete(id);
    return claimed;
  }

  /** Null when the order is ours to carry out; else why it is not. */
  async #claim({ order }: Underway): Promise<string | null | 'silent'> {
    const { claims, host } = this.#options;
    try {
      const before = await claims.claim(order, 'from', host);
      if (before === undefined) return null;
      return before.result === 'withdrawn' ? 'it was taken back' : 'it was carried out before';
    } catch {
      return 'silent';
    }
  }

  async #claimLater(underway: Underway): Promise<void> {
    for (let tries = 0; tries < CLAIM_TRIES_MAX; tries++) {
      await this.#options.sleep(ASK_AGAIN_MS);
      const claimed = await this.#claim(underway);
      if (claimed === null) return this.#carryOut(underway);
      if (claimed !== 'silent') return this.#end(underway, 'refused', claimed);
    }
    await this.#end(underway, 'failed', 'it could not be claimed: JetStream does not answer');
  }

  /** Goes on with what an agent before this one began. */
  async resume(): Promise<void> {
    const { claims, host } = this.#options;
    for (const { order } of await claims.unsettled(host, 'from')) {
      if (!this.#underway.has(order.id)) void this.#watchOn(this.#begin(order, 0, 'taken up again'));
    }
  }

  #begin(order: FleetOrder, epoch: number, status: string): Underway {
    const underway: Underway = { order, epoch, status, sentBytes: null, remainingBytes: null };
    this.#underway.set(order.id, underway);
    this.#options.onChange();
    return underway;
  }

  async #carryOut(underway: Underway): Promise<void> {
    const { order } = underway;
    const { machines } = this.#options;
    underway.status = 'waits for its place';
    const place = await this.#place(underway);
    if ('why' in place) return this.#failed(underway, place.result, place.why);
    try {
      await machines.controlOf(order.guest).migrate(order.guest, { to: place.address });
    } catch (error) {
      // The machine may have begun all the same, when its answer was lost: it says so itself.
      if (!(await this.#isMoving(order.guest))) return this.#failed(underway, 'failed', messageOf(error));
    }
    await this.#watch(underway);
  }

  /** Asked again, a destination that lives answers the same; one that has died is not waited for. */
  async #place({
    order,
    epoch,
  }: Underway): Promise<
    { readonly address: string } | { readonly result: OrderOutcome['result']; readonly why: string }
  > {
    const { ask, sleep } = this.#options;
    let why = '';
    let dead = 0;
    for (let asked = 0; asked < PLACE_ASKED_MAX && dead < DEAD_MAX; asked++) {
      try {
        const { refusal, address } = await ask(order.to, { ask: 'receive', order, epoch }, QUESTION_MS_MAX);
        if (refusal === null && address !== null) return { address };
        return { result: 'refused', why: `${order.to}: ${refusal ?? 'it says no address'}` };
      } catch (error) {
        why = messageOf(error);
        dead = error instanceof NoAgentError ? dead + 1 : 0;
        if (dead > 0) await sleep(ASK_AGAIN_MS);
      }
    }
    return { result: 'failed', why };
  }

  /** An order of an agent before: the machine, or the destination, knows how far it is. */
  async #watchOn(underway: Underway): Promise<void> {
    const { order } = underway;
    const machine = await this.#options.machines.find(order.guest);
    const isUntouched =
      machine !== undefined && machine.known.incarnation === order.incarnation && machine.migration === null;
    if (isUntouched)
      await this.#failed(underway, 'failed', 'the agent ended before the machine began to move');
    else await this.#watch(underway);
  }

  async #watch(underway: Underway): Promise<void> {
    const { order } = underway;
    const { machines, sleep } = this.#options;
    for (;;) {
      let migration: MigrationStatus | null;
      try {
        ({ migration } = await machines.controlOf(order.guest).migration(order.guest));
      } catch {
        return await this.#askDestination(underway);
      }
      if (migration === null) return await this.#askDestination(underway);
      const { state, report, error } = migration;
      underway.status = inWords(state.status);
      underway.sentBytes = state.sentBytes;
      underway.remainingBytes = state.remainingBytes;
      if (report !== null || state.status === 'done') {
        // It looks at its guests then, and reports this one sooner than by itself. Nothing depends on it.
        this.#options.ask(order.to, { ask: 'arrived', order, epoch: 0 }, QUESTION_MS_MAX).catch(() => {});
        return await this.#end(underway, 'moved', null);
      }
      // Where it is not known where the guest runs, its machine goes on asking.
      const isOver = error !== null && error.code !== 'AEROSTAT_MIGRATION_UNKNOWN';
      if (isOver) return await this.#failed(underway, 'failed', error.message);
      await sleep(lookMs(state));
    }
  }

  /** The machine is gone from here, and has not said how its migration ended. */
  async #askDestination(underway: Underway): Promise<void> {
    const { order } = underway;
    const { ask, sleep } = this.#options;
    underway.status = 'the destination is asked where it is';
    for (let asked = 0; asked < ASK_AGAIN_MAX; asked++) {
      try {
        const { refusal } = await ask(order.to, { ask: 'arrived', order, epoch: 0 }, QUESTION_MS_MAX);
        if (refusal === null) return await this.#end(underway, 'moved', null);
        if (refusal === AWAITED) {
          await sleep(ASK_AGAIN_MS);
          continue;
        }
        return await this.#end(
          underway,
          'unknown',
          `its machine ended here, and ${order.to} says: ${refusal}`,
        );
      } catch {
        await sleep(ASK_AGAIN_MS);
      }
    }
    await this.#end(underway, 'unknown', `its machine ended here, and ${order.to} does not answer`);
  }

  async #failed(underway: Underway, result: OrderOutcome['result'], why: string): Promise<void> {
    const { order } = underway;
    // What is kept for it there ends by itself as well.
    await this.#options.ask(order.to, { ask: 'release', order, epoch: 0 }, QUESTION_MS_MAX).catch(() => {});
    await this.#end(underway, result, why);
  }

  async #end({ order }: Underway, result: OrderOutcome['result'], why: string | null): Promise<void> {
    const { claims, host, machines, sleep, onOutcome, onChange } = this.#options;
    machines.changed(order.guest);
    const outcome: OrderOutcome = { id: order.id, result, why: why === null ? null : inWords(why) };
    this.#underway.delete(order.id);
    this.#outcomes.push(outcome);
    if (this.#outcomes.length > OUTCOMES_KEPT) this.#outcomes.shift();
    onOutcome(order, outcome);
    onChange();
    for (;;) {
      try {
        return await claims.settle(order, 'from', host, outcome);
      } catch {
        await sleep(ASK_AGAIN_MS);
      }
    }
  }

  async #isMoving(guest: string): Promise<boolean> {
    const machine = await this.#options.machines.find(guest);
    const migration = machine?.migration ?? null;
    return migration !== null && migration.report === null && migration.error === null;
  }
}

function lookMs({ remainingBytes, bytesPerSecond }: MigrationStatus['state']): number {
  if (remainingBytes === null || bytesPerSecond === null || bytesPerSecond <= 0) return LOOK_MS;
  return Math.min(LOOK_MS_MAX, Math.max(LOOK_MS_MIN, (500 * remainingBytes) / bytesPerSecond));
}

const messageOf = (error: unknown): string =>
  error instanceof AerostatError || error instanceof Error ? error.message : String(error);
