/**
 * What the API and the exporter have in common: errors become problem documents, answers are hardened, and those who ask
 * over TCP need a token. What is served is api.ts's and exporter.ts's.
 */
import type { Env, Hono, MiddlewareHandler } from 'hono';
import { type AccessRules, access } from './access.ts';
import { isPagePath } from './page.ts';
import { problemResponse, RequestError } from './problem.ts';

export interface Manners {
  /** Given when the server is reachable over TCP; a Unix socket relies on its mode. */
  readonly access?: AccessRules;
  /** Told of failures that are ours; the client only learns that there was one. */
  readonly onError?: (error: Error, request: string) => void;
}

/** Before any route. `see` is the address that a 404 names. */
export function teachManners<E extends Env>(
  app: Hono<E>,
  { access: rules, onError }: Manners,
  see: string,
): void {
  app.onError((error, context) => {
    const response = problemResponse(context, error);
    if (response.status >= 500) onError?.(error, `${context.req.method} ${context.req.path}`);
    return response;
  });
  app.notFound(context =>
    problemResponse(
      context,
      new RequestError('AEROSTAT_NOT_FOUND', `there is nothing at ${context.req.path}; see ${see}`),
    ),
  );
  // Outermost, so that refusals are hardened as well.
  app.use(hardenResponse);
  if (rules !== undefined) app.use(access(rules));
}

/** `no-store` and `nosniff` on every answer; the page's files set their own Cache-Control. */
const hardenResponse: MiddlewareHandler = async (context, next) => {
  await next();
  const { headers } = context.res;
  const keeps = isPagePath(context.req.path) && headers.has('Cache-Control');
  if (!keeps) headers.set('Cache-Control', 'no-store');
  headers.set('X-Content-Type-Options', 'nosniff');
};
