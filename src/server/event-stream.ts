/**
 * One client's stream of Server-Sent Events. A client that reads slowly holds nothing in memory but its place
 * in the log: the next event is taken when the last one was written, and what the ring dropped meanwhile is
 * said to be missed.
 */
import type { Context } from 'hono';
import { streamSSE } from 'hono/streaming';
import type { GuestEvent } from '../control/contract.ts';
import type { EventLog } from './event-log.ts';
import { HEARTBEAT_MS } from './event-parser.ts';
import { RequestError } from './problem.ts';

/** More dashboards than that look at one daemon only by mistake. */
export const STREAMS_MAX = 64;

/** How long a client waits before it connects again. */
const RETRY_MS = 1000;

interface EventStreamOptions {
  /** Only this guest's events. */
  readonly guest?: string | undefined;
  /** Only events of these types. */
  readonly types?: readonly string[] | undefined;
  /** Ends the stream. */
  readonly signal: AbortSignal;
}

const open = new WeakMap<EventLog, number>();

export function eventStream(
  context: Context,
  log: EventLog,
  { guest, types, signal }: EventStreamOptions,
): Response {
  const streams = open.get(log) ?? 0;
  if (streams >= STREAMS_MAX) {
    throw new RequestError('AEROSTAT_TOO_MANY_STREAMS', `${STREAMS_MAX} event streams are open already`);
  }
  // A stream without a reader would never end.
  if (context.req.method === 'HEAD') return context.body(null, 200, { 'Content-Type': 'text/event-stream' });
  open.set(log, streams + 1);
  const wanted = (event: GuestEvent) =>
    (guest === undefined || event.guest === guest) && (types?.includes(event.type) ?? true);
  const cursor = log.open(context.req.header('last-event-id'), types);
  return streamSSE(context, async stream => {
    stream.onAbort(() => log.wake());
    const live = () => !stream.aborted && !signal.aborted;
    try {
      await stream.writeSSE({ event: 'hello', data: '{}', id: log.idAt(cursor), retry: RETRY_MS });
      while (live()) {
        const next = log.read(cursor);
        if (next.missed) await stream.writeSSE({ event: 'missed', data: '{}' });
        if (next.logged === undefined) {
          await log.wait(HEARTBEAT_MS);
          // With the id: what the client did not want need not be looked through again when it resumes.
          if (live() && log.isAtEnd(cursor)) await stream.write(`:\nid: ${log.idAt(cursor)}\n\n`);
        } else if (wanted(next.logged.event)) {
          const { id, event } = next.logged;
          await stream.writeSSE({ id, event: event.type, data: JSON.stringify(event) });
        }
      }
    } finally {
      open.set(log, (open.get(log) ?? 1) - 1);
    }
  });
}
