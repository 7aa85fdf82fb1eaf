import { describe, expect, test } from 'vitest';
import { createApi } from '../../src/server/api.ts';
import { EventLog } from '../../src/server/event-log.ts';
import { EventParser } from '../../src/server/event-parser.ts';
import { STREAMS_MAX } from '../../src/server/event-stream.ts';
import { FakeControl, guestStatus } from './fake-control.ts';

const event = (n: number) => ({ guest: 'vm1', type: 'actual', timeMs: n, detail: { n } }) as const;

function drain(log: EventLog, lastId?: string) {
  const cursor = log.open(lastId);
  const ids: string[] = [];
  for (;;) {
    const { missed, logged } = log.read(cursor);
    if (missed) ids.push('missed');
    if (logged === undefined) return ids;
    ids.push(logged.id);
  }
}

describe('the event log', () => {
  const filled = (count: number) => {
    const log = new EventLog(4, '0000cafe');
    for (let n = 1; n <= count; n++) log.push(event(n));
    return log;
  };

  test('begins with the next event for a reader without an id', () => {
    expect(drain(filled(3))).toEqual([]);
  });

  test('goes on after the id that a reader saw last', () => {
    expect(drain(filled(3), '0000cafe-1')).toEqual(['0000cafe-2', '0000cafe-3']);
    expect(drain(filled(3), '0000cafe-3')).toEqual([]);
  });

  test('still knows the oldest that it keeps, and says so when it lost what came after the id', () => {
    const kept = ['0000cafe-3', '0000cafe-4', '0000cafe-5', '0000cafe-6'];
    expect(drain(filled(6), '0000cafe-2')).toEqual(kept);
    expect(drain(filled(6), '0000cafe-1')).toEqual(['missed', ...kept]);
  });

  test.each(['0000beef-2', '0000cafe-9', 'nonsense', '2'])('takes the id %s for one of another life', id => {
    expect(drain(filled(2), id)).toEqual(['missed', '0000cafe-1', '0000cafe-2']);
  });

  test('keeps what happened although figures that change have filled it many times over', () => {
    const log = new EventLog(4, '0000cafe');
    log.push({ ...event(1), type: 'connected' });
    for (let n = 2; n <= 20; n++) log.push(event(n));
    log.push({ ...event(21), type: 'error' });
    const figures = ['0000cafe-17', '0000cafe-18', '0000cafe-19', '0000cafe-20'];
    expect(drain(log, '0000cafe-0')).toEqual(['missed', '0000cafe-1', ...figures, '0000cafe-21']);
    // Who does not want them did not miss them.
    const cursor = log.open('0000cafe-1', ['connected', 'error']);
    expect(log.read(cursor)).toMatchObject({ missed: false, logged: { id: '0000cafe-21' } });
    expect(log.read(cursor)).toEqual({ missed: false, logged: undefined });
  });

  test('moves on over what a reader does not want, so that it resumes after it', () => {
    const log = filled(3);
    const cursor = log.open('0000cafe-0', ['error']);
    log.read(cursor);
    expect(log.idAt(cursor)).toBe('0000cafe-3');
    expect(log.isAtEnd(cursor)).toBe(true);
  });

  test('tells a slow reader that it was overtaken, and goes on with the oldest kept', () => {
    const log = filled(1);
    const cursor = log.open('0000cafe-0');
    for (let n = 2; n <= 7; n++) log.push(event(n));
    const next = log.read(cursor);
    expect(next).toMatchObject({ missed: true, logged: { id: '0000cafe-4' } });
    expect(log.read(cursor).missed).toBe(false);
  });
});

/** As the parser hands an event on. */
type ParsedEvent = Parameters<ConstructorParameters<typeof EventParser>[0]>[0];

