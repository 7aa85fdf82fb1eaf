/**
 * Everything that the control plane can be asked for, declared once: what an operation takes and answers, where its
 * handler lies, and its form in HTTP. {@link Control}, the questions to data-plane threads, the routes and document of
 * the API, the clients of commands and page, and the forwarding to guests of other hosts are all derived from this table.
 *
 * An operation has a declaration here, a schema for its document in `server/documents.ts`, and a handler: in
 * `hosting/guest-operations.ts` where the thread of the guest answers, else in the control of its host.
 */
import type {
  DaemonStatus,
  GuestChanges,
  GuestEvent,
  GuestRequest,
  GuestStatus,
  HintOrder,
  HintStatus,
  HostStatus,
  RequestAnswer,
  StatisticsSample,
  UpgradeAnswer,
} from './contract.ts';
import type { FleetPicture, FleetQuestion } from './fleet.ts';
import type { MapOptions, MemoryMap } from './memory-map.ts';
import type { MigrationAnswer, MigrationOrder, MigrationStatus } from './migrations.ts';
import type {
  GuestPolicy,
  GuestPolicyChanges,
  LeaseRenewal,
  LeaseRenewalOrder,
  PolicyChanges,
  PolicyHistory,
  PolicyStatus,
  Reservation,
  ReservationOrder,
} from './policy.ts';

/** How an operation is asked for over HTTP. */
export interface HttpForm {
  readonly method: 'get' | 'patch' | 'post' | 'delete';
  /** Below `/v1`, for an operation of a guest below `/v1/guests/{name}`. */
  readonly path: string;
  /** Arguments that are query parameters, by their names there. The arguments of other operations are a JSON body. */
  readonly query?: Readonly<Record<string, string>>;
  /** The answer is this field of a JSON object, because a list or a record cannot grow beside itself. */
  readonly field?: string;
  /** The client waits for the answer also when its user interrupts it. */
  readonly patient?: boolean;
}

interface Declaration<Scope extends 'host' | 'guest', By extends 'thread' | 'main', Args, Answer> {
  readonly scope: Scope;
  /** `thread`: the data-plane thread of the guest answers. `main`: the main thread of its host does. */
  readonly answeredBy: By;
  readonly http: HttpForm;
  /** Only for the compiler; no value has it. */
  readonly types?: { args: Args; answer: Answer };
}

const ofHost = <Args, Answer>(http: HttpForm): Declaration<'host', 'main', Args, Answer> => ({
  scope: 'host',
  answeredBy: 'main',
  http,
});
const ofGuest = <Args, Answer>(http: HttpForm): Declaration<'guest', 'main', Args, Answer> => ({
  scope: 'guest',
  answeredBy: 'main',
  http,
});
const ofThread = <Args, Answer>(http: HttpForm): Declaration<'guest', 'thread', Args, Answer> => ({
  scope: 'guest',
  answeredBy: 'thread',
  http,
});

