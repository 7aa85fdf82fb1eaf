/**
 * The API against its own document, over TCP: every operation does what it is for and is made to give every refusal that
 * it declares, and whatever is said to it, it answers as the document says.
 */
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GuestStateError } from '../../src/control/errors.ts';
import { POLICY_OFF } from '../../src/control/policy.ts';
import {
  QmpAnswerError,
  QmpConnectionError,
  QmpError,
  QmpTimeoutError,
} from '../../src/peers/qemu/errors.ts';
import { BODY_BYTES_MAX } from '../../src/server/api.ts';
import { UnreachableError } from '../../src/server/client.ts';
import { EventLog } from '../../src/server/event-log.ts';
import { STREAMS_MAX } from '../../src/server/event-stream.ts';
import type { ServeOptions } from '../../src/server/listen.ts';
import { PROBLEM_TYPE } from '../../src/server/problem.ts';
import { TransferAddressError } from '../../src/transfer/address.ts';
import { VmError } from '../../src/vm/errors.ts';
import { type ApiDocument, type Operation, operationsOf, schemaOf } from './api-document.ts';
import { GIB } from './fake-control.ts';
import { type Answer, type Asked, Served } from './served.ts';

type Given = (served: Served) => unknown;

/** What is asked of an operation, where it is not the plainest, and the world in which it is asked. */
interface Call extends Omit<Partial<Asked>, 'method'> {
  /** Headers that are known only then. */
  readonly headersFrom?: (served: Served) => Promise<Record<string, string>>;
  readonly given?: Given;
  readonly options?: Partial<ServeOptions>;
}

/** By the status that it is answered with. */
type Calls = Readonly<Record<number, Call>>;

const fail =
  (failure: Error): Given =>
  ({ control }) => {
    control.failure = failure;
  };
const change =
  (...[name, overrides]: Parameters<Served['control']['alter']>): Given =>
  ({ control }) =>
    control.alter(name, overrides);
const migrating: Given = ({ control }) => control.migrate('vm1', { to: 'tcp:host2:4444' });

const withoutPolicy: Given = ({ control }) => {
  control.memoryPolicy.status = POLICY_OFF;
};

const SECRET = 'secret is undefined';

class BrokenLog extends EventLog {
  override open(): never {
    throw new TypeError(SECRET);
  }
}

