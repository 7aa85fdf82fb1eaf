/**
 * A {@link Control} without a device: guests are plain objects that a test may change, and every call that
 * steers is recorded. It answers at once, unless a test makes it stall or fail.
 */
import type {
  DaemonStatus,
  DeviceGuestStatus,
  GuestEvent,
  HintStatus,
  HostStatus,
  StatisticsSample,
  UpgradeAnswer,
} from '../../src/control/contract.ts';
import { GuestStateError, UnknownGuestError } from '../../src/control/errors.ts';
import type { FleetPicture, FleetQuestion } from '../../src/control/fleet.ts';
import { NO_FLEET } from '../../src/control/fleet.ts';
import type { MemoryMap } from '../../src/control/memory-map.ts';
import type { MigrationAnswer, MigrationStatus } from '../../src/control/migrations.ts';
import { noUpgrade } from '../../src/control/no-upgrade.ts';
import {
  type AnswerOf,
  type ArgsOf,
  type Control,
  GUEST_OPERATIONS,
  type GuestHandlers,
  type GuestOperation,
  handlersOf,
} from '../../src/control/operations.ts';
import type {
  LeaseRenewal,
  LeaseRenewalOrder,
  PolicyChanges,
  ReservationOrder,
} from '../../src/control/policy.ts';
import { COUNTERS, DAEMON, HOST, MAP, MIGRATION, STATISTICS } from './fake-answers.ts';
import { FakePolicy } from './fake-policy.ts';

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;

const HINT: HintStatus = {
  state: 'idle',
  commandId: null,
  hintedBytes: 0,
  ranges: 0,
  heldBytes: 0,
  endsInMs: null,
};

export function guestStatus(name: string, overrides: Partial<DeviceGuestStatus> = {}): DeviceGuestStatus {
  return {
    name,
    socketPath: `/run/user/1000/${name}`,
    connected: true,
    state: 'running',
    profile: 'virtio',
    features: ['must-tell-host', 'stats-vq', 'free-page-hint'],
    discard: 'after-ack',
    memoryBytes: 4 * GIB,
    memoryPlace: 'memory',
    memorySealed: true,
    targetBytes: 0,
    wishedMemoryBytes: null,
    targetOwner: { by: 'start', untilMs: null, lapsed: false },
    shownTargetBytes: overrides.targetBytes ?? 0,
    actualBytes: 0,
    balloonedBytes: 0,
    removedBytes: 0,
    incompleteBytes: 0,
    granularityBytes: 4096,
    pendingBytes: 0,
    discardedBytes: 8 * MIB,
    reportedBytes: 4 * MIB,
    residentBytes: 1.5 * GIB,
    counters: COUNTERS,
    progress: null,
    stuck: null,
    hint: HINT,
    lastError: null,
    ...overrides,
  };
}

/** How each operation is answered for a guest. */
type Answers = {
  [Name in GuestOperation]: (
    guest: DeviceGuestStatus,
    args: ArgsOf<Name>,
  ) => AnswerOf<Name, DeviceGuestStatus>;
};

/** Looking at a guest steers nothing. */
const UNRECORDED: readonly GuestOperation[] = [
  'guest',
  'hintStatus',
  'migration',
  'guestPolicy',
  'policyHistory',
];

/** The operations of guests as methods, each of which ends in {@link answer}. */
const Operations = class {
  constructor() {
    const methods = handlersOf(
      GUEST_OPERATIONS,
      operation => (name, args) => this.answer(operation, name, args),
    );
    Object.assign(this, methods);
  }

  answer(_operation: GuestOperation, _name: string, _args?: object): Promise<unknown> {
    throw new Error('the fake answers');
  }
} as new () => GuestHandlers<GuestOperation, DeviceGuestStatus> & {
  answer(operation: GuestOperation, name: string, args?: object): Promise<unknown>;
};

