/**
 * The routes of the API: what each takes and how it may answer. The document is made of them, and so is the validation.
 * Those of operations are made of the declarations in control/operations.ts.
 */
import { createRoute, z } from '@hono/zod-openapi';
import { type HttpForm, OPERATION_NAMES, OPERATIONS, type OperationName } from '../control/operations.ts';
import { HEALTH_PATH } from './access.ts';
import { PROBLEM_TYPE } from './problem.ts';
import {
  DaemonStatusSchema,
  GuestListSchema,
  GuestStatusSchema,
  HealthSchema,
  HintStatusSchema,
  HostStatusSchema,
  MemoryMapSchema,
  MigrationAnswerSchema,
  MigrationStatusSchema,
  ProblemSchema,
  RequestAnswerSchema,
  SampleListSchema,
  StatisticsSampleSchema,
  UpgradeAnswerSchema,
} from './schemas/answers.ts';
import { FleetPictureSchema, FleetQuerySchema } from './schemas/fleet.ts';
import {
  GuestPolicyPatchSchema,
  GuestPolicySchema,
  LeaseRenewalOrderSchema,
  LeaseRenewalSchema,
  PolicyHistorySchema,
  PolicyPatchSchema,
  PolicyStatusSchema,
  ReservationOrderSchema,
  ReservationQuerySchema,
  ReservationSchema,
} from './schemas/policy.ts';
import {
  EventsQuerySchema,
  GuestParamsSchema,
  GuestPatchSchema,
  GuestRequestSchema,
  HintRequestSchema,
  MapQuerySchema,
  MigrationOrderSchema,
  StatisticsQuerySchema,
  UpgradeOrderSchema,
} from './schemas/requests.ts';

const json = <Schema extends z.ZodType>(schema: Schema, description: string) => ({
  description,
  content: { 'application/json': { schema } },
});

const refusal = (description: string) => ({
  description,
  content: { [PROBLEM_TYPE]: { schema: ProblemSchema } },
});

/** Whatever is asked for. */
const ofStrangers = {
  401: refusal('Over TCP: no token, or a wrong one.'),
  403: refusal('Over TCP: a page of another origin asks, or the token may only read.'),
  421: refusal('Over TCP: the Host header names another machine.'),
};
const senseless = { 400: refusal('The request is malformed; `errors` says where, if it can be said.') };
/** Where the daemon is asked. */
const refusals = {
  ...ofStrangers,
  ...senseless,
  500: refusal('The daemon failed.'),
  502: refusal('What the guest belongs to, another daemon or a QEMU, cannot be reached or refuses.'),
  504: refusal('The daemon, or what the guest belongs to, did not answer in time.'),
};
const { 401: _, ...withoutToken } = refusals;
const ofGuest = { ...refusals, 404: refusal('No guest has this name.') };
const conflict = {
  409: refusal('The guest or the policy cannot do this now, or did not answer in time.'),
};
const tooLarge = { 413: refusal('The body is too large.') };
const withBody = { ...tooLarge, 415: refusal('The body is not JSON.') };
const body = <Schema extends z.ZodType>(schema: Schema) => ({
  required: true,
  content: { 'application/json': { schema } },
});

/** What the document says of an operation beside its declaration. */
interface OperationDocument {
  readonly operationId: string;
  readonly summary: string;
  readonly answer: readonly [schema: z.ZodType, description: string];
  /** Query parameters, or the body. */
  readonly args?: z.ZodType;
  /** Nothing of the guest's state can stand in its way. */
  readonly always?: boolean;
  readonly besides?: Readonly<Record<number, { readonly description: string }>>;
}