describe('the event parser', () => {
  const parse = (...pieces: string[]) => {
    const events: ParsedEvent[] = [];
    const parser = new EventParser(parsed => events.push(parsed));
    for (const piece of pieces) parser.push(piece);
    return { events, lastId: parser.lastId };
  };

  test('reads an event that arrives in pieces', () => {
    const text = 'id: a-1\nevent: hint\ndata: {"x":\ndata: 1}\n\n';
    for (let cut = 0; cut <= text.length; cut++) {
      expect(parse(text.slice(0, cut), text.slice(cut))).toEqual({
        events: [{ event: 'hint', data: '{"x":\n1}' }],
        lastId: 'a-1',
      });
    }
  });

  test('passes over comments and blank lines, and takes CRLF', () => {
    expect(parse(':\n\n: beat\r\n\r\ndata:x\r\n\r\n').events).toEqual([{ event: 'message', data: 'x' }]);
  });

  test('does not resume after an event that it saw only half of', () => {
    expect(parse('id: 1\ndata: x\n\nid: 2\ndata: y\n').lastId).toBe('1');
  });
});

/** Reads a stream until `count` events have come; aborts it then. */
async function readEvents(
  response: Response,
  count: number,
): Promise<{ events: ParsedEvent[]; lastId: string }> {
  const events: ParsedEvent[] = [];
  const parser = new EventParser(parsed => events.push(parsed));
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  while (events.length < count) {
    const { value, done } = await reader.read();
    if (done) break;
    parser.push(decoder.decode(value));
  }
  await reader.cancel();
  return { events, lastId: parser.lastId };
}

describe('GET /v1/events', () => {
  function streams(log = new EventLog(4, '0000cafe')) {
    const control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'));
    const api = createApi(control, { version: '0', events: log });
    const open = (path = '/v1/events', lastId?: string) =>
      api.app.request(path, { headers: lastId === undefined ? {} : { 'Last-Event-ID': lastId } });
    return { control, api, open };
  }

  test('greets with an id, then tells what happens', async () => {
    const { control, open } = streams();
    const response = await open();
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    control.emit({ type: 'target', detail: { targetBytes: 4096 } });
    const { events, lastId } = await readEvents(response, 2);
    expect(events.map(({ event }) => event)).toEqual(['hello', 'target']);
    expect(JSON.parse(events[1].data)).toMatchObject({ guest: 'vm1', detail: { targetBytes: 4096 } });
    expect(lastId).toBe('0000cafe-1');
  });

  test('goes on after the id that the client saw last', async () => {
    const { control, open } = streams();
    for (const type of ['connected', 'ready', 'target'] as const) control.emit({ type });
    const { events } = await readEvents(await open('/v1/events', '0000cafe-1'), 3);
    expect(events.map(({ event }) => event)).toEqual(['hello', 'ready', 'target']);
  });

  test('says that events are missed when they are gone', async () => {
    const { control, open } = streams();
    for (let n = 0; n < 9; n++) control.emit();
    const { events } = await readEvents(await open('/v1/events', '0000cafe-1'), 6);
    expect(events.map(({ event }) => event)).toEqual([
      'hello',
      'missed',
      'actual',
      'actual',
      'actual',
      'actual',
    ]);
  });

  test('tells all that happened to who resumes, whatever the figures did meanwhile', async () => {
    const { control, open } = streams();
    for (const type of ['connected', 'ready'] as const) control.emit({ type });
    for (let n = 0; n < 99; n++) control.emit({ type: 'statistics' });
    control.emit({ type: 'target' });
    const { events } = await readEvents(await open('/v1/events?types=ready,target', '0000cafe-1'), 3);
    expect(events.map(({ event }) => event)).toEqual(['hello', 'ready', 'target']);
  });

  test('tells of one guest when one is asked for', async () => {
    const { control, open } = streams();
    const response = await open('/v1/events?guest=vm2');
    control.emit({ guest: 'vm1', type: 'reset' });
    control.emit({ guest: 'vm2', type: 'ready' });
    const { events } = await readEvents(response, 2);
    expect(events.map(({ event }) => event)).toEqual(['hello', 'ready']);
  });

  test('ends when the API closes, and stops listening to the guests', async () => {
    const { control, api, open } = streams();
    const response = await open();
    api.close();
    expect((await readEvents(response, 99)).events.map(({ event }) => event)).toEqual(['hello']);
    expect(control.listeners.size).toBe(0);
  });

  test('are refused when too many are open, and a place is free again when one leaves', async () => {
    const { api, open } = streams();
    const opened = await Promise.all(Array.from({ length: STREAMS_MAX }, () => open()));
    expect((await open()).status).toBe(503);
    await readEvents(opened[0], 1);
    await expect.poll(async () => (await open()).status).toBe(200);
    api.close();
  });
});
