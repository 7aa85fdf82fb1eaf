import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { request as httpRequest } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { formatAddress, parseAddress, policySocket, resolveAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import { type ApiServer, type ServeOptions, serveApi } from '../../src/server/listen.ts';
import { fullToken } from '../../src/server/token.ts';
import { FakeControl, guestStatus } from './fake-control.ts';

const TOKEN = '0123456789abcdef';
let directory: string;
let servers: ApiServer[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  servers = [];
});

afterEach(async () => {
  await Promise.all(servers.map(server => server.close()));
  rmSync(directory, { recursive: true });
});

async function serve(address: string, options: Partial<ServeOptions> = {}): Promise<ApiServer> {
  const control = new FakeControl(guestStatus('vm1'));
  const server = await serveApi(control, { version: '0', address: parseAddress(address), ...options });
  servers.push(server);
  return server;
}

function statusOf(options: object): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    httpRequest({ path: '/v1/guests', ...options }, response => {
      response.resume();
      resolve(response.statusCode);
    })
      .once('error', reject)
      .end();
  });
}

/** A socket file without a listener: what a killed daemon leaves behind. */
function leaveStaleSocket(path: string): void {
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
  expect(lstatSync(path).isSocket()).toBe(true);
}

describe('on a Unix socket', () => {
  test('only the owner can open it, from the moment that it is there', async () => {
    const path = join(directory, 'api.sock');
    const before = process.umask(0);
    try {
      const control = new FakeControl();
      const served = serveApi(control, { version: '0', address: parseAddress(path) });
      // No later than it exists, however early one looks.
      while (!existsSync(path)) await new Promise(resolve => setImmediate(resolve));
      expect(statSync(path).mode & 0o777).toBe(0o600);
      servers.push(await served);
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect(process.umask()).toBe(0);
    } finally {
      process.umask(before);
    }
  });

  test('it answers without a token', async () => {
    const path = join(directory, 'api.sock');
    await serve(path);
    expect(await statusOf({ socketPath: path })).toBe(200);
  });

  test.each(['POST', 'PATCH', 'DELETE'])(
    '%s without a body, or with one in chunks, is judged by what it says',
    async method => {
      const path = join(directory, 'api.sock');
      await serve(path);
      const at =
        method === 'PATCH' ? '/v1/guests/vm1' : `/v1/guests/vm1/${method === 'POST' ? 'hint' : 'migration'}`;
      const send = (headers: Record<string, string>, body: string) =>
        new Promise<number | undefined>((resolve, reject) => {
          const request = httpRequest({ socketPath: path, path: at, method, headers }, response => {
            response.resume();
            resolve(response.statusCode);
          });
          request.once('error', reject).end(body);
        });
      const chunked = { 'Transfer-Encoding': 'chunked', 'Content-Type': 'application/json' };
      const [nothing, sense] = method === 'DELETE' ? [409, 409] : [400, 200];
      expect(await send({}, '')).toBe(nothing);
      expect(await send(chunked, method === 'PATCH' ? '{"discard":"after-ack"}' : '{"action":"start"}')).toBe(
        sense,
      );
      expect(await send(chunked, ' '.repeat(10_000))).toBe(413);
    },
  );

  test('a directory that is missing is made, for its owner alone', async () => {
    await serve(join(directory, 'a', 'b', 'api.sock'));
    expect(statSync(join(directory, 'a', 'b')).mode & 0o777).toBe(0o700);
  });

  test('a stale socket is replaced', async () => {
    const path = join(directory, 'api.sock');
    leaveStaleSocket(path);
    await serve(path);
    expect(await statusOf({ socketPath: path })).toBe(200);
  });

  test('the socket of a living daemon is refused, and goes on working', async () => {
    const path = join(directory, 'api.sock');
    await serve(path);
    await expect(serve(path)).rejects.toMatchObject({
      code: 'AEROSTAT_API_IN_USE',
      message: expect.stringMatching(/another daemon listens there.*--api/),
    });
    expect(await statusOf({ socketPath: path })).toBe(200);
  });

  test('a file that is no socket is left alone', async () => {
    const path = join(directory, 'notes');
    writeFileSync(path, 'precious');
    await expect(serve(path)).rejects.toMatchObject({ code: 'AEROSTAT_API_LISTEN' });
    expect(statSync(path).size).toBe(8);
  });

  test('a directory that others may write is refused', async () => {
    const shared = join(directory, 'shared');
    mkdirSync(shared);
    chmodSync(shared, 0o777);
    await expect(serve(join(shared, 'api.sock'))).rejects.toThrow(/others may write/);
  });

  test('closing ends open connections and takes the socket away', async () => {
    const path = join(directory, 'api.sock');
    const server = await serve(path);
    const lingering = connect(path);
    await new Promise(resolve => lingering.once('connect', resolve));
    const ended = new Promise(resolve => lingering.once('close', resolve));
    await server.close();
    await ended;
    expect(existsSync(path)).toBe(false);
  });
});

