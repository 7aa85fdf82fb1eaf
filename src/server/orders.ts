/** What was ordered over the API, and by whom: for a log that says later who set which target. */
import type { IncomingMessage } from 'node:http';
import type { MiddlewareHandler } from 'hono';
import { peerOf } from '../sys/unix-peers.ts';

export interface Order {
  /** Left out where it is about the host. */
  readonly guest?: string;
  /** `target`, `hint`, `request`, `migration` or `policy`; what is changed of a guest itself is a `change`. */
  readonly kind: string;
  /** The client, as far as the connection tells. */
  readonly caller: string;
  /** The request's own fields. */
  readonly detail: Readonly<Record<string, string | number | boolean | null>>;
}

const READING = new Set(['GET', 'HEAD', 'OPTIONS']);
const GUEST_PATH = /^\/v1\/guests\/([^/]+)(?:\/([a-z]+)s?(?:\/[a-z]+)?)?$/;
const POLICY_PATH = /^\/v1\/(policy)(?:\/[a-z]+)?$/;
/** Enough to know a program by. */
const AGENT_LENGTH_MAX = 40;

/** Tells of every order that was carried out. */
export function tellOrders(told: (order: Order) => void): MiddlewareHandler {
  return async (context, next) => {
    await next();
    const { method, path } = context.req;
    const match = GUEST_PATH.exec(path);
    const kind = match === null ? POLICY_PATH.exec(path)?.[1] : (match[2] ?? 'change');
    if (READING.has(method) || kind === undefined || context.res.status !== 200) return;
    const incoming = (context.env as { incoming?: IncomingMessage } | undefined)?.incoming;
    // Every route with a body has checked it; a cancellation has none.
    const body = method === 'DELETE' ? { cancel: true } : await context.req.json().catch(() => ({}));
    told({
      ...(match === null ? {} : { guest: decodeURIComponent(match[1]) }),
      kind,
      caller: callerOf(incoming),
      detail: body,
    });
  };
}

/** `user 1000, process 4242` on a Unix socket, `127.0.0.1:50412` on TCP, and the program by its own word. */
function callerOf(incoming: IncomingMessage | undefined): string {
  if (incoming === undefined) return 'this process';
  const { socket, headers } = incoming;
  const program = /^[\w./-]+/.exec(headers['user-agent'] ?? '')?.[0].slice(0, AGENT_LENGTH_MAX);
  const by = program === undefined ? '' : ` (${program})`;
  if (socket.remoteAddress !== undefined) return `${socket.remoteAddress}:${socket.remotePort}${by}`;
  const peer = peerOf(socket);
  return peer === undefined ? `a process of this machine${by}` : `user ${peer.uid}, process ${peer.pid}${by}`;
}