const CASES: Readonly<Record<string, Calls>> = {
  getDaemon: { 200: {} },
  getHealth: { 200: {} },
  getHost: { 200: {} },
  listGuests: { 200: {} },
  getGuest: { 200: {} },
  patchGuest: {
    200: { body: { targetBytes: GIB, discard: 'before-ack', pollIntervalMs: 5000 } },
    400: { body: {} },
    409: { body: { targetBytes: GIB }, given: fail(new GuestStateError('vm1 has no balloon')) },
  },
  getStatistics: {
    200: { path: '/v1/guests/vm1/statistics?fresh_ms=0&timeout_ms=100' },
    400: { path: '/v1/guests/vm1/statistics?fresh_ms=soon' },
    409: {
      given: ({ control }) => {
        control.sample = null;
      },
    },
  },
  listStatistics: { 200: {} },
  getMap: {
    200: { path: '/v1/guests/vm1/map?from=0&bytes=4096&cells=1' },
    304: {
      headersFrom: async served => {
        const { headers } = await served.ask({ method: 'GET', path: '/v1/guests/vm1/map' });
        return { 'If-None-Match': headers.etag ?? 'none' };
      },
    },
    400: { path: '/v1/guests/vm1/map?cells=0' },
    409: { given: change('vm1', { connected: false }) },
  },
  getHint: { 200: {}, 409: { given: fail(new GuestStateError('no driver tells of hints')) } },
  postHint: {
    200: { body: { action: 'start' } },
    400: { body: { action: 'pause' } },
    409: {
      body: { action: 'start' },
      given: change('vm1', {
        hint: {
          state: 'unsupported',
          commandId: null,
          hintedBytes: 0,
          ranges: 0,
          heldBytes: 0,
          endsInMs: null,
        },
      }),
    },
  },
  postRequest: {
    200: { body: { request: 'shrink', timeoutMs: 100 }, given: change('vm1', { profile: 'page-chunks' }) },
    400: { body: '{"request":' },
    409: { body: { request: 'shrink' } },
  },
  getMigration: { 200: { given: migrating } },
  postMigration: {
    200: { body: { to: 'tcp:host2:4444', connections: 4, autoConverge: true } },
    400: { body: { to: 'host2' }, given: fail(new TransferAddressError('host2', 'a port is missing')) },
    409: { body: { to: 'tcp:host2:4444' }, given: migrating },
  },
  deleteMigration: { 200: { given: migrating }, 409: {} },
  postUpgrade: {
    200: {
      body: { timeoutMs: 1000 },
      given: ({ control }) => {
        control.upgraded = { pid: 4242, version: '0.2.0', guests: 1, handOverMs: 12 };
      },
    },
    400: { body: { timeoutMs: 0 } },
    409: { body: {} },
  },
  postLeases: { 200: { body: { forMs: 4000 } }, 400: { body: {} } },
  getFleetView: { 200: { path: '/v1/fleet/view?host=host1' }, 400: { path: '/v1/fleet/view?host=' } },
  getPolicy: { 200: {} },
  patchPolicy: {
    200: { body: { dryRun: true } },
    400: { body: {} },
    409: { body: { dryRun: true }, given: withoutPolicy },
  },
  postPolicyReload: { 200: {}, 409: { given: withoutPolicy } },
  postReservation: {
    200: { body: { name: 'vm9', bytes: GIB } },
    400: { body: { name: 'vm9' } },
    409: { body: { name: 'vm9', bytes: GIB }, given: withoutPolicy },
  },
  deleteReservation: {
    200: { path: '/v1/policy/reservations?name=vm9' },
    409: { path: '/v1/policy/reservations?name=vm8' },
  },
  getGuestPolicy: { 200: {}, 409: { given: withoutPolicy } },
  patchGuestPolicy: {
    200: { body: { minBytes: GIB, maxBytes: null, shares: 2000, mode: 'auto' } },
    400: { body: { shares: 0 } },
    409: { body: { mode: 'off' }, given: withoutPolicy },
  },
  postPolicyResume: { 200: {}, 409: { given: withoutPolicy } },
  getPolicyHistory: { 200: {}, 409: { given: withoutPolicy } },
  getEvents: {
    200: { enough: text => text.endsWith('\n\n') },
    400: { path: '/v1/events?types=weather' },
    500: { options: { events: new BrokenLog() } },
    503: {
      given: served => Promise.all(Array.from({ length: STREAMS_MAX }, () => served.holdOpen('/v1/events'))),
    },
  },
  getMetrics: { 200: {} },
  getDocument: { 200: {} },
};

/** Refusals that every operation which declares them is made to give in the same way, from a call that succeeds. */
const REFUSALS: Readonly<Record<number, (call: Call, operation: Operation) => Call>> = {
  400: (call, { path }) => ({
    ...call,
    path: path.includes('{name}') ? path.replace('{name}', 'x'.repeat(65)) : `${path}?strange=1`,
  }),
  // Were anything asked of the daemon, it would fail, and the status be another.
  401: call => ({ ...call, headers: { Authorization: undefined }, given: fail(new Error('asked')) }),
  403: call => ({ ...call, headers: { Origin: 'http://evil.example' }, given: fail(new Error('asked')) }),
  421: call => ({ ...call, headers: { Host: 'evil.example' }, given: fail(new Error('asked')) }),
  404: (call, { path }) => ({ ...call, path: path.replace('{name}', 'vm9') }),
  413: call => ({ ...call, body: ' '.repeat(BODY_BYTES_MAX + 1) }),
  415: call => ({ ...call, headers: { 'Content-Type': 'text/plain' } }),
  500: call => ({ ...call, given: fail(new TypeError(SECRET)) }),
  502: call => ({ ...call, given: fail(new UnreachableError('the daemon of vm1 is gone')) }),
  504: call => ({
    ...call,
    given: ({ control }) => {
      control.stall = new Promise(() => {});
    },
    options: { requestMsMax: 20 },
  }),
};