export const OPERATIONS = {
  daemon: ofHost<void, DaemonStatus>({ method: 'get', path: '/daemon' }),
  host: ofHost<void, HostStatus>({ method: 'get', path: '/host' }),
  /**
   * Has the program as it is installed now take the daemon's place. Until it serves, the daemon does.
   * @throws AerostatError AEROSTAT_HAND_OVER when the daemon serves on
   */
  upgrade: ofHost<{ readonly timeoutMs?: number }, UpgradeAnswer>({
    method: 'post',
    path: '/upgrade',
    patient: true,
  }),
  /** Every guest, connected or not. */
  guests: ofHost<void, readonly GuestStatus[]>({ method: 'get', path: '/guests', field: 'guests' }),
  guest: ofThread<void, GuestStatus>({ method: 'get', path: '' }),
  /**
   * Changes all that is named, and answers how the guest is then.
   * @throws GuestStateError when one of the changes cannot be made; then none is
   */
  change: ofThread<GuestChanges, GuestStatus>({ method: 'patch', path: '' }),
  /**
   * The newest statistics. With `freshMs` given, a sample no older than that: the guest is asked for one if needed, and
   * waited for at most `timeoutMs`.
   * @throws GuestStateError when the guest has no statistics queue, or did not answer in time
   */
  statistics: ofThread<{ readonly freshMs?: number; readonly timeoutMs?: number }, StatisticsSample>({
    method: 'get',
    path: '/statistics',
    query: { freshMs: 'fresh_ms', timeoutMs: 'timeout_ms' },
  }),
  /** The newest statistics of every guest by name, without asking any. */
  samples: ofHost<void, Readonly<Record<string, StatisticsSample>>>({
    method: 'get',
    path: '/statistics',
    field: 'samples',
  }),
  /**
   * What is where in the guest's memory. The guest is not waited for.
   * @throws GuestStateError when the guest is not connected
   */
  map: ofGuest<MapOptions, MemoryMap>({
    method: 'get',
    path: '/map',
    query: { fromBytes: 'from', bytes: 'bytes', cells: 'cells' },
  }),
  /** @throws GuestStateError when the guest's hypervisor tells nothing of hint sessions */
  hintStatus: ofThread<void, HintStatus>({ method: 'get', path: '/hint' }),
  /** @throws GuestStateError when hints were not negotiated */
  hint: ofThread<HintOrder, HintStatus>({ method: 'post', path: '/hint' }),
  /**
   * Asks the guest for something over its request queue, and waits at most `timeoutMs` for the answer.
   * @throws GuestStateError when it has none, is still at another request, or did not answer in time
   */
  request: ofThread<{ readonly request: GuestRequest; readonly timeoutMs?: number }, RequestAnswer>({
    method: 'post',
    path: '/request',
  }),
  /** The migration under way or the last one, and whether there can be one. */
  migration: ofGuest<void, MigrationAnswer>({ method: 'get', path: '/migration' }),
  /**
   * Begins to move the guest; `migration` says how it goes. The client waits for the answer also when its user interrupts
   * it: the user has to know whether something was begun that is to be called off.
   * @throws GuestStateError when it cannot be moved, or is moving
   */
  migrate: ofGuest<MigrationOrder, MigrationStatus>({ method: 'post', path: '/migration', patient: true }),
  /**
   * Gives the migration up; the guest runs on where it is.
   * @throws GuestStateError when there is none to give up
   */
  cancelMigration: ofGuest<void, MigrationAnswer>({ method: 'delete', path: '/migration' }),
  /** Of all targets that are a policy's: their leases last for so long from now on. */
  renewLeases: ofHost<LeaseRenewalOrder, LeaseRenewal>({ method: 'post', path: '/leases' }),
  /** The fleet of hosts that is looked at; its state is `none` where there is none. */
  fleet: ofHost<FleetQuestion, FleetPicture>({
    method: 'get',
    path: '/fleet/view',
    query: { host: 'host' },
  }),
  /** The memory policy with all that it decided last; its state is `off` where there is none. */
  policy: ofHost<void, PolicyStatus>({ method: 'get', path: '/policy' }),
  /** @throws PolicyOffError when there is no policy; so do all that follow */
  changePolicy: ofHost<PolicyChanges, PolicyStatus>({ method: 'patch', path: '/policy' }),
  /**
   * Reads the settings' file anew.
   * @throws AerostatError when it is refused; the settings before it stay in force
   */
  reloadPolicy: ofHost<void, PolicyStatus>({ method: 'post', path: '/policy/reload' }),
  /**
   * Keeps memory for a guest that is about to start; does not wait for it, but says what is missing.
   * @throws GuestStateError when the host can never have so much
   */
  reserve: ofHost<ReservationOrder, Reservation>({ method: 'post', path: '/policy/reservations' }),
  /** @throws GuestStateError when there is none for this name */
  releaseReservation: ofHost<{ readonly name: string }, PolicyStatus>({
    method: 'delete',
    path: '/policy/reservations',
    query: { name: 'name' },
  }),
  /** What the policy decided about the guest, and why. */
  guestPolicy: ofGuest<void, GuestPolicy>({ method: 'get', path: '/policy' }),
  /** @throws AerostatError when the settings contradict each other; then nothing is changed */
  changeGuestPolicy: ofGuest<GuestPolicyChanges, GuestPolicy>({ method: 'patch', path: '/policy' }),
  /** Ends the hold of a guest whose target a person set. */
  resumePolicy: ofGuest<void, GuestPolicy>({ method: 'post', path: '/policy/resume' }),
  policyHistory: ofGuest<void, PolicyHistory>({ method: 'get', path: '/policy/history' }),
} as const;

type Operations = typeof OPERATIONS;
export type OperationName = keyof Operations;

type NamesOf<Kind> = {
  [Name in OperationName]: Operations[Name] extends Kind ? Name : never;
}[OperationName];

export type HostOperation = NamesOf<{ readonly scope: 'host' }>;
export type GuestOperation = NamesOf<{ readonly scope: 'guest' }>;
/** Operations that the data-plane thread of the guest answers. */
export type ThreadOperation = NamesOf<{ readonly answeredBy: 'thread' }>;
export type MigrationOperation = 'migration' | 'migrate' | 'cancelMigration';
/** What is asked of a memory policy, and where. */
export type HostPolicyOperation =
  | 'policy'
  | 'changePolicy'
  | 'reloadPolicy'
  | 'reserve'
  | 'releaseReservation';
export type GuestPolicyOperation = 'guestPolicy' | 'changeGuestPolicy' | 'resumePolicy' | 'policyHistory';

/** What an operation takes beside the name of its guest; void for nothing. */
export type ArgsOf<Name extends OperationName> = NonNullable<Operations[Name]['types']>['args'];

/** What an operation answers, where a guest's status is a `Status`. */
export type AnswerOf<Name extends OperationName, Status = GuestStatus> = Name extends 'guest' | 'change'
  ? Status
  : Name extends 'guests'
    ? readonly Status[]
    : NonNullable<Operations[Name]['types']>['answer'];

/** Arguments may be left out where all of them may. */
type Rest<Args> = Args extends void ? [] : Partial<Args> extends Args ? [args?: Args] : [args: Args];

