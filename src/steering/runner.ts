/**
 * A memory policy at work: it looks at all guests once in a period and when something happens, decides, and sends what it
 * decided as leases. It waits for no guest. How it decides is the policy room's; what its settings are from, and how people
 * ask for it, is told elsewhere.
 */
import type { GuestEvent, HostStatus, LeaseOrder } from '../control/contract.ts';
import type { Reservation, ReservationOrder } from '../control/policy.ts';
import { decide } from '../policy/decide.ts';
import { NEVER, newDecision } from '../policy/records.ts';
import type { Decision, GuestDecision, GuestSettings, Sample, Settings } from '../policy/types.ts';
import { isUrgent } from '../policy/wake.ts';
import { defined } from '../sys/defined.ts';
import type { SteeringClock } from './clock.ts';
import type { SeenGuest, SourceWatch, SteeredSource } from './guest-source.ts';
import { type HeartbeatFile, type HeldTarget, LEASE_PERIODS } from './heartbeat.ts';
import { DecisionHistory } from './history.ts';
import { HostView } from './host-view.ts';
import { GuestOrders } from './orders.ts';
import { Reservations } from './reservations.ts';
import { type SteeringSettings, settingsInForce, statisticsPeriodMs } from './settings.ts';
import { decisionOf } from './shown.ts';
import type { SavedPolicy, StateFile } from './state-file.ts';

/** A source that is slower than this share of a period is decided about with what is known of it. */
const LOOK_SHARE = 0.25;
/** Between a decision and the next one that something that happens sets off. */
const WAKE_MS = 250;
const SAVE_MS = 10_000;

interface RunnerOptions {
  readonly sources: readonly SteeredSource[];
  readonly host: () => Promise<HostStatus>;
  readonly settings: SteeringSettings;
  readonly clock: SteeringClock;
  readonly state?: StateFile;
  /** Where others see that it lives. */
  readonly heartbeat?: HeartbeatFile;
  /** Told of every sample that is decided on. */
  readonly onSample?: (sample: Sample, wallMs: number) => void;
  readonly onEvent?: (event: GuestEvent) => void;
  /** Told of what should not happen. */
  readonly onError?: (error: unknown) => void;
}