/** What the server says to a client that sends `text`, and then all that `more` yields, until it hangs up. */
async function answerTo(
  socket: Socket,
  text: string,
  more: (socket: Socket) => AsyncGenerator<string>,
): Promise<string> {
  let answer = '';
  const closed = new Promise<void>(resolve => socket.once('close', () => resolve()));
  socket.on('error', () => {});
  socket.setEncoding('utf8').on('data', piece => {
    answer += piece;
  });
  socket.write(text);
  for await (const piece of more(socket)) {
    if (socket.destroyed) break;
    if (!socket.write(piece)) await Promise.race([once(socket, 'drain').catch(() => {}), closed]);
  }
  await closed;
  return answer;
}

const HEAD = 'Host: 127.0.0.1\r\nContent-Type: application/json';

describe('a client that takes too long', () => {
  async function answerToSlow(text: string, more: (socket: Socket) => AsyncGenerator<string>) {
    const path = join(directory, 'api.sock');
    await serve(path, { patience: { headersMs: 50, requestMs: 100, checkMs: 20 } });
    return answerTo(connect(path), text, more);
  }

  async function* nothing() {}
  /** A byte now and then: never silent, never done. */
  async function* drops(socket: Socket) {
    while (!socket.destroyed) {
      await setTimeout(5);
      yield 'x';
    }
  }

  // A client that writes on may learn that the server has stopped reading before it learns why.
  const ways = [
    [
      'says nothing more',
      nothing,
      /^HTTP\/1\.1 408 .*application\/problem\+json.*Connection: close.*AEROSTAT_REQUEST_TIMEOUT/s,
    ],
    ['goes on a byte at a time', drops, /^(HTTP\/1\.1 408 |$)/],
  ] as const;

  test.each(ways)('with its headers, and %s, is cut off', async (_, more, said) => {
    const answer = await answerToSlow(`GET /v1/guests HTTP/1.1\r\n${HEAD}\r\nX-Slow: `, more);
    expect(answer).toMatch(said);
  });

  test.each(ways)('with its body, and %s, is cut off', async (_, more, said) => {
    const request = `PATCH /v1/guests/vm1 HTTP/1.1\r\n${HEAD}\r\nContent-Length: 4000\r\n\r\n{`;
    expect(await answerToSlow(request, more)).toMatch(said);
  });
});

describe('a client that sends without end', () => {
  // So patient that only the answer can be what ends it.
  const patience = { headersMs: 3_600_000, requestMs: 3_600_000, checkMs: 3_600_000 };
  const piece = ' '.repeat(65_536);
  const endless = {
    'in chunks': { header: 'Transfer-Encoding: chunked', piece: `10000\r\n${piece}\r\n` },
    'as long as it says': { header: 'Content-Length: 1000000000000', piece },
  };

  const cases = ['GET', 'PATCH', 'DELETE'].flatMap(method =>
    Object.keys(endless).flatMap(way =>
      [true, false].map(known => [method, way as keyof typeof endless, known] as const),
    ),
  );
  test.each(cases)('after %s, %s, is answered and cut off (with a token: %s)', async (method, way, known) => {
    const { address } = await serve('127.0.0.1:0', { tokens: fullToken(TOKEN), patience });
    const { port } = address as { port: number };
    const { header, piece } = endless[way];
    const token = known ? `\r\nAuthorization: Bearer ${TOKEN}` : '';
    const path = method === 'DELETE' ? '/v1/guests/vm1/migration' : '/v1/guests/vm1';
    const answer = await answerTo(
      connect(port, '127.0.0.1'),
      `${method} ${path} HTTP/1.1\r\n${HEAD}${token}\r\n${header}\r\n\r\n`,
      async function* () {
        for (;;) yield piece;
      },
    );
    const status = !known ? 401 : method === 'GET' ? 200 : 413;
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    if (status === 413) expect(answer).toMatch(/\r\nconnection: close\r\n.*AEROSTAT_TOO_LARGE/is);
  });
});

describe('what is ordered', () => {
  test.each(['a Unix socket', 'TCP'])(
    'over %s is told with who ordered it, and what is only read is not',
    async place => {
      const orders: unknown[] = [];
      const onOrder = (order: unknown) => orders.push(order);
      const unix = place !== 'TCP';
      const { address } = unix
        ? await serve(join(directory, 'orders.sock'), { onOrder })
        : await serve('127.0.0.1:0', { tokens: fullToken(TOKEN), onOrder });
      const remote = remoteControl(address, unix ? {} : { token: TOKEN });
      await remote.guests();
      await remote.change('vm1', { targetBytes: 4096 });
      await remote.change('absent', { targetBytes: 4096 }).catch(() => {});
      const who = unix
        ? `user ${process.getuid?.()}, process ${process.pid} (aerostat)`
        : expect.stringMatching(/^127\.0\.0\.1:\d+ \(aerostat\)$/);
      expect(orders).toEqual([{ guest: 'vm1', kind: 'change', caller: who, detail: { targetBytes: 4096 } }]);
    },
  );
});