export const OPERATION_DOCUMENTS: Readonly<Record<OperationName, OperationDocument>> = {
  daemon: {
    operationId: 'getDaemon',
    summary: 'The daemon itself',
    answer: [DaemonStatusSchema, 'How the daemon is.'],
  },
  host: {
    operationId: 'getHost',
    summary: 'The host’s memory',
    answer: [HostStatusSchema, 'How the host is.'],
  },
  upgrade: {
    operationId: 'postUpgrade',
    summary: 'Have the program that is installed now take the daemon’s place',
    args: UpgradeOrderSchema,
    answer: [UpgradeAnswerSchema, 'Another process serves; the one that answers ends.'],
  },
  guests: {
    operationId: 'listGuests',
    summary: 'All guests',
    answer: [GuestListSchema, 'Every guest, connected or not.'],
  },
  guest: {
    operationId: 'getGuest',
    summary: 'One guest',
    answer: [GuestStatusSchema, 'How the guest is.'],
    always: true,
  },
  change: {
    operationId: 'patchGuest',
    summary: 'Set a guest’s target, or how it is served',
    args: GuestPatchSchema,
    answer: [GuestStatusSchema, 'How the guest is now.'],
  },
  statistics: {
    operationId: 'getStatistics',
    summary: 'What the guest says of its memory',
    args: StatisticsQuerySchema,
    answer: [StatisticsSampleSchema, 'The newest sample.'],
  },
  samples: {
    operationId: 'listStatistics',
    summary: 'What all guests say of their memory',
    answer: [SampleListSchema, 'The newest sample of every guest.'],
  },
  map: {
    operationId: 'getMap',
    summary: 'What is where in the guest’s memory',
    args: MapQuerySchema,
    answer: [MemoryMapSchema, 'The map; its ETag stays the same while only the age changes.'],
    besides: { 304: { description: 'Nothing changed since the map with the ETag in If-None-Match.' } },
  },
  hintStatus: {
    operationId: 'getHint',
    summary: 'The free page hint session',
    answer: [HintStatusSchema, 'How the session is.'],
  },
  hint: {
    operationId: 'postHint',
    summary: 'Start, stop or finish a free page hint session',
    args: HintRequestSchema,
    answer: [HintStatusSchema, 'How the session is now.'],
  },
  request: {
    operationId: 'postRequest',
    summary: 'Ask the guest for something, and wait for its answer',
    args: GuestRequestSchema,
    answer: [RequestAnswerSchema, 'The whole answer.'],
  },
  migration: {
    operationId: 'getMigration',
    summary: 'The migration under way, or the last one',
    answer: [MigrationAnswerSchema, 'How it is, and whether there can be one.'],
    always: true,
  },
  migrate: {
    operationId: 'postMigration',
    summary: 'Begin to move the guest to another host',
    args: MigrationOrderSchema,
    answer: [MigrationStatusSchema, 'It has begun.'],
  },
  cancelMigration: {
    operationId: 'deleteMigration',
    summary: 'Give a migration up; the guest goes on where it is',
    answer: [MigrationAnswerSchema, 'How it is now.'],
  },
  renewLeases: {
    operationId: 'postLeases',
    summary: 'Renew the leases of all targets that are a policy’s',
    args: LeaseRenewalOrderSchema,
    answer: [LeaseRenewalSchema, 'How many there are.'],
    always: true,
  },
  fleet: {
    operationId: 'getFleetView',
    summary: 'The fleet of hosts that is looked at: memory, guests, moves and decisions',
    args: FleetQuerySchema,
    answer: [FleetPictureSchema, 'How it is; its state is none where no fleet is looked at.'],
    always: true,
  },
  policy: {
    operationId: 'getPolicy',
    summary: 'The memory policy, and all that it decided last',
    answer: [PolicyStatusSchema, 'How it is; its state is off where there is none.'],
    always: true,
  },
  changePolicy: {
    operationId: 'patchPolicy',
    summary: 'Turn dry run on or off',
    args: PolicyPatchSchema,
    answer: [PolicyStatusSchema, 'How the policy is now.'],
  },
  reloadPolicy: {
    operationId: 'postPolicyReload',
    summary: 'Read the file of the policy’s settings anew',
    answer: [PolicyStatusSchema, 'How the policy is now.'],
  },
  reserve: {
    operationId: 'postReservation',
    summary: 'Keep memory for a guest that is about to start',
    args: ReservationOrderSchema,
    answer: [ReservationSchema, 'How much of it is free. Ask again until it is ready.'],
  },
  releaseReservation: {
    operationId: 'deleteReservation',
    summary: 'Give a reservation up',
    args: ReservationQuerySchema,
    answer: [PolicyStatusSchema, 'How the policy is now.'],
  },
  guestPolicy: {
    operationId: 'getGuestPolicy',
    summary: 'What the policy decided about the guest, and why',
    answer: [GuestPolicySchema, 'The newest decision with its reasons.'],
  },
  changeGuestPolicy: {
    operationId: 'patchGuestPolicy',
    summary: 'Set the guest’s minimum, maximum, shares or mode',
    args: GuestPolicyPatchSchema,
    answer: [GuestPolicySchema, 'How it is now.'],
  },
  resumePolicy: {
    operationId: 'postPolicyResume',
    summary: 'Let the policy steer a guest again whose target a person set',
    answer: [GuestPolicySchema, 'How it is now.'],
  },
  policyHistory: {
    operationId: 'getPolicyHistory',
    summary: 'The newest decisions about the guest',
    answer: [PolicyHistorySchema, 'Oldest first.'],
  },
};

