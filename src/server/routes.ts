/** The routes of the API: what each takes and how it may answer. The document is made of them, and so is the validation. */
import { createRoute, z } from '@hono/zod-openapi';
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
} from './schemas/answers.ts';
import {
  EventsQuerySchema,
  GuestParamsSchema,
  GuestPatchSchema,
  GuestRequestSchema,
  HintRequestSchema,
  MapQuerySchema,
  MigrationOrderSchema,
  StatisticsQuerySchema,
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
const senseless = { 400: refusal('The request makes no sense; `errors` says where, if it can be said.') };
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
const toGuest = {
  ...ofGuest,
  409: refusal('The guest cannot do this now, or did not answer in time.'),
};
const tooLarge = { 413: refusal('The body is too large.') };
const withBody = { ...tooLarge, 415: refusal('The body is not JSON.') };
const body = <Schema extends z.ZodType>(schema: Schema) => ({
  required: true,
  content: { 'application/json': { schema } },
});

export const getDaemon = createRoute({
  method: 'get',
  path: '/v1/daemon',
  operationId: 'getDaemon',
  summary: 'The daemon itself',
  responses: { 200: json(DaemonStatusSchema, 'How the daemon is.'), ...refusals },
});

export const getHealth = createRoute({
  method: 'get',
  path: HEALTH_PATH,
  operationId: 'getHealth',
  summary: 'Whether the daemon works; asks for no token, for it says no more than that',
  security: [],
  responses: { 200: json(HealthSchema, 'It does.'), ...withoutToken },
});

export const getHost = createRoute({
  method: 'get',
  path: '/v1/host',
  operationId: 'getHost',
  summary: 'The host’s memory',
  responses: { 200: json(HostStatusSchema, 'How the host is.'), ...refusals },
});

export const listGuests = createRoute({
  method: 'get',
  path: '/v1/guests',
  operationId: 'listGuests',
  summary: 'All guests',
  responses: { 200: json(GuestListSchema, 'Every guest, connected or not.'), ...refusals },
});

export const getGuest = createRoute({
  method: 'get',
  path: '/v1/guests/{name}',
  operationId: 'getGuest',
  summary: 'One guest',
  request: { params: GuestParamsSchema },
  responses: { 200: json(GuestStatusSchema, 'How the guest is.'), ...ofGuest },
});

export const patchGuest = createRoute({
  method: 'patch',
  path: '/v1/guests/{name}',
  operationId: 'patchGuest',
  summary: 'Set a guest’s target, or how it is served',
  request: { params: GuestParamsSchema, body: body(GuestPatchSchema) },
  responses: { 200: json(GuestStatusSchema, 'How the guest is now.'), ...toGuest, ...withBody },
});

export const getStatistics = createRoute({
  method: 'get',
  path: '/v1/guests/{name}/statistics',
  operationId: 'getStatistics',
  summary: 'What the guest says of its memory',
  request: { params: GuestParamsSchema, query: StatisticsQuerySchema },
  responses: { 200: json(StatisticsSampleSchema, 'The newest sample.'), ...toGuest },
});

export const listStatistics = createRoute({
  method: 'get',
  path: '/v1/statistics',
  operationId: 'listStatistics',
  summary: 'What all guests say of their memory',
  responses: { 200: json(SampleListSchema, 'The newest sample of every guest.'), ...refusals },
});

export const getMap = createRoute({
  method: 'get',
  path: '/v1/guests/{name}/map',
  operationId: 'getMap',
  summary: 'What is where in the guest’s memory',
  request: { params: GuestParamsSchema, query: MapQuerySchema },
  responses: {
    200: json(MemoryMapSchema, 'The map; its ETag stays the same while only the age changes.'),
    304: { description: 'Nothing changed since the map with the ETag in If-None-Match.' },
    ...toGuest,
  },
});

export const getHint = createRoute({
  method: 'get',
  path: '/v1/guests/{name}/hint',
  operationId: 'getHint',
  summary: 'The free page hint session',
  request: { params: GuestParamsSchema },
  responses: { 200: json(HintStatusSchema, 'How the session is.'), ...toGuest },
});

export const postHint = createRoute({
  method: 'post',
  path: '/v1/guests/{name}/hint',
  operationId: 'postHint',
  summary: 'Start, stop or finish a free page hint session',
  request: { params: GuestParamsSchema, body: body(HintRequestSchema) },
  responses: { 200: json(HintStatusSchema, 'How the session is now.'), ...toGuest, ...withBody },
});

export const postRequest = createRoute({
  method: 'post',
  path: '/v1/guests/{name}/request',
  operationId: 'postRequest',
  summary: 'Ask the guest for something, and wait for its answer',
  request: { params: GuestParamsSchema, body: body(GuestRequestSchema) },
  responses: { 200: json(RequestAnswerSchema, 'The whole answer.'), ...toGuest, ...withBody },
});

export const getMigration = createRoute({
  method: 'get',
  path: '/v1/guests/{name}/migration',
  operationId: 'getMigration',
  summary: 'The migration under way, or the last one',
  request: { params: GuestParamsSchema },
  responses: { 200: json(MigrationAnswerSchema, 'How it is, and whether there can be one.'), ...ofGuest },
});

export const postMigration = createRoute({
  method: 'post',
  path: '/v1/guests/{name}/migration',
  operationId: 'postMigration',
  summary: 'Begin to move the guest to another host',
  request: { params: GuestParamsSchema, body: body(MigrationOrderSchema) },
  responses: { 200: json(MigrationStatusSchema, 'It has begun.'), ...toGuest, ...withBody },
});

export const deleteMigration = createRoute({
  method: 'delete',
  path: '/v1/guests/{name}/migration',
  operationId: 'deleteMigration',
  summary: 'Give a migration up; the guest goes on where it is',
  request: { params: GuestParamsSchema },
  responses: { 200: json(MigrationAnswerSchema, 'How it is now.'), ...toGuest, ...tooLarge },
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