/** The handlers of some operations of guests. @throws UnknownGuestError each of them */
export type GuestHandlers<Names extends GuestOperation = GuestOperation, Status = GuestStatus> = {
  [Name in Names]: (name: string, ...rest: Rest<ArgsOf<Name>>) => Promise<AnswerOf<Name, Status>>;
};

/** The handlers of some operations of hosts. */
export type HostHandlers<Names extends HostOperation, Status = GuestStatus> = {
  [Name in Names]: (...rest: Rest<ArgsOf<Name>>) => Promise<AnswerOf<Name, Status>>;
};

/** A memory policy as it is steered. */
export type PolicyControl = HostHandlers<HostPolicyOperation> & GuestHandlers<GuestPolicyOperation>;

/** What is asked of a host about all of its guests. */
type AllGuestsOperation = 'guests' | 'samples' | 'renewLeases';

/** Guests, whichever host they are on. */
export interface GuestControl<Status extends GuestStatus = GuestStatus>
  extends GuestHandlers<GuestOperation, Status>,
    HostHandlers<AllGuestsOperation, Status> {
  /** Calls `listener` for every event until the returned function is called. */
  subscribe(listener: (event: GuestEvent) => void): () => void;
}

/** Guests of a hypervisor that can do less than ours: `handlerOf` (handlers.ts) refuses what it leaves out. */
export type GuestSource = Partial<GuestHandlers> &
  Pick<GuestControl, 'guest' | 'change' | 'statistics' | 'guests' | 'samples' | 'renewLeases' | 'subscribe'>;

/** A daemon, its host and its guests. */
export interface Control<Status extends GuestStatus = GuestStatus>
  extends GuestControl<Status>,
    HostHandlers<Exclude<HostOperation, AllGuestsOperation>, Status> {}

export const OPERATION_NAMES = Object.keys(OPERATIONS) as OperationName[];

export const GUEST_OPERATIONS = OPERATION_NAMES.filter(
  (name): name is GuestOperation => OPERATIONS[name].scope === 'guest',
);

export const HOST_OPERATIONS = OPERATION_NAMES.filter(
  (name): name is HostOperation => OPERATIONS[name].scope === 'host',
);

export const THREAD_OPERATIONS = GUEST_OPERATIONS.filter(
  (name): name is ThreadOperation => OPERATIONS[name].answeredBy === 'thread',
);

/** Any handler, where the compiler does not know of which operation. */
export type AnyHandler = (name: string, args?: object) => Promise<unknown>;
export type AnyHostHandler = (args?: object) => Promise<unknown>;

/** One handler for many operations: `make` is called once for each name. */
export function handlersOf<Names extends GuestOperation, Status = GuestStatus>(
  names: readonly Names[],
  make: (operation: Names) => AnyHandler,
): GuestHandlers<Names, Status> {
  // The table says which handler takes what; that each does is what `make` promises.
  return Object.fromEntries(names.map(name => [name, make(name)])) as unknown as GuestHandlers<Names, Status>;
}

/** The same of a host. */
export function hostHandlersOf<Names extends HostOperation, Status = GuestStatus>(
  names: readonly Names[],
  make: (operation: Names) => AnyHostHandler,
): HostHandlers<Names, Status> {
  return Object.fromEntries(names.map(name => [name, make(name)])) as unknown as HostHandlers<Names, Status>;
}

/** Path of an operation, with the name of its guest. */
function pathOf(operation: OperationName, guest: string): string {
  const { scope, http } = OPERATIONS[operation];
  return scope === 'guest' ? `/v1/guests/${encodeURIComponent(guest)}${http.path}` : `/v1${http.path}`;
}

/** What a client sends: the path with its query, and the body if there is one. */
interface OperationRequest {
  readonly method: string;
  readonly path: string;
  readonly body: object | undefined;
  /** See {@link HttpForm}. */
  readonly patient: boolean;
}

export function requestOf(
  operation: OperationName,
  guest: string,
  args: object | undefined,
): OperationRequest {
  const { query, method: verb, patient = false } = OPERATIONS[operation].http as HttpForm;
  const path = pathOf(operation, guest);
  const method = verb.toUpperCase();
  if (query === undefined) return { method, path, body: args, patient };
  const values = new URLSearchParams();
  for (const [argument, value] of Object.entries(args ?? {})) {
    if (value !== undefined) values.set(query[argument], String(value));
  }
  return { method, path: values.size === 0 ? path : `${path}?${values}`, body: undefined, patient };
}

/** The answer in the JSON object that carries it. */
export function answerIn(operation: OperationName, document: unknown): unknown {
  const { field } = OPERATIONS[operation].http as HttpForm;
  return field === undefined ? document : (document as Record<string, unknown>)[field];
}

/** The JSON object that carries an answer. */
export function documentOf(operation: OperationName, answer: unknown): object {
  const { field } = OPERATIONS[operation].http as HttpForm;
  return field === undefined ? (answer as object) : { [field]: answer };
}