export class PolicyRunner {
  settings: SteeringSettings;
  /** What was set over the API wins over the file. */
  readonly set = new Map<string, GuestSettings>();
  readonly reservations = new Reservations();
  readonly history = new DecisionHistory();
  readonly orders = new Map<string, GuestOrders>();
  decisions = 0;
  moves = 0;
  /** The clock's time of the newest decision; null for none yet. */
  decidedAtMs: number | null = null;
  readonly clock: SteeringClock;
  #dryRun: boolean | null = null;
  readonly #options: RunnerOptions;
  readonly #view: HostView;
  readonly #places = new Map<string, number>();
  #last: Decision = newDecision();
  #spare: Decision = newDecision();
  #leave: (() => void)[] = [];
  #timer: { cancel(): void } | undefined;
  #wake: { cancel(): void } | undefined;
  #savedAtMs = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.settings = options.settings;
    this.clock = options.clock;
    this.#view = new HostView(options);
    const saved = options.state?.read();
    if (saved !== undefined) this.#load(saved);
  }

  start(): void {
    for (const watch of this.#view.watches) {
      this.#leave.push(watch.source.control.subscribe(event => this.#happened(watch, event)));
    }
    void this.#turn();
  }

  /** Targets stay as they are, and their leases run out. Resolves when what is remembered is saved. */
  async close(): Promise<void> {
    this.abandon();
    const { state, heartbeat } = this.#options;
    await state?.settled();
    this.save();
    await state?.settled();
    await heartbeat?.close(this.settings.onSilence);
  }

  /** Ends it as a signal does that cannot be caught: nothing is saved any more. */
  abandon(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#wake?.cancel();
    for (const leave of this.#leave.splice(0)) leave();
  }

  get dryRun(): boolean {
    return this.#dryRun ?? this.settings.dryRun;
  }

  set dryRun(dryRun: boolean) {
    this.#dryRun = dryRun;
    this.save();
  }

  get last(): Decision {
    return this.#last;
  }

  /** The newest about this guest. */
  decisionOf(name: string): GuestDecision | undefined {
    const at = this.#places.get(name);
    return at === undefined ? undefined : this.#last.guests[at];
  }

  /** Every guest that is known, also those that are not there. */
  find(name: string): SeenGuest | undefined {
    return this.#view.find(name);
  }

  get names(): string[] {
    return this.#view.names;
  }

  /** Why guests of a source cannot be asked; null where they can. */
  sourceError(name: string): string | null {
    return this.#view.errorOf(name);
  }

  /** Nothing was decided for two periods, though it should have been. */
  get silent(): boolean {
    const { decidedAtMs } = this;
    return decidedAtMs !== null && this.clock.nowMs() - decidedAtMs > LEASE_PERIODS * this.settings.periodMs;
  }

  ordersOf(name: string): GuestOrders {
    const orders = this.orders.get(name) ?? new GuestOrders();
    this.orders.set(name, orders);
    return orders;
  }

  reserve(order: ReservationOrder): Reservation {
    const total = this.#view.divided?.totalBytes ?? this.#last.host.totalBytes;
    this.reservations.add(order, this.clock.nowMs(), total);
    this.hurry();
    this.save();
    const found = this.reservationList().find(({ name }) => name === order.name);
    if (found === undefined) throw new Error('a reservation that was made is there');
    return found;
  }

  reservationList(): Reservation[] {
    const { reserveBytes } = this.#last.host;
    const availableBytes = this.#view.divided?.availableBytes ?? 0;
    return this.reservations.list(this.clock.nowMs(), availableBytes - reserveBytes);
  }

  /** Decides soon, for something was changed. */
  hurry(): void {
    this.#wakeIn(0, true);
  }

  save(): void {
    const { state } = this.#options;
    if (state === undefined) return;
    this.#savedAtMs = this.clock.nowMs();
    state.write(() => this.#state());
  }

  #state(): SavedPolicy {
    return {
      version: 1,
      memory: this.#last.memory,
      guests: Object.fromEntries(
        [...this.orders]
          .filter(([, { known }]) => known)
          .map(([name, { heldSinceMs }]) => [name, heldSinceMs]),
      ),
      settings: Object.fromEntries(this.set) as SavedPolicy['settings'],
      dryRun: this.#dryRun,
      reservations: [...this.reservations.saved],
    };
  }

  #load(saved: SavedPolicy): void {
    this.#last.memory = saved.memory;
    this.#last.atMs = saved.memory.atMs;
    for (const [name, heldSinceMs] of Object.entries(saved.guests)) {
      this.orders.set(name, new GuestOrders({ heldSinceMs, known: true }));
    }
    for (const [name, settings] of Object.entries(saved.settings))
      this.set.set(name, settings as GuestSettings);
    // Settings that ask for a dry run win over what was said to the policy before it.
    this.#dryRun = this.settings.dryRun ? null : saved.dryRun;
    this.reservations.load(saved.reservations);
  }

  /** Once in a period. */
  async #turn(): Promise<void> {
    const begunMs = this.clock.nowMs();
    try {
      await this.#look();
      this.#decide();
    } catch (error) {
      this.#options.onError?.(error);
    }
    if (this.#closed) return;
    const leftMs = Math.max(1, begunMs + this.settings.periodMs - this.clock.nowMs());
    this.#timer = this.clock.schedule(leftMs, () => void this.#turn());
  }

  #look(): Promise<void> {
    return this.#view.look(LOOK_SHARE * this.settings.periodMs);
  }

  #happened(watch: SourceWatch, { type, guest, detail }: GuestEvent): void {
    const name = watch.nameOf(guest);
    if (name === undefined || this.#closed) return;
    if (type === 'reset' || type === 'connected' || type === 'ready') watch.restarted(name);
    // Memory that another guest waits for comes bit by bit, long before a balloon has reached its target.
    const comes = type === 'actual' && this.#last.host.waitingBytes > 0;
    const wakes = comes || (type === 'statistics' ? this.#matters(name, detail) : WAKING.has(type));
    if (wakes) this.#wakeIn(WAKE_MS, false);
  }

  /** Statistics come from every guest all the time; only of one that runs out of memory they are worth a look. */
  #matters(name: string, { availableBytes }: GuestEvent['detail']): boolean {
    if (typeof availableBytes !== 'number') return false;
    const decision = this.decisionOf(name);
    if (decision === undefined || !decision.ours || decision.keepBytes >= decision.maxBytes) return false;
    return availableBytes < WORTH_SHARE * Math.max(0, decision.keepBytes - decision.usedBytes);
  }

  #wakeIn(afterMs: number, surely: boolean): void {
    if (this.#closed || (this.#wake !== undefined && !surely)) return;
    this.#wake?.cancel();
    const sinceMs = this.clock.nowMs() - (this.decidedAtMs ?? Number.NEGATIVE_INFINITY);
    const waitMs = surely ? 1 : Math.max(1, Math.min(afterMs, WAKE_MS - sinceMs));
    this.#wake = this.clock.schedule(waitMs, () => void this.#awake(surely));
  }

  async #awake(surely: boolean): Promise<void> {
    try {
      await this.#look();
      const sample = this.#sample();
      if (sample !== undefined && (surely || isUrgent(sample, this.#last))) this.#decide();
    } catch (error) {
      this.#options.onError?.(error);
    } finally {
      this.#wake = undefined;
    }
  }

  #sample(): Sample | undefined {
    const { memoryBytes } = this.settings;
    return this.#view.sample({
      reservedBytes: this.reservations.bytes,
      ...defined({ memoryBytes }),
    });
  }

  get #inForce(): Settings {
    const held = [...this.orders].filter(([, { heldSinceMs }]) => heldSinceMs !== null).map(([name]) => name);
    return settingsInForce(this.settings, Object.fromEntries(this.set), held, this.names);
  }

  #decide(): void {
    if (this.#closed) return;
    const wallMs = this.clock.wallMs();
    this.reservations.settle(this.clock.nowMs(), name => this.find(name)?.status.connected === true);
    const sample = this.#sample();
    if (sample === undefined) return;
    for (const seen of this.#view.seen) this.#observe(seen, wallMs);
    this.#options.onSample?.(sample, wallMs);
    const before = this.#last;
    this.#last = decide(sample, this.#inForce, before.memory, this.#spare);
    this.#spare = before;
    this.#places.clear();
    for (const [at, { name }] of this.#view.seen.entries()) this.#places.set(name, at);
    this.decisions++;
    this.decidedAtMs = sample.atMs;
    this.#carryOut(sample, before, wallMs);
    if (this.clock.nowMs() - this.#savedAtMs >= SAVE_MS) this.save();
  }

  #observe(seen: SeenGuest, wallMs: number): void {
    // What is decided and not sent holds no guest back: another steers.
    if (this.dryRun) return;
    if (!this.ordersOf(seen.name).observe(seen, wallMs)) return;
    this.#tell(seen.name, { held: true, targetBytes: seen.status.targetBytes });
    this.save();
  }

  #carryOut(sample: Sample, before: Decision, wallMs: number): void {
    const { dryRun, settings } = this;
    const lease = { forMs: LEASE_PERIODS * settings.periodMs, onSilence: settings.onSilence };
    const nowMs = sample.atMs;
    const pollMs = statisticsPeriodMs(settings);
    let moved = false;
    for (const [at, seen] of this.#view.seen.entries()) {
      const decision = this.#last.guests[at];
      const orders = this.ordersOf(seen.name);
      const { targetBytes } = decision;
      const differs = targetBytes >= 0 && orders.differs(seen, targetBytes);
      if (!dryRun && differs && orders.send(seen, targetBytes, lease, nowMs)) {
        this.moves++;
        moved = true;
      } else if (decision.mode !== 'off') {
        orders.poll(seen, pollMs, nowMs);
      }
      this.#follow(at, before);
      const earlier = before.guests[at];
      const changed = differs || earlier?.bound !== decision.bound || earlier.held !== decision.held;
      this.history.note(seen.name, { timeMs: wallMs, changed }, () =>
        decisionOf(decision, this.#last.host, {
          timeMs: wallMs,
          actualBytes: seen.status.actualBytes,
          moved: differs,
        }),
      );
    }
    if (!dryRun) this.#renew(lease, nowMs);
    if (moved) this.save();
    this.#beat(nowMs, wallMs);
  }

  #beat(atMs: number, wallMs: number): void {
    const { decisions, dryRun, moves, orders } = this;
    const { onSilence, periodMs } = this.settings;
    const guests = this.#view.seen.flatMap(({ name, status }): HeldTarget[] => {
      const leased = orders.get(name)?.leaseUntilMs ?? null;
      if (leased === null || status.targetBytes === null) return [];
      const monitor = status.counters === null ? status.socketPath : null;
      return [{ name, monitor, targetBytes: status.targetBytes, released: false }];
    });
    this.#options.heartbeat?.beat({ atMs, wallMs, periodMs, onSilence, dryRun, decisions, moves, guests });
  }

  /** The leases of all targets last for so long again. A source that does not answer lets them run out. */
  #renew(lease: LeaseOrder, nowMs: number): void {
    for (const { source } of this.#view.watches) source.control.renewLeases(lease).catch(() => {});
    for (const orders of this.orders.values()) orders.renewed(nowMs + lease.forMs);
  }

  /** Counts what a guest suffered. */
  #follow(at: number, before: Decision): void {
    const memory = this.#last.memory.guests[at];
    const orders = this.ordersOf(memory.name);
    const former = before.memory.guests[at];
    if (former?.name !== memory.name || former.epoch !== memory.epoch) return;
    if (memory.harmAtMs !== NEVER && memory.harmAtMs !== former.harmAtMs) {
      orders.harms++;
      this.#tell(memory.name, { harm: true, learnedBytes: Math.round(memory.learnedBytes) });
    }
    if (former.oomKills >= 0 && memory.oomKills > former.oomKills) {
      orders.oomKills += memory.oomKills - former.oomKills;
    }
  }

  #tell(guest: string, detail: GuestEvent['detail']): void {
    this.#options.onEvent?.({ guest, type: 'policy', timeMs: this.clock.wallMs(), detail });
  }
}

/** After these, memory may have come that another guest waits for. */
const WAKING: ReadonlySet<string> = new Set([
  'connected',
  'ready',
  'reset',
  'target',
  'target-reached',
  'stuck',
]);
/** A guest with less than this of its room left may be bursting. */
const WORTH_SHARE = 0.9;
