import { describe, expect, test, vi } from 'vitest';
import { type ApiOptions, BODY_BYTES_MAX, createApi } from '../../src/server/api.ts';
import { GuestListSchema, GuestStatusSchema, MemoryMapSchema } from '../../src/server/schemas/answers.ts';
import { FakeControl, GIB, guestStatus } from './fake-control.ts';

function api(
  options: Partial<ApiOptions> = {},
  control = new FakeControl(guestStatus('vm1'), guestStatus('vm2')),
) {
  const { app, close } = createApi(control, { version: '0.1.0', ...options });
  const send = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) =>
    app.request(path, {
      method,
      headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
  return { app, control, close, send, get: (path: string) => send('GET', path) };
}

// biome-ignore lint/suspicious/noExplicitAny: what came over the wire is asserted, not assumed
const jsonOf = (response: Response): Promise<any> => response.json();

async function expectProblem(response: Response, status: number, code: string, detail?: RegExp) {
  expect(response.status).toBe(status);
  expect(response.headers.get('content-type')).toBe('application/problem+json');
  const problem = await jsonOf(response);
  expect(problem).toMatchObject({
    status,
    code,
    type: expect.stringMatching(/^urn:aerostat:problem:[a-z-]+$/),
  });
  if (detail !== undefined) expect(problem.detail).toMatch(detail);
  return problem;
}

describe('reading', () => {
  test('the daemon says how it is', async () => {
    const response = await api().get('/v1/daemon');
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ version: '0.1.0', pid: 4242, gcPauseMaxMs: 1.5 });
  });

  test('all guests come as an object with one list', async () => {
    const answer = await jsonOf(await api().get('/v1/guests'));
    expect(Object.keys(answer)).toEqual(['guests']);
    expect(GuestListSchema.parse(answer).guests.map(({ name }) => name)).toEqual(['vm1', 'vm2']);
  });

  test('one guest comes as its status, every field of it', async () => {
    const answer = await (await api().get('/v1/guests/vm1')).json();
    expect(GuestStatusSchema.strict().parse(answer)).toEqual(guestStatus('vm1'));
  });

  test('answers are never stored, and are what their type says', async () => {
    const { headers } = await api().get('/v1/guests');
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
  });

  test('statistics are the newest, and the guest is not asked', async () => {
    const { get, control } = api();
    expect(await (await get('/v1/guests/vm1/statistics')).json()).toMatchObject({ ageMs: 1500 });
    expect(control.calls).toEqual([['statistics', 'vm1', {}]]);
  });

  test('fresh statistics pass on how fresh and how long to wait', async () => {
    const { get, control } = api();
    await get('/v1/guests/vm1/statistics?fresh_ms=100&timeout_ms=700');
    await get('/v1/guests/vm1/statistics?fresh_ms=0');
    expect(control.calls).toEqual([
      ['statistics', 'vm1', { freshMs: 100, timeoutMs: 700 }],
      ['statistics', 'vm1', { freshMs: 0 }],
    ]);
  });

  test.each(['', '1e3', '-1', '1.5', ' 1', '30001', '999999999999'])(
    'a timeout of "%s" is refused',
    async timeout => {
      const response = await api().get(`/v1/guests/vm1/statistics?timeout_ms=${encodeURIComponent(timeout)}`);
      const { errors } = await expectProblem(response, 400, 'AEROSTAT_BAD_REQUEST');
      expect(errors[0].path).toBe('timeout_ms');
    },
  );

  test('a query parameter that is not known is refused, and not ignored', async () => {
    const { get, send, control } = api();
    for (const [path, detail] of [
      ['/v1/guests?guest=vm1', /unknown query parameter "guest"; this takes no parameters/],
      ['/v1/guests/vm1/statistics?fresh=100', /"fresh"; this takes fresh_ms, timeout_ms/],
      ['/v1/guests/vm1/map?from=0&cell=2', /"cell"; this takes from, bytes, cells/],
      ['/v1/events?type=target', /"type"; this takes guest, types/],
      ['/metrics?name=x', /"name"/],
      ['/v1/openapi.json?pretty', /"pretty"/],
    ] as const) {
      const { errors } = await expectProblem(await get(path), 400, 'AEROSTAT_BAD_REQUEST', detail);
      expect(errors).toHaveLength(1);
    }
    const patched = await send('PATCH', '/v1/guests/vm1?wait=1', { targetBytes: GIB });
    await expectProblem(patched, 400, 'AEROSTAT_BAD_REQUEST', /"wait"/);
    expect(control.calls).toEqual([]);
  });

  test('a guest without a statistics queue is a conflict, not a failure', async () => {
    const { get, control } = api();
    control.sample = null;
    await expectProblem(
      await get('/v1/guests/vm1/statistics'),
      409,
      'AEROSTAT_GUEST_STATE',
      /no statistics queue/,
    );
  });

  test('the host says how it is', async () => {
    expect(await (await api().get('/v1/host')).json()).toMatchObject({
      totalBytes: 64 * GIB,
      pressure: { some10Percent: 0.5 },
    });
  });

  test('statistics of all guests come by name', async () => {
    const { samples } = await jsonOf(await api().get('/v1/statistics'));
    expect(Object.keys(samples)).toEqual(['vm1', 'vm2']);
    expect(samples.vm1).toMatchObject({ ageMs: 1500, statistics: { freeBytes: 3 * GIB } });
  });

  test('a map passes on what part of memory, and in how many cells', async () => {
    const { get, control } = api();
    expect(MemoryMapSchema.strict().parse(await jsonOf(await get('/v1/guests/vm1/map')))).toEqual(
      control.memoryMap,
    );
    await get('/v1/guests/vm1/map?from=4096&bytes=8192&cells=2');
    expect(control.calls).toEqual([
      ['map', 'vm1', {}],
      ['map', 'vm1', { fromBytes: 4096, bytes: 8192, cells: 2 }],
    ]);
  });

  test.each(['cells=0', 'cells=4097', 'cells=x', 'bytes=0', 'from=-1', 'from=1e3', 'from=9007199254740992'])(
    'a map with %s is refused',
    async query => {
      await expectProblem(await api().get(`/v1/guests/vm1/map?${query}`), 400, 'AEROSTAT_BAD_REQUEST');
    },
  );

  test('a map that did not change but for its age is not sent again', async () => {
    const { send, get, control } = api();
    const tag = (await get('/v1/guests/vm1/map')).headers.get('etag') ?? '';
    control.memoryMap = { ...control.memoryMap, residentAgeMs: 1 };
    const same = await send('GET', '/v1/guests/vm1/map', undefined, { 'If-None-Match': tag });
    expect([same.status, await same.text()]).toEqual([304, '']);
    control.memoryMap = { ...control.memoryMap, totals: { ...control.memoryMap.totals, pending: 4096 } };
    expect((await send('GET', '/v1/guests/vm1/map', undefined, { 'If-None-Match': tag })).status).toBe(200);
  });

  test('a map of a guest that is not connected is a conflict', async () => {
    const { get, control } = api();
    control.alter('vm1', { connected: false });
    await expectProblem(await get('/v1/guests/vm1/map'), 409, 'AEROSTAT_GUEST_STATE');
  });

  test('the hint session is part of the guest', async () => {
    expect(await (await api().get('/v1/guests/vm1/hint')).json()).toMatchObject({ state: 'idle' });
  });
});