describe('on TCP', () => {
  test('it asks for the token', async () => {
    const { address } = await serve('127.0.0.1:0', { tokens: fullToken(TOKEN) });
    const { port } = address as { port: number };
    expect(port).toBeGreaterThan(0);
    const headers = { Authorization: `Bearer ${TOKEN}` };
    expect(await statusOf({ host: '127.0.0.1', port })).toBe(401);
    expect(await statusOf({ host: '127.0.0.1', port, headers })).toBe(200);
    expect(await statusOf({ host: '127.0.0.1', port, headers: { ...headers, Host: 'evil.example' } })).toBe(
      421,
    );
  });

  test('it is not served without a token, or with one that can be guessed', async () => {
    await expect(serve('127.0.0.1:0')).rejects.toThrow(/AEROSTAT_TOKEN/);
    await expect(serve('127.0.0.1:0', { tokens: fullToken('secret') })).rejects.toThrow(/openssl rand/);
  });

  test.each(['0.0.0.0:0', '192.0.2.1:80', '[::]:0', 'vmhost.example:80', '127.evil.example:80'])(
    '%s is refused unless asked for twice',
    async address => {
      await expect(serve(address, { tokens: fullToken(TOKEN) })).rejects.toMatchObject({
        code: 'AEROSTAT_API_REMOTE',
      });
    },
  );

  test('all addresses are served when asked for twice', async () => {
    const { address } = await serve('0.0.0.0:0', { tokens: fullToken(TOKEN), allowRemote: true });
    const { port } = address as { port: number };
    expect(await statusOf({ host: '127.0.0.1', port })).toBe(401);
  });

  test('a port in use is said to be', async () => {
    const holder = createServer();
    await new Promise<void>(resolve => holder.listen(0, '127.0.0.1', resolve));
    const { port } = holder.address() as { port: number };
    await expect(serve(`127.0.0.1:${port}`, { tokens: fullToken(TOKEN) })).rejects.toMatchObject({
      code: 'AEROSTAT_API_IN_USE',
      message: expect.stringMatching(/choose another with --api$/),
    });
    // The option that was not given is not the one to change.
    await expect(
      serve(`127.0.0.1:${port}`, { tokens: fullToken(TOKEN), chosenBy: '--port' }),
    ).rejects.toThrow(/choose another with --port$/);
    await new Promise(resolve => holder.close(resolve));
  });

  test('a request with too many headers is cut off', async () => {
    const { address } = await serve('127.0.0.1:0', { tokens: fullToken(TOKEN) });
    const { port } = address as { port: number };
    expect(await statusOf({ host: '127.0.0.1', port, headers: { 'X-Long': 'x'.repeat(20_000) } })).toBe(431);
    const request = `GET /v1/guests HTTP/1.1\r\n${HEAD}\r\nX-Long: ${'x'.repeat(20_000)}\r\n\r\n`;
    expect(await answerTo(connect(port, '127.0.0.1'), request, async function* () {})).toMatch(
      /^HTTP\/1\.1 431 .*application\/problem\+json.*Connection: close.*8192 bytes.*AEROSTAT_HEADERS_TOO_LARGE/s,
    );
  });
});

describe('addresses', () => {
  test.each([
    ['/run/a.sock', { kind: 'unix', path: '/run/a.sock' }],
    ['./a:80', { kind: 'unix', path: './a:80' }],
    ['localhost:80', { kind: 'tcp', host: 'localhost', port: 80 }],
    ['http://10.0.0.1:8080/', { kind: 'tcp', host: '10.0.0.1', port: 8080 }],
    ['[::1]:8080', { kind: 'tcp', host: '::1', port: 8080 }],
  ])('%s is understood', (text, address) => {
    expect(parseAddress(text)).toEqual(address);
    expect(parseAddress(formatAddress(parseAddress(text)))).toEqual(address);
  });

  test.each([
    ['', /write a path/],
    ['localhost', /write a path/],
    ['localhost:99999', /largest port/],
    ['https://a:1', /no TLS/],
    ['http://a:1/v1', /write a path/],
    ['ftp://a/x', /write a path/],
    [`/${'x'.repeat(107)}`, /107 bytes/],
  ])('%s is refused with what would be right', (text, why) => {
    expect(() => parseAddress(text)).toThrow(why);
  });

  test('what is asked for wins over the environment, and that over the default', () => {
    const env = { AEROSTAT_API: '/e/api', XDG_RUNTIME_DIR: '/x' };
    expect(resolveAddress('/a/api', env)).toEqual({ kind: 'unix', path: '/a/api' });
    expect(resolveAddress(undefined, env)).toEqual({ kind: 'unix', path: '/e/api' });
    expect(resolveAddress(undefined, { XDG_RUNTIME_DIR: '/x' })).toEqual({
      kind: 'unix',
      path: '/x/aerostat/api.sock',
    });
  });

  test('without a session the directory carries the user’s number', () => {
    expect(dirname(policySocket({}))).toMatch(
      new RegExp(`^(/run/user/${process.getuid?.()}/aerostat|.*/aerostat-${process.getuid?.()})$`),
    );
  });
});