const callFor = (operation: Operation, status: number): Call | undefined => {
  const own = CASES[operation.id];
  return own?.[status] ?? (own === undefined ? undefined : REFUSALS[status]?.(own[200], operation));
};

const bodySchemaOf = ({ id, described }: Operation) =>
  described.requestBody?.content['application/json'].schema ?? expect.fail(`${id} takes no body`);

const ofVm1 = (path: string) => path.replace('{name}', 'vm1');

// The document is read before anything runs, for it says which tests there are.
const document = await (async (): Promise<ApiDocument> => {
  const served = await Served.open();
  const { text } = await served.ask({ method: 'GET', path: '/v1/openapi.json' });
  await served.close();
  return JSON.parse(text);
})();
const operations = operationsOf(document);
const find = (id: string): Operation =>
  operations.find(operation => operation.id === id) ?? expect.fail(`there is no operation ${id}`);

/** That the answer is one that the document declares, and has the shape that it says. Returns its status. */
function expectDeclared({ id, described }: Operation, { status, headers, text }: Answer): number {
  const declared = described.responses[status];
  expect(declared, `${id} answers with ${status}, which is not declared: ${text}`).toBeDefined();
  expect(headers).toMatchObject({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
  if (declared.content === undefined) {
    expect(text).toBe('');
    return status;
  }
  const type = headers['content-type']?.replace(/;.*/, '') ?? 'none';
  expect(Object.keys(declared.content), `${id} ${status}`).toEqual([type]);
  const value = /json$/.test(type) ? JSON.parse(text) : text;
  const { error } = schemaOf(document, declared.content[type].schema).safeParse(value);
  expect(error?.issues, `${id} ${status}: ${text}`).toBeUndefined();
  if (type === PROBLEM_TYPE)
    expect(value).toMatchObject({ status, code: expect.stringMatching(/^AEROSTAT_/) });
  return status;
}

describe('the document', () => {
  test('has a case here for every operation, and no case is left over', () => {
    expect(operations.map(({ id }) => id).sort()).toEqual(Object.keys(CASES).sort());
  });

  test('says that TCP asks for a token, and a Unix socket for nothing', () => {
    expect(document.components.securitySchemes).toEqual({ token: { type: 'http', scheme: 'bearer' } });
    expect(document.security).toEqual([{}, { token: [] }]);
  });

  test('knows null as something beside a named thing, never as that thing', () => {
    const nullable = Object.entries(document.components.schemas).filter(([, { type }]) =>
      [type].flat().includes('null'),
    );
    expect(nullable.map(([name]) => name)).toEqual([]);
  });

  test.each(operations.map(operation => [`${operation.method} ${operation.path}`, operation] as const))(
    '%s answers in other ways than it lists with nothing',
    async (_, { path }) => {
      const served = await Served.open();
      const known = Object.keys(document.paths[path]).map(method => method.toUpperCase());
      try {
        for (const method of ['GET', 'PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS']) {
          if (known.includes(method)) continue;
          const { status, headers } = await served.ask({ method, path: ofVm1(path) });
          expect([method, status]).toEqual([method, 405]);
          expect(headers.allow?.split(', ').filter(one => one !== 'HEAD')).toEqual(known);
        }
      } finally {
        await served.close();
      }
    },
  );
});

describe.each(operations.map(operation => [`${operation.method} ${operation.path}`, operation] as const))(
  '%s',
  (_, operation) => {
    const declared = Object.entries(operation.described.responses);
    test.each(declared.map(([status, { description }]) => [Number(status), description] as const))(
      '%i: %s',
      async status => {
        const call = callFor(operation, status);
        if (call === undefined) expect.fail(`nothing here makes ${operation.id} answer with ${status}`);
        const { given, options, headersFrom, path = ofVm1(operation.path), ...asked } = call;
        const served = await Served.open(options);
        try {
          await given?.(served);
          const calls = served.control.calls.length;
          const headers = { ...asked.headers, ...(await headersFrom?.(served)) };
          const answer = await served.ask({ ...asked, headers, method: operation.method, path });
          expect(expectDeclared(operation, answer)).toBe(status);
          expect(answer.text).not.toContain(SECRET);
          if ([400, 401, 403, 413, 415, 421].includes(status) && call.given === undefined) {
            expect(served.control.calls.slice(calls)).toEqual([]);
          }
        } finally {
          await served.close();
        }
      },
    );
  },
);

describe('whatever is said', () => {
  let served: Served;

  beforeAll(async () => {
    served = await Served.open();
  });

  afterAll(() => served.close());

  const declared = Object.entries(CASES).map(([id, calls]) => [id, calls[200]] as const);

  /** A body of the operation's own fields and of others, with values that fit, nearly fit, or do not. */
  function bodiesOf(id: string): fc.Arbitrary<unknown> {
    const value = fc.oneof(
      fc.constantFrom<unknown>(
        null,
        true,
        0,
        1,
        -1,
        0.5,
        4096,
        65,
        3_600_001,
        2 ** 44,
        2 ** 60,
        '',
        'x'.repeat(513),
      ),
      fc.constantFrom('start', 'stop', 'done', 'none', 'auto', 'per-page', 'shrink', 'drop-cache', 'tcp:a:1'),
      fc.nat(4).map(pages => pages * 4096),
      fc.jsonValue(),
    );
    const { $ref } = bodySchemaOf(find(id));
    const { properties } = document.components.schemas[String($ref).split('/').at(-1) ?? ''];
    const known = fc.record(
      Object.fromEntries(Object.keys(properties as object).map(name => [name, value])),
      { requiredKeys: [] },
    );
    return fc.oneof(
      known,
      fc.tuple(known, fc.dictionary(fc.string(), value)).map(two => Object.assign(...two)),
      value,
    );
  }

  test('a migration needs a destination, and nothing besides', () => {
    const { MigrationOrder, GuestPatch } = document.components.schemas as Record<
      string,
      { required?: string[] }
    >;
    expect(MigrationOrder.required).toEqual(['to']);
    expect(GuestPatch.required).toBeUndefined();
  });

  test.each(operations.filter(({ described }) => described.requestBody !== undefined).map(({ id }) => id))(
    'a body is taken by %s exactly if the document describes it',
    async id => {
      const operation = find(id);
      const described = schemaOf(document, bodySchemaOf(operation));
      await fc.assert(
        fc.asyncProperty(bodiesOf(id), async body => {
          served.control.moving.clear();
          const text = JSON.stringify(body);
          fc.pre(text.length < BODY_BYTES_MAX / 4);
          const answer = await served.ask({
            method: operation.method,
            path: ofVm1(operation.path),
            body: text,
          });
          const taken = expectDeclared(operation, answer) !== 400;
          expect(taken, answer.text).toBe(described.safeParse(JSON.parse(text)).success);
        }),
        { numRuns: 150 },
      );
    },
  );

  const queried = operations.flatMap(({ id, described }) =>
    (described.parameters ?? [])
      .filter(({ schema, ...parameter }) => parameter.in === 'query' && schema.type === 'integer')
      .map(({ name }) => [name, id] as const),
  );
  test.each(queried)('%s of %s may be what the document says, and nothing else', async (name, id) => {
    const operation = find(id);
    const { schema } = operation.described.parameters?.find(one => one.name === name) ?? expect.fail();
    const described = schemaOf(document, schema);
    const number = fc.oneof(
      fc.integer(),
      fc.maxSafeInteger(),
      fc.integer({ min: -2, max: 40_000 }),
      fc.double(),
    );
    await fc.assert(
      fc.asyncProperty(number.filter(Number.isFinite), async value => {
        const path = `${ofVm1(operation.path)}?${name}=${encodeURIComponent(value)}`;
        const taken = expectDeclared(operation, await served.ask({ method: 'GET', path })) !== 400;
        expect(taken, path).toBe(described.safeParse(value).success && /^\d+$/.test(String(value)));
      }),
      { numRuns: 100 },
    );
  });

  test.each(declared)('%s answers with what it declares', async (id, { body, enough }) => {
    const operation = find(id);
    const headers = fc.record(
      {
        'Content-Type': fc.constantFrom(
          'application/json',
          'application/json; charset=x',
          'text/html',
          '',
          '/',
        ),
        Accept: fc.constantFrom('text/html', 'application/xml', '*/*', ''),
        'If-None-Match': fc.constantFrom('*', 'W/"x"', '"'),
        'Last-Event-ID': fc.constantFrom('0', 'ffffffff-999999999999999', '-', 'x'.repeat(100)),
        Origin: fc.constantFrom('', 'null', `http://127.0.0.1:${served.port}`),
        Authorization: fc.constantFrom('', 'Bearer', 'Bearer x', 'Basic eDp5'),
      },
      { requiredKeys: [] },
    );
    const garbage = fc.oneof(
      fc.constant(body),
      fc.constantFrom(undefined, '', '{', 'null', '[]', '"\\ud800"', '{"__proto__":1}', ' '.repeat(5000)),
    );
    const name = fc.oneof(
      fc.constantFrom('vm1', 'vm2', '__proto__', 'x'.repeat(65)),
      fc.string({ minLength: 1, unit: 'binary' }),
    );
    const query = fc.oneof(
      fc.constant(''),
      fc.webQueryParameters().map(text => `?${text}`),
    );
    await fc.assert(
      fc.asyncProperty(headers, garbage, name, query, async (headers, body, name, query) => {
        // Two names are not names but places in a path.
        fc.pre(!/^\.\.?$/.test(name));
        const path = operation.path.replace('{name}', encodeURIComponent(name)) + query;
        const asked = {
          method: operation.method,
          path,
          headers,
          ...(enough === undefined ? {} : { enough }),
        };
        expectDeclared(operation, await served.ask(operation.method === 'GET' ? asked : { ...asked, body }));
      }),
      { numRuns: 50 },
    );
  });

  const failures = [
    new QmpConnectionError('QEMU is gone'),
    new QmpError('balloon', 'GenericError', 'no'),
    new QmpAnswerError('balloon', 'it is a number'),
    new QmpTimeoutError('balloon', 100),
  ];
  test.each(declared)('%s tells the failures of others as it declares', async (id, { body, enough }) => {
    const operation = find(id);
    const more = '409' in operation.described.responses ? [new VmError('vm1 is gone')] : [];
    try {
      for (const failure of [...failures, ...more]) {
        served.control.failure = failure;
        const { method, path } = operation;
        expectDeclared(
          operation,
          await served.ask({ method, path: ofVm1(path), body, ...(enough && { enough }) }),
        );
      }
    } finally {
      served.control.failure = undefined;
    }
  });
});

describe('HEAD', () => {
  const readable = operations.filter(({ method }) => method === 'GET');

  test.each(readable.map(({ id }) => id))('says what GET would for %s, without the body', async id => {
    const { path } = find(id);
    const served = await Served.open();
    try {
      const { status, headers, text } = await served.ask({ method: 'HEAD', path: ofVm1(path) });
      expect([status, text]).toEqual([200, '']);
      expect(Object.keys(find(id).described.responses[200].content ?? {})).toEqual([
        headers['content-type']?.replace(/;.*/, ''),
      ]);
    } finally {
      await served.close();
    }
  });

  test('takes no stream of events away from other clients', async () => {
    const served = await Served.open();
    try {
      for (let asked = 0; asked <= STREAMS_MAX; asked++) {
        await served.ask({ method: 'HEAD', path: '/v1/events' });
      }
      await served.holdOpen('/v1/events');
    } finally {
      await served.close();
    }
  });
});

describe('an event', () => {
  test('is what the document calls a GuestEvent', async () => {
    const served = await Served.open();
    try {
      const stream = served.ask({
        method: 'GET',
        path: '/v1/events',
        enough: text => text.includes('event: target\n') && text.endsWith('\n\n'),
      });
      await expect.poll(() => served.control.listeners.size).toBe(1);
      const told = setInterval(
        () => served.control.emit({ type: 'target', detail: { targetBytes: GIB } }),
        5,
      );
      const { text } = await stream;
      clearInterval(told);
      const data = /^event: target\ndata: (.*)$/m.exec(text)?.[1] ?? /^data: (\{"guest.*)$/m.exec(text)?.[1];
      const described = schemaOf(document, { $ref: '#/components/schemas/GuestEvent' });
      expect(described.safeParse(JSON.parse(data ?? 'null')).error).toBeUndefined();
    } finally {
      await served.close();
    }
  });
});