describe('steering', () => {
  test('a target is set and the new status answered', async () => {
    const { send, control } = api();
    const response = await send('PATCH', '/v1/guests/vm1', { targetBytes: GIB });
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ targetBytes: GIB, actualBytes: GIB });
    expect(control.calls).toEqual([['change', 'vm1', { targetBytes: GIB }]]);
  });

  test('several things change in one step, whose outcome is the answer', async () => {
    const { send, control } = api();
    const changes = { targetBytes: GIB, discard: 'before-ack', pollIntervalMs: 0 };
    const response = await send('PATCH', '/v1/guests/vm1', changes);
    expect(control.calls).toEqual([['change', 'vm1', changes]]);
    expect(await response.json()).toMatchObject({ targetBytes: GIB, discard: 'before-ack' });
  });

  test.each([
    [{}, /at least one/],
    [{ targetBytes: 1 }, /targetBytes/],
    [{ targetBytes: -4096 }, /targetBytes/],
    [{ memoryBytes: -1 }, /memoryBytes/],
    [{ targetBytes: '1G' }, /targetBytes/],
    [{ targetBytes: 2 ** 44 }, /targetBytes/],
    [{ discard: 'later' }, /discard/],
    [{ pollIntervalMs: 1.5 }, /pollIntervalMs/],
    [{ target: 4096 }, /target/],
    ['{"targetBytes":', /JSON/],
    ['null', /expected object/],
  ])('a patch of %j is refused and changes nothing', async (patch, why) => {
    const { send, control } = api();
    await expectProblem(await send('PATCH', '/v1/guests/vm1', patch), 400, 'AEROSTAT_BAD_REQUEST', why);
    expect(control.calls).toEqual([]);
  });

  test('a patch without a body is refused', async () => {
    const { send } = api();
    await expectProblem(await send('PATCH', '/v1/guests/vm1'), 400, 'AEROSTAT_BAD_REQUEST');
  });

  test.each(['start', 'stop', 'done'])('a hint session can %s', async action => {
    const { send, control } = api();
    const response = await send('POST', '/v1/guests/vm1/hint', { action });
    expect(await response.json()).toMatchObject({ commandId: 0x8000_0000 });
    expect(control.calls).toEqual([['hint', 'vm1', { action }]]);
  });

  test('a hint without a known action is refused', async () => {
    await expectProblem(
      await api().send('POST', '/v1/guests/vm1/hint', { action: 'pause' }),
      400,
      'AEROSTAT_BAD_REQUEST',
      /action/,
    );
  });

  test('a hint that the guest did not negotiate is a conflict', async () => {
    const { send, control } = api();
    control.alter('vm1', {
      hint: {
        state: 'unsupported',
        commandId: null,
        hintedBytes: 0,
        ranges: 0,
        heldBytes: 0,
        endsInMs: null,
      },
    });
    await expectProblem(
      await send('POST', '/v1/guests/vm1/hint', { action: 'start' }),
      409,
      'AEROSTAT_GUEST_STATE',
    );
  });
});

