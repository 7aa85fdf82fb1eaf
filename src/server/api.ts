/**
 * The HTTP API over a {@link Control}: what each route does, and what all of them have in common. It knows nothing of
 * sockets (that is listen.ts) and nothing of devices.
 */
import { createHash } from 'node:crypto';
import { OpenAPIHono } from '@hono/zod-openapi';
import type { Context, Handler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { HTTPException } from 'hono/http-exception';
import { timeout } from 'hono/timeout';
import { handlerOf } from '../control/handlers.ts';
import { GUEST_TIMEOUT_MS_MAX } from '../control/limits.ts';
import type { MemoryMap } from '../control/memory-map.ts';
import {
  type Control,
  documentOf,
  type HttpForm,
  OPERATION_NAMES,
  OPERATIONS,
  type OperationName,
} from '../control/operations.ts';
import { EventLog } from './event-log.ts';
import { eventStream } from './event-stream.ts';
import { type Manners, teachManners } from './manners.ts';
import { metricsText } from './metrics.ts';
import { type Order, tellOrders } from './orders.ts';
import { servePage } from './page.ts';
import { RequestError } from './problem.ts';
import { refuseUnknownQueries } from './query.ts';
import {
  getDocument,
  getEvents,
  getHealth,
  getMetrics,
  OPERATION_DOCUMENTS,
  ROUTES,
  routeOf,
} from './routes.ts';
import { GuestEventSchema } from './schemas/answers.ts';

/** The largest honest request is a patch of three fields. */
export const BODY_BYTES_MAX = 4096;

/** A guest may be waited for, so the limit lies above the longest wait that a request may ask for. */
const REQUEST_MS_MAX = GUEST_TIMEOUT_MS_MAX + 5000;

export interface ApiOptions extends Manners {
  readonly version: string;
  readonly requestMsMax?: number;
  readonly events?: EventLog;
  /** Where the dashboard's files are, if not where they are built. */
  readonly pageDirectory?: string;
  /** Told of all that was ordered and carried out. */
  readonly onOrder?: (order: Order) => void;
}

interface Api {
  readonly app: OpenAPIHono;
  /** Ends the event streams and stops listening to the guests. */
  close(): void;
}

export function createApi(control: Control, options: ApiOptions): Api {
  const { version, events = new EventLog(), requestMsMax = REQUEST_MS_MAX } = options;
  const app = new OpenAPIHono({ defaultHook: refuseInvalid });
  const unsubscribe = control.subscribe(event => events.push(event));
  const ending = new AbortController();

  teachManners(app, options, '/v1/openapi.json');
  app.use(refuseUnknownQueries(ROUTES));
  if (options.onOrder !== undefined) app.use(tellOrders(options.onOrder));
  app.use(timeout(requestMsMax, new HTTPException(504, { message: 'the daemon did not answer in time' })));
  app.use(
    bodyLimit({
      maxSize: BODY_BYTES_MAX,
      onError: () => {
        throw new HTTPException(413, { message: `a body may have ${BODY_BYTES_MAX} bytes at most` });
      },
    }),
  );

  for (const operation of OPERATION_NAMES) {
    const handler: Handler = async context => {
      const { name = '' } = context.req.param();
      const asked = handlerOf(control, operation)(name, argsOf(operation, context));
      const answer = documentOf(operation, await asked);
      return operation === 'map' ? mapAnswer(context, answer as MemoryMap) : context.json(answer, 200);
    };
    // The schemas validate requests and answers; the compiler holds them to the contract's types.
    app.openapi(routeOf(operation), handler as never);
  }
  app.openapi(getHealth, async context => {
    // Every data-plane thread is asked: one that hangs is no health.
    await control.daemon();
    return context.json({ status: 'ok' as const }, 200);
  });
  app.openapi(getEvents, context =>
    eventStream(context, events, { ...context.req.valid('query'), signal: ending.signal }),
  );
  app.openapi(getMetrics, async context => {
    const { type, text } = await metricsText(control);
    return context.text(text, 200, { 'Content-Type': type });
  });
  // No answer is one by itself, so that no route brings it along.
  app.openAPIRegistry.register('GuestEvent', GuestEventSchema);
  app.openAPIRegistry.registerComponent('securitySchemes', 'token', { type: 'http', scheme: 'bearer' });
  /** Built when it is first asked for: it costs some milliseconds, and strangers may ask for it. */
  let document: object | undefined;
  app.openapi(getDocument, context => {
    document ??= openApiDocument(app, version);
    return context.json(document, 200);
  });
  servePage(app, options.pageDirectory);
  refuseOtherMethods(app);

  return {
    app,
    close: () => {
      unsubscribe();
      ending.abort();
      events.wake();
    },
  };
}

/** The arguments of an operation, from where its form in HTTP has them; validated already. */
function argsOf(operation: OperationName, context: Context): object | undefined {
  if (OPERATION_DOCUMENTS[operation].args === undefined) return undefined;
  const { query }: HttpForm = OPERATIONS[operation].http;
  const valid = (place: string): Record<string, unknown> => context.req.valid(place as never);
  if (query === undefined) return valid('json');
  const parameters = valid('query');
  return Object.fromEntries(
    Object.entries(query)
      .map(([argument, parameter]) => [argument, parameters[parameter]])
      .filter(([, value]) => value !== undefined),
  );
}

function mapAnswer(context: Context, map: MemoryMap): Response {
  const tag = mapTag(map);
  context.header('ETag', tag);
  if (context.req.header('if-none-match') === tag) return context.body(null, 304);
  return context.json(map, 200);
}

/** Weak (RFC 9110, 8.8.1): maps that differ in nothing but their age are as good as each other. */
function mapTag({ residentAgeMs: _, ...map }: MemoryMap): string {
  return `W/"${createHash('sha256').update(JSON.stringify(map)).digest('base64url').slice(0, 16)}"`;
}

function openApiDocument(app: OpenAPIHono, version: string) {
  return app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'Aerostat',
      version,
      description:
        'See and steer the memory of guests. Sizes are bytes, times milliseconds, unknown is null.',
      license: { name: 'Apache-2.0' },
    },
    // Either: a Unix socket asks for nothing, TCP for a token.
    security: [{}, { token: [] }],
  });
}

/** A path that exists, asked in a way that it does not answer to (RFC 9110, 15.5.6: the answer names the ways that it does). */
function refuseOtherMethods(app: OpenAPIHono): void {
  const methods = new Map<string, Set<string>>();
  for (const { path, method } of app.routes) {
    if (method === 'ALL') continue;
    const known = methods.get(path) ?? new Set();
    methods.set(path, known.add(method));
    if (method === 'GET') known.add('HEAD');
  }
  for (const [path, known] of methods) {
    const allowed = [...known].join(', ');
    app.all(path, context => {
      throw new RequestError('AEROSTAT_METHOD', `${context.req.path} answers to ${allowed}`, {
        headers: { Allow: allowed },
      });
    });
  }
}

type ValidationResult =
  | { success: true }
  | { success: false; error: { issues: readonly { path: readonly PropertyKey[]; message: string }[] } };

function refuseInvalid(result: ValidationResult): undefined {
  if (result.success) return undefined;
  const errors = result.error.issues.map(({ path, message }) => ({ path: path.join('.'), message }));
  const detail = errors
    .map(({ path, message }) => (path === '' ? message : `${path}: ${message}`))
    .join('; ');
  throw new RequestError('AEROSTAT_BAD_REQUEST', detail, { errors });
}
