/**
 * The HTTP API over a {@link Control}: what each route does, and what all of them have in common. It knows nothing of
 * sockets (that is listen.ts) and nothing of devices.
 */
import { createHash } from 'node:crypto';
import { OpenAPIHono } from '@hono/zod-openapi';
import { bodyLimit } from 'hono/body-limit';
import { HTTPException } from 'hono/http-exception';
import { timeout } from 'hono/timeout';
import { type Control, GUEST_TIMEOUT_MS_MAX, hintOf, STATISTICS_TIMEOUT_MS } from '../control/contract.ts';
import type { MemoryMap } from '../control/memory-map.ts';
import { EventLog } from './event-log.ts';
import { eventStream } from './event-stream.ts';
import { type Manners, teachManners } from './manners.ts';
import { metricsText } from './metrics.ts';
import { servePage } from './page.ts';
import { RequestError } from './problem.ts';
import { refuseUnknownQueries } from './query.ts';
import * as routes from './routes.ts';
import {
  deleteMigration,
  getDaemon,
  getDocument,
  getEvents,
  getGuest,
  getHealth,
  getHint,
  getHost,
  getMap,
  getMetrics,
  getMigration,
  getStatistics,
  listGuests,
  listStatistics,
  patchGuest,
  postHint,
  postMigration,
  postRequest,
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
}

export interface Api {
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
  app.use(refuseUnknownQueries(Object.values(routes)));
  app.use(timeout(requestMsMax, new HTTPException(504, { message: 'the daemon did not answer in time' })));
  app.use(
    bodyLimit({
      maxSize: BODY_BYTES_MAX,
      onError: () => {
        throw new HTTPException(413, { message: `a body may have ${BODY_BYTES_MAX} bytes at most` });
      },
    }),
  );

  /** Who does not exist has no migration either. */
  const migrationOf = async (name: string) => {
    await control.guest(name);
    const { migrations } = control;
    return { migration: await migrations.status(name), obstacle: await migrations.obstacle(name) };
  };

  app.openapi(getDaemon, async context => context.json(await control.daemon(), 200));
  app.openapi(getHealth, async context => {
    // Every data-plane thread is asked: one that hangs is no health.
    await control.daemon();
    return context.json({ status: 'ok' as const }, 200);
  });
  app.openapi(getHost, async context => context.json(await control.host(), 200));
  app.openapi(listGuests, async context => context.json({ guests: await control.guests() }, 200));
  app.openapi(getGuest, async context =>
    context.json(await control.guest(context.req.valid('param').name), 200),
  );
  app.openapi(patchGuest, async context => {
    const { name } = context.req.valid('param');
    return context.json(await control.change(name, context.req.valid('json')), 200);
  });
  app.openapi(getStatistics, async context => {
    const { fresh_ms: freshMs, timeout_ms: timeoutMs = STATISTICS_TIMEOUT_MS } = context.req.valid('query');
    const wanted = freshMs === undefined ? undefined : { freshMs, timeoutMs };
    return context.json(await control.statistics(context.req.valid('param').name, wanted), 200);
  });
  app.openapi(listStatistics, async context => context.json({ samples: await control.samples() }, 200));
  app.openapi(getMap, async context => {
    const { from, bytes, cells } = context.req.valid('query');
    const map = await control.map(context.req.valid('param').name, {
      ...(from === undefined ? {} : { fromBytes: from }),
      ...(bytes === undefined ? {} : { bytes }),
      ...(cells === undefined ? {} : { cells }),
    });
    const tag = mapTag(map);
    context.header('ETag', tag);
    if (context.req.header('if-none-match') === tag) return context.body(null, 304);
    return context.json(map, 200);
  });
  app.openapi(getHint, async context =>
    context.json(hintOf(await control.guest(context.req.valid('param').name)), 200),
  );
  app.openapi(postHint, async context =>
    context.json(await control.hint(context.req.valid('param').name, context.req.valid('json').action), 200),
  );
  app.openapi(postRequest, async context => {
    const { request, timeoutMs } = context.req.valid('json');
    const wanted = timeoutMs === undefined ? {} : { timeoutMs };
    return context.json(await control.request(context.req.valid('param').name, request, wanted), 200);
  });
  app.openapi(getMigration, async context =>
    context.json(await migrationOf(context.req.valid('param').name), 200),
  );
  app.openapi(postMigration, async context =>
    context.json(
      await control.migrations.start(context.req.valid('param').name, context.req.valid('json')),
      200,
    ),
  );
  app.openapi(deleteMigration, async context => {
    const { name } = context.req.valid('param');
    await control.guest(name);
    await control.migrations.cancel(name);
    return context.json(await migrationOf(name), 200);
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
  app.openapi(getDocument, context => context.json(openApiDocument(app, version), 200));
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

/** A path that exists, asked in a way that it does not answer to (RFC 9110, 15.5.6 wants the ways that it does). */
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
