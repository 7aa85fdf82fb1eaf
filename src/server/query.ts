/**
 * Query parameters that a route does not know are refused: one that is misspelt would be ignored otherwise, and the
 * answer would be to another question than the one that was asked.
 */
import type { createRoute } from '@hono/zod-openapi';
import type { MiddlewareHandler } from 'hono';
import { matchedRoutes } from 'hono/route';
import { RequestError } from './problem.ts';

type Route = ReturnType<typeof createRoute>;

/** For all of `routes`; other paths (the page's files) take any parameter. */
export function refuseUnknownQueries(routes: readonly Route[]): MiddlewareHandler {
  const known = new Map(
    routes.map(route => [`${route.method.toUpperCase()} ${route.getRoutingPath()}`, namesOf(route)]),
  );
  return async (context, next) => {
    for (const { method, path } of matchedRoutes(context)) {
      const names = known.get(`${method} ${path}`);
      if (names === undefined) continue;
      const strange = Object.keys(context.req.queries()).filter(name => !names.includes(name));
      if (strange.length > 0) refuse(strange, names);
    }
    await next();
  };
}

function namesOf({ request }: Route): readonly string[] {
  const query = request?.query;
  return query !== undefined && 'shape' in query ? Object.keys(query.shape as object) : [];
}

function refuse(strange: readonly string[], known: readonly string[]): never {
  const message = known.length === 0 ? 'this takes no parameters' : `this takes ${known.join(', ')}`;
  // A name may be as long as a header; the answer need not be.
  const named = strange.map(name => JSON.stringify(name.slice(0, 64)));
  const errors = strange.map(name => ({ path: name.slice(0, 64), message: 'is not known' }));
  throw new RequestError('AEROSTAT_BAD_REQUEST', `unknown query parameter ${named.join(', ')}; ${message}`, {
    errors: errors.slice(0, 16),
  });
}