/** The route of an operation, made of its declaration and its document. */
export function routeOf(operation: OperationName) {
  const { scope, http }: { readonly scope: string; readonly http: HttpForm } = OPERATIONS[operation];
  const { operationId, summary, args, answer, always, besides } = OPERATION_DOCUMENTS[operation];
  const ofOne = scope === 'guest';
  const hasState = always === undefined && (ofOne || http.method !== 'get');
  const request = {
    ...(ofOne ? { params: GuestParamsSchema } : {}),
    ...(args === undefined ? {} : http.query === undefined ? { body: body(args) } : { query: args }),
  };
  return createRoute({
    method: http.method,
    path: `/v1${ofOne ? '/guests/{name}' : ''}${http.path}`,
    operationId,
    summary,
    request: request as { params: typeof GuestParamsSchema },
    responses: {
      200: json(...answer),
      ...besides,
      ...(ofOne ? ofGuest : refusals),
      ...(hasState ? conflict : {}),
      ...(http.method === 'get' ? {} : args === undefined || http.query !== undefined ? tooLarge : withBody),
    },
  });
}

export const getHealth = createRoute({
  method: 'get',
  path: HEALTH_PATH,
  operationId: 'getHealth',
  summary: 'Whether the daemon works; asks for no token, for it says no more than that',
  security: [],
  responses: { 200: json(HealthSchema, 'It does.'), ...withoutToken },
});

export const getEvents = createRoute({
  method: 'get',
  path: '/v1/events',
  operationId: 'getEvents',
  summary: 'What happens to guests, as it happens',
  description:
    'Server-Sent Events. Each has an id; send the last one back as `Last-Event-ID` and the stream goes on after it. ' +
    'An event named `missed` says that some in between are gone: read the guests anew. The data of every other ' +
    'event is a GuestEvent, and its name the type.',
  request: { query: EventsQuerySchema },
  responses: {
    200: {
      description: 'A stream that does not end.',
      content: { 'text/event-stream': { schema: z.string() } },
    },
    ...ofStrangers,
    ...senseless,
    500: refusals[500],
    503: refusal('Too many streams are open.'),
  },
});

export const getMetrics = createRoute({
  method: 'get',
  path: '/metrics',
  operationId: 'getMetrics',
  summary: 'All figures for Prometheus',
  responses: {
    200: { description: 'Text format 0.0.4.', content: { 'text/plain': { schema: z.string() } } },
    ...refusals,
  },
});

export const getDocument = createRoute({
  method: 'get',
  path: '/v1/openapi.json',
  operationId: 'getDocument',
  summary: 'This document',
  responses: {
    200: json(z.object({}).openapi({ additionalProperties: true }), 'OpenAPI 3.1.'),
    ...ofStrangers,
    ...senseless,
  },
});

/** All of them. */
export const ROUTES = [...OPERATION_NAMES.map(routeOf), getHealth, getEvents, getMetrics, getDocument];