describe('requests', () => {
  test('are passed on, and answered when the guest has', async () => {
    const { send, control } = api();
    control.alter('vm1', { profile: 'page-chunks' });
    const response = await send('POST', '/v1/guests/vm1/request', { request: 'shrink', timeoutMs: 100 });
    expect(await response.json()).toEqual({
      request: 'shrink',
      unusedBytes: 2 * GIB,
      lists: 3,
      elapsedMs: 4.5,
    });
    expect(control.calls).toEqual([['request', 'vm1', { request: 'shrink', timeoutMs: 100 }]]);
  });

  test('of unknown kinds, or that would wait forever, are refused', async () => {
    for (const body of [{ request: 'reboot' }, { request: 'shrink', timeoutMs: 1e9 }]) {
      const response = await api().send('POST', '/v1/guests/vm1/request', body);
      await expectProblem(response, 400, 'AEROSTAT_BAD_REQUEST');
    }
  });

  test('to a guest whose ABI has none are a conflict', async () => {
    const response = await api().send('POST', '/v1/guests/vm1/request', { request: 'drop-cache' });
    await expectProblem(response, 409, 'AEROSTAT_GUEST_STATE', /no requests/);
  });
});

describe('migrations', () => {
  test('are begun, looked at, and given up', async () => {
    const { get, send } = api();
    expect(await jsonOf(await get('/v1/guests/vm1/migration'))).toEqual({
      migration: null,
      obstacle: null,
      dirtyBytesPerSecond: null,
    });
    const order = { to: 'tcp:host2:4444', connections: 4, downtimeMsMax: 50, autoConverge: true };
    expect(await jsonOf(await send('POST', '/v1/guests/vm1/migration', order))).toMatchObject({
      to: 'tcp:host2:4444',
      state: { status: 'copying', round: 2 },
      report: null,
    });
    await expectProblem(await send('POST', '/v1/guests/vm1/migration', order), 409, 'AEROSTAT_GUEST_STATE');
    expect(await jsonOf(await send('DELETE', '/v1/guests/vm1/migration'))).toMatchObject({
      migration: null,
    });
    await expectProblem(await send('DELETE', '/v1/guests/vm1/migration'), 409, 'AEROSTAT_GUEST_STATE');
  });

  test('that cannot be are known beforehand, with the reason', async () => {
    const { control, get } = api();
    control.obstacle = 'vm1 is moved by its own hypervisor';
    expect(await jsonOf(await get('/v1/guests/vm1/migration'))).toEqual({
      migration: null,
      obstacle: 'vm1 is moved by its own hypervisor',
      dirtyBytesPerSecond: null,
    });
  });

  test('that make no sense are refused, and of unknown guests', async () => {
    const { get, send } = api();
    for (const order of [{}, { to: '' }, { to: 'tcp:a:1', connections: 0 }, { to: 'tcp:a:1', speed: 3 }]) {
      const response = await send('POST', '/v1/guests/vm1/migration', order);
      await expectProblem(response, 400, 'AEROSTAT_BAD_REQUEST');
    }
    await expectProblem(await get('/v1/guests/vm9/migration'), 404, 'AEROSTAT_UNKNOWN_GUEST');
    await expectProblem(await send('DELETE', '/v1/guests/vm9/migration'), 404, 'AEROSTAT_UNKNOWN_GUEST');
  });
});

