/**
 * Hosts and guests for a policy that runs on a clock which the test moves: guests are a fake control's, give and take at
 * once what they are told, and say of their memory what a test has them use.
 */
import type {
  DeviceGuestStatus,
  GuestChanges,
  GuestEvent,
  StatisticsSample,
} from '../../src/control/contract.ts';
import type { SteeringClock } from '../../src/steering/clock.ts';
import type { SteeredSource } from '../../src/steering/guest-source.ts';
import { PolicyRunner } from '../../src/steering/runner.ts';
import { DEFAULT_SETTINGS, type SteeringSettings } from '../../src/steering/settings.ts';
import type { StateFile } from '../../src/steering/state-file.ts';
import { HOST, STATISTICS } from '../server/fake-answers.ts';
import { FakeControl, GIB, guestStatus } from '../server/fake-control.ts';
import { promisesSettled } from '../support/promises.ts';

interface Timer {
  readonly atMs: number;
  readonly run: () => void;
}

export class TestClock implements SteeringClock {
  #nowMs = 1_000_000;
  readonly #timers = new Set<Timer>();

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  schedule(ms: number, run: () => void): { cancel(): void } {
    const timer = { atMs: this.#nowMs + ms, run };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  /** Runs all that is due in the next `ms`, each when it is due. */
  async pass(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    for (;;) {
      await promisesSettled();
      const due = [...this.#timers].filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.run();
    }
    this.#nowMs = endMs;
    await promisesSettled();
  }
}

/** A fake daemon whose guests use memory. */
export class UsedGuests extends FakeControl {
  /** What programs of each guest use. */
  readonly used = new Map<string, number>();
  /** Guests that say nothing any more, with what they said last and when. */
  readonly frozen = new Map<string, { readonly sample: StatisticsSample; readonly saidAtMs: number }>();
  /** Guests in which nothing happens: they answer, and say the same again. */
  readonly resting = new Set<string>();
  nowMs: () => number = () => 0;
  /** Guests that do not give what they are told to. */
  readonly stuck = new Set<string>();
  /** What some guests claim to have available. */
  readonly claims = new Map<string, number>();
  /** Guests whose changes are not answered. */
  readonly silent = new Set<string>();
  #tick = 0;

  constructor(memoryBytes: Readonly<Record<string, number>>) {
    super(
      ...Object.entries(memoryBytes).map(([name, bytes]) =>
        guestStatus(name, { memoryBytes: bytes, residentBytes: bytes }),
      ),
    );
    for (const name of Object.keys(memoryBytes)) this.used.set(name, 0.25 * GIB);
    this.follow = (guest): DeviceGuestStatus => {
      const { name, memoryBytes, targetBytes, actualBytes } = guest;
      const isStuck = this.stuck.has(name) && targetBytes > (actualBytes ?? 0);
      const held = isStuck ? (actualBytes ?? 0) : targetBytes;
      return { ...guest, actualBytes: held, balloonedBytes: held, residentBytes: (memoryBytes ?? 0) - held };
    };
  }

  override async answer(...[operation, name, args]: Parameters<FakeControl['answer']>): Promise<unknown> {
    if (operation === 'change' && this.silent.has(name)) return new Promise(() => {});
    return super.answer(operation, name, args);
  }

  override async samples(): Promise<Record<string, StatisticsSample>> {
    await super.samples();
    this.#tick++;
    return Object.fromEntries([...this.known.values()].map(guest => [guest.name, this.#sampleOf(guest)]));
  }

  #sampleOf({ name, memoryBytes, actualBytes }: DeviceGuestStatus): StatisticsSample {
    const frozen = this.frozen.get(name);
    if (frozen !== undefined) return { ...frozen.sample, ageMs: this.nowMs() - frozen.saidAtMs };
    const left = (memoryBytes ?? 0) - (actualBytes ?? 0);
    const availableBytes = this.claims.get(name) ?? Math.max(0, left - (this.used.get(name) ?? 0));
    return {
      ageMs: 10,
      balloonedBytes: actualBytes,
      statistics: {
        ...STATISTICS,
        availableBytes,
        freeBytes: availableBytes,
        totalBytes: memoryBytes,
        minorFaults: this.resting.has(name) ? 0 : this.#tick,
      },
    };
  }

  freeze(name: string): void {
    const guest = this.known.get(name);
    if (guest !== undefined) this.frozen.set(name, { sample: this.#sampleOf(guest), saidAtMs: this.nowMs() });
  }

  targets(): Record<string, number> {
    return Object.fromEntries([...this.known.values()].map(({ name, targetBytes }) => [name, targetBytes]));
  }

  keeps(name: string): number {
    const { memoryBytes = 0, targetBytes = 0 } = this.known.get(name) ?? {};
    return (memoryBytes ?? 0) - targetBytes;
  }

  /** Orders of targets that the policy gave to this guest. */
  orders(name: string): GuestChanges[] {
    return this.calls
      .filter(([operation, guest]) => operation === 'change' && guest === name)
      .map(([, , changes]) => changes as GuestChanges)
      .filter(({ targetBytes }) => targetBytes !== undefined);
  }
}

/** A host with these guests, of which a policy takes care. */
export class SteeredHost {
  readonly clock: TestClock;
  readonly events: GuestEvent[] = [];
  readonly totalBytes: number;
  readonly controls: readonly UsedGuests[];
  othersBytes = 0.25 * GIB;
  runner: PolicyRunner;
  readonly errors: unknown[] = [];
  readonly #settings: SteeringSettings;
  readonly #state: StateFile | undefined;

  constructor(
    totalBytes: number,
    controls: readonly UsedGuests[],
    settings: Partial<SteeringSettings> = {},
    { state, clock = new TestClock() }: { state?: StateFile; clock?: TestClock } = {},
  ) {
    this.totalBytes = totalBytes;
    this.controls = controls;
    this.clock = clock;
    for (const control of controls) control.nowMs = () => clock.nowMs();
    this.#state = state;
    this.#settings = { ...DEFAULT_SETTINGS, reserveBytes: 0.5 * GIB, ...settings };
    this.runner = this.#run();
  }

  #run(): PolicyRunner {
    const { clock } = this;
    const runner = new PolicyRunner({
      sources: this.controls.map((control): SteeredSource => ({ control })),
      host: async () => ({ ...HOST, totalBytes: this.totalBytes, availableBytes: this.availableBytes }),
      settings: this.#settings,
      clock,
      ...(this.#state === undefined ? {} : { state: this.#state }),
      onEvent: event => this.events.push(event),
      onError: error => this.errors.push(error),
    });
    runner.start();
    return runner;
  }

  /** Another process takes over where this one was killed, which says goodbye to no guest. */
  async killAndRestart(): Promise<void> {
    this.runner.abandon();
    await this.#state?.settled();
    this.runner = this.#run();
  }

  get availableBytes(): number {
    const held = this.controls
      .flatMap(({ known }) => [...known.values()])
      .reduce(
        (sum, { connected, memoryBytes, actualBytes }) =>
          sum + (connected ? (memoryBytes ?? 0) - (actualBytes ?? 0) : 0),
        0,
      );
    return Math.max(0, this.totalBytes - this.othersBytes - held);
  }

  pass(ms: number): Promise<void> {
    return this.clock.pass(ms);
  }
}
