/**
 * Who may use the API over TCP. Anything on the machine can connect to a loopback port, and so can any web
 * page that the person opens, so there is a token, and a page of another origin or a name that was pointed
 * at us (DNS rebinding) is refused even with it. A Unix socket needs none of this: its mode says which users may.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import type { MiddlewareHandler } from 'hono';
import { isPagePath } from './page.ts';
import { RequestError } from './problem.ts';
import { HOW_TO_GIVE_TOKEN, type Token } from './token.ts';

/** Health checks have no token. */
export const HEALTH_PATH = '/healthz';

export interface AccessRules {
  readonly tokens: readonly Token[];
  /** Names by which this server may be addressed besides `localhost`, IP addresses and the machine's own name. */
  readonly hostNames: readonly string[];
}

/** Host and port of a Host header, lower case; undefined when it is malformed. */
function parseHost(header: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::\d{1,5})?$/.exec(header.toLowerCase());
  return match?.[1] ?? match?.[2];
}

const digest = (text: string) => createHash('sha256').update(text).digest();

/** Comparing digests, and all of them, takes the same time whatever the guess, its length included. */
function find(tokens: readonly (readonly [digest: Buffer, token: Token])[], given: string) {
  const guess = digest(given);
  let found: Token | undefined;
  for (const [expected, token] of tokens) if (timingSafeEqual(guess, expected)) found = token;
  return found;
}

/** What a request must not be where its token may only read. */
const READING = new Set(['GET', 'HEAD']);

export function access({ tokens, hostNames }: AccessRules): MiddlewareHandler {
  const known = tokens.map(token => [digest(token.secret), token] as const);
  // Rebinding needs a name that an attacker's DNS server answers for; an address is beyond its reach.
  const names = new Set(['localhost', hostname(), ...hostNames].map(name => name.toLowerCase()));
  return async (context, next) => {
    const header = context.req.header('host') ?? '';
    const host = parseHost(header);
    if (host === undefined || (isIP(host) === 0 && !names.has(host))) {
      throw new RequestError('AEROSTAT_HOST', 'the Host header names another machine than this one');
    }
    const origin = context.req.header('origin');
    if (origin !== undefined && origin.toLowerCase() !== `http://${header.toLowerCase()}`) {
      throw new RequestError('AEROSTAT_ORIGIN', 'pages of another origin may not use this API');
    }
    // The page itself is no secret, and a browser cannot send a token before it runs.
    if (isPagePath(context.req.path) || context.req.path === HEALTH_PATH) return next();
    const given = /^Bearer +(\S+)$/i.exec(context.req.header('authorization') ?? '')?.[1];
    const token = given === undefined ? undefined : find(known, given);
    if (token === undefined) {
      const why = given === undefined ? 'a token is needed' : 'the token is wrong';
      throw new RequestError(
        'AEROSTAT_UNAUTHORIZED',
        `${why}; send it as "Authorization: Bearer TOKEN" (aerostat: ${HOW_TO_GIVE_TOKEN})`,
        { headers: { 'WWW-Authenticate': 'Bearer realm="aerostat"' } },
      );
    }
    if (token.right === 'read-only' && !READING.has(context.req.method)) {
      throw new RequestError(
        'AEROSTAT_READ_ONLY',
        'this token may look and not steer; use one that the token file of the daemon does not call read-only',
      );
    }
    await next();
  };
}