export class FakeControl extends Operations implements Control<DeviceGuestStatus> {
  /** What moves, and where it is. */
  readonly moving = new Map<string, MigrationStatus>();
  /** When set, nothing moves. */
  obstacle: string | null = null;
  readonly known: Map<string, DeviceGuestStatus>;
  readonly calls: [name: string, ...rest: unknown[]][] = [];
  readonly listeners = new Set<(event: GuestEvent) => void>();
  /** When set, every call fails with it. */
  failure: Error | undefined;
  /** When set, what is not forced is refused with it. */
  refuse: Error | undefined;
  /** When set, every call waits for it first. */
  stall: Promise<void> | undefined;
  /** Null for a guest that has no statistics queue. */
  sample: StatisticsSample | null = {
    statistics: STATISTICS,
    ageMs: 1500,
    balloonedBytes: 0,
  };
  hostStatus: HostStatus = HOST;
  memoryMap: MemoryMap = MAP;
  /** Off, unless a test gives it a status. */
  readonly memoryPolicy = new FakePolicy();
  /** What a guest does with a new target; at once at it unless a test says otherwise. */
  follow = (guest: DeviceGuestStatus): DeviceGuestStatus => ({
    ...guest,
    actualBytes: guest.targetBytes,
    balloonedBytes: guest.targetBytes,
  });

  constructor(...guests: DeviceGuestStatus[]) {
    super();
    this.known = new Map(guests.map(guest => [guest.name, guest]));
  }

  emit(event: Partial<GuestEvent> = {}): void {
    const whole = { guest: 'vm1', type: 'actual', timeMs: 1_700_000_000_000, detail: {}, ...event } as const;
    for (const listener of this.listeners) listener(whole);
  }

  /** The guest is like that from now on. The host's account follows its word, unless it is changed as well. */
  alter(name: string, overrides: Partial<DeviceGuestStatus>): DeviceGuestStatus {
    const before = this.#find(name);
    const after = { ...before, ...overrides };
    const follows =
      before.balloonedBytes !== null &&
      after.balloonedBytes === before.balloonedBytes &&
      after.actualBytes !== before.actualBytes;
    const changed = follows ? { ...after, balloonedBytes: after.actualBytes } : after;
    this.known.set(name, changed);
    return changed;
  }

  async daemon(): Promise<DaemonStatus> {
    await this.#gate();
    return DAEMON;
  }

  async guests(): Promise<readonly DeviceGuestStatus[]> {
    await this.#gate();
    return [...this.known.values()];
  }

  async host(): Promise<HostStatus> {
    await this.#gate();
    return this.hostStatus;
  }