describe('refusals', () => {
  test.each([
    ['GET', '/v1/guests/vm9'],
    ['GET', '/v1/guests/vm9/statistics'],
    ['GET', '/v1/guests/vm9/hint'],
    ['GET', '/v1/guests/vm9/map'],
    ['PATCH', '/v1/guests/vm9'],
    ['POST', '/v1/guests/vm9/hint'],
  ])('%s %s names an unknown guest', async (method, path) => {
    const body = { PATCH: { targetBytes: 0 }, POST: { action: 'start' }, GET: undefined }[method];
    await expectProblem(
      await api().send(method, path, body),
      404,
      'AEROSTAT_UNKNOWN_GUEST',
      /known: vm1, vm2/,
    );
  });

  test('a path that is none is not found', async () => {
    await expectProblem(await api().get('/v1/guest'), 404, 'AEROSTAT_NOT_FOUND', /openapi/);
  });

  test('a method that a path has not is answered with those that it has', async () => {
    const response = await api().send('DELETE', '/v1/guests/vm1');
    expect(response.headers.get('allow')).toBe('GET, HEAD, PATCH');
    await expectProblem(response, 405, 'AEROSTAT_METHOD', /GET, HEAD, PATCH/);
  });

  test('a body that is no JSON by its type is refused', async () => {
    const response = await api().send('PATCH', '/v1/guests/vm1', '{"targetBytes":0}', {
      'Content-Type': 'text/plain',
    });
    await expectProblem(response, 415, 'AEROSTAT_MEDIA_TYPE', /as application\/json/);
  });

  test('a body above the limit is refused before it is read as JSON', async () => {
    const response = await api().send('PATCH', '/v1/guests/vm1', ' '.repeat(BODY_BYTES_MAX + 1));
    await expectProblem(response, 413, 'AEROSTAT_TOO_LARGE', /4096 bytes/);
  });

  test('a daemon that does not answer is given up', async () => {
    const { get, control } = api({ requestMsMax: 20 });
    control.stall = new Promise(() => {});
    await expectProblem(await get('/v1/guests'), 504, 'AEROSTAT_TIMEOUT');
  });

  test('a failure of ours is told to the log, and a stranger learns only that there was one', async () => {
    const seen: string[] = [];
    const { get, control } = api({ onError: (error, request) => seen.push(`${request}: ${error.message}`) });
    control.failure = new TypeError('secret is undefined');
    const problem = await expectProblem(await get('/v1/guests'), 500, 'AEROSTAT_INTERNAL');
    expect(JSON.stringify(problem)).not.toContain('secret');
    expect(seen).toEqual(['GET /v1/guests: secret is undefined']);
  });
});

describe('the document', () => {
  test('is built once, however often it is asked for', async () => {
    const { app } = createApi(new FakeControl(), { version: '0' });
    const build = vi.spyOn(app, 'getOpenAPI31Document');
    const [first, second] = [await app.request('/v1/openapi.json'), await app.request('/v1/openapi.json')];
    expect(await first.text()).toBe(await second.text());
    expect(build).toHaveBeenCalledTimes(1);
  });

  test('names every route and every refusal, from the schemas that validate', async () => {
    const document = await jsonOf(await api().get('/v1/openapi.json'));
    expect(document.openapi).toBe('3.1.0');
    expect(Object.keys(document.paths)).toEqual([
      '/v1/daemon',
      '/v1/host',
      '/v1/upgrade',
      '/v1/guests',
      '/v1/guests/{name}',
      '/v1/guests/{name}/statistics',
      '/v1/statistics',
      '/v1/guests/{name}/map',
      '/v1/guests/{name}/hint',
      '/v1/guests/{name}/request',
      '/v1/guests/{name}/migration',
      '/v1/leases',
      '/v1/fleet/view',
      '/v1/policy',
      '/v1/policy/reload',
      '/v1/policy/reservations',
      '/v1/guests/{name}/policy',
      '/v1/guests/{name}/policy/resume',
      '/v1/guests/{name}/policy/history',
      '/healthz',
      '/v1/events',
      '/metrics',
      '/v1/openapi.json',
    ]);
    const patch = document.paths['/v1/guests/{name}'].patch;
    expect(Object.keys(patch.responses)).toEqual([
      '200',
      '400',
      '401',
      '403',
      '404',
      '409',
      '413',
      '415',
      '421',
      '500',
      '502',
      '504',
    ]);
    expect(document.components.schemas.GuestPatch.properties.targetBytes).toMatchObject({ multipleOf: 4096 });
    expect([...document.components.schemas.GuestStatus.required].sort()).toEqual(
      Object.keys(guestStatus('vm1')).sort(),
    );
  });
});