  /** The policy's operations of the host; those of guests are among {@link #answers}. */
  readonly #ofPolicy = async <Answer>(
    call: [name: string, ...rest: unknown[]] | null,
    answer: () => Answer,
  ) => {
    await this.#gate();
    const answered = answer();
    if (call !== null) this.calls.push(call);
    return answered;
  };
  readonly policy = () => this.#ofPolicy(null, () => this.memoryPolicy.status);
  readonly changePolicy = (changes: PolicyChanges = {}) =>
    this.#ofPolicy(['changePolicy', changes], () => this.memoryPolicy.change(changes));
  readonly reloadPolicy = () => this.#ofPolicy(['reloadPolicy'], () => this.memoryPolicy.running);
  readonly reserve = (order: ReservationOrder) =>
    this.#ofPolicy(['reserve', order], () => this.memoryPolicy.reserve(order));
  readonly releaseReservation = ({ name }: { readonly name: string }) =>
    this.#ofPolicy(['releaseReservation', { name }], () => this.memoryPolicy.release(name));

  /** None, unless a test looks at one. */
  fleetPicture: (question: FleetQuestion) => FleetPicture = () => NO_FLEET;

  async fleet(question: FleetQuestion = {}): Promise<FleetPicture> {
    await this.#gate();
    return this.fleetPicture(question);
  }

  /** When set, what an upgrade answers; it is refused otherwise. */
  upgraded: UpgradeAnswer | undefined;

  async upgrade(args: { readonly timeoutMs?: number } = {}): Promise<UpgradeAnswer> {
    await this.#gate();
    this.calls.push(['upgrade', args]);
    return this.upgraded ?? noUpgrade.upgrade();
  }

  async renewLeases({ forMs }: LeaseRenewalOrder): Promise<LeaseRenewal> {
    await this.#gate();
    let renewed = 0;
    for (const { name, targetOwner } of this.known.values()) {
      if (targetOwner?.by !== 'policy') continue;
      this.alter(name, { targetOwner: { by: 'policy', untilMs: Date.now() + forMs, lapsed: false } });
      renewed++;
    }
    return { renewed };
  }

  async samples(): Promise<Record<string, StatisticsSample>> {
    await this.#gate();
    const { sample } = this;
    return Object.fromEntries(
      [...this.known].flatMap(([name, { balloonedBytes }]) =>
        sample === null ? [] : [[name, { ...sample, balloonedBytes }]],
      ),
    );
  }

  subscribe(listener: (event: GuestEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** What answers an operation of a guest; nothing else has to be known of a new one. */
  readonly #answers: Answers = {
    guest: guest => guest,
    change: ({ name, memoryBytes: all }, changes) => {
      const { discard, memoryBytes = null } = changes;
      const targetBytes = memoryBytes === null ? changes.targetBytes : (all ?? 0) - memoryBytes;
      if (discard !== undefined) this.alter(name, { discard });
      if (targetBytes === undefined) return this.#find(name);
      const { lease } = changes;
      const targetOwner = {
        by: lease === undefined ? 'person' : 'policy',
        untilMs: lease === undefined ? null : Date.now() + lease.forMs,
        lapsed: false,
      } as const;
      const set = { targetBytes, shownTargetBytes: targetBytes, wishedMemoryBytes: memoryBytes, targetOwner };
      return this.alter(name, this.follow(this.alter(name, set)));
    },
    statistics: ({ name }, { freshMs }) => {
      if (this.sample === null) throw new GuestStateError(`${name} has no statistics queue`);
      return freshMs === undefined ? this.sample : { ...this.sample, ageMs: 2 };
    },
    map: ({ name, connected }) => {
      if (!connected) throw new GuestStateError(`${name} has no memory to map`);
      return this.memoryMap;
    },
    hintStatus: ({ name, hint }) => {
      if (hint === null)
        throw new GuestStateError(`the hypervisor of ${name} tells nothing of free page hints`);
      return hint;
    },
    hint: ({ name, hint }, { action }) => {
      if (hint.state === 'unsupported') throw new GuestStateError(`${name} did not negotiate free-page-hint`);
      const state = action === 'start' ? 'running' : action === 'stop' ? 'stopped' : 'done';
      const held =
        state === 'done' ? { heldBytes: 0, endsInMs: null } : { heldBytes: 3 * GIB, endsInMs: 60_000 };
      const session = { state, commandId: 0x8000_0000, hintedBytes: 3 * GIB, ranges: 768, ...held } as const;
      return this.alter(name, { hint: session }).hint;
    },
    request: ({ name, profile }, { request }) => {
      if (profile !== 'page-chunks') throw new GuestStateError(`${name} takes no requests`);
      return { request, unusedBytes: 2 * GIB, lists: 3, elapsedMs: 4.5 };
    },
    migration: ({ name }) => this.#migrationOf(name),
    migrate: ({ name }, order) => {
      if (this.moving.has(name)) throw new GuestStateError(`${name} is moving already`);
      const status = { ...MIGRATION, to: order.to };
      this.moving.set(name, status);
      return status;
    },
    cancelMigration: ({ name }) => {
      if (!this.moving.delete(name)) throw new GuestStateError(`${name} is not being moved`);
      return this.#migrationOf(name);
    },
    guestPolicy: ({ name }) => this.memoryPolicy.guest(name),
    changeGuestPolicy: ({ name }, changes) => this.memoryPolicy.changeGuest(name, changes),
    resumePolicy: ({ name }) => this.memoryPolicy.alter(name, { heldSinceMs: null, mode: 'auto' }),
    policyHistory: ({ name }) => this.memoryPolicy.history(name),
  };

  #migrationOf(name: string): MigrationAnswer {
    return { migration: this.moving.get(name) ?? null, obstacle: this.obstacle, dirtyBytesPerSecond: null };
  }

  /** Every operation goes through here: it waits or fails as the test wants, and is recorded if it steers. */
  override async answer(operation: GuestOperation, name: string, args?: object): Promise<unknown> {
    await this.#gate();
    const guest = this.#find(name);
    const { refuse } = this;
    const forced = args !== undefined && 'force' in args && args.force === true;
    if (operation === 'change' && refuse !== undefined && !forced) throw refuse;
    if (!UNRECORDED.includes(operation)) this.calls.push([operation, name, args]);
    return (this.#answers[operation] as (guest: DeviceGuestStatus, args: object) => unknown)(
      guest,
      args ?? {},
    );
  }

  async #gate(): Promise<void> {
    await this.stall;
    if (this.failure !== undefined) throw this.failure;
  }

  #find(name: string): DeviceGuestStatus {
    const guest = this.known.get(name);
    if (guest === undefined) throw new UnknownGuestError(name, [...this.known.keys()]);
    return guest;
  }
}
