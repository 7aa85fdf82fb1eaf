import { hostname } from 'node:os';
import { describe, expect, test } from 'vitest';
import { createApi } from '../../src/server/api.ts';
import { fullToken } from '../../src/server/token.ts';
import { FakeControl, guestStatus } from './fake-control.ts';

const TOKEN = '0123456789abcdef0123456789abcdef';

async function ask(headers: Record<string, string>, path = '/v1/guests') {
  const { app } = createApi(new FakeControl(guestStatus('vm1')), {
    version: '0',
    access: { tokens: fullToken(TOKEN), hostNames: ['vmhost.example'] },
  });
  const response = await app.request(path, {
    headers: { Host: '127.0.0.1:8080', Authorization: `Bearer ${TOKEN}`, ...headers },
  });
  return { status: response.status, headers: response.headers, body: await response.text() };
}

describe('the token', () => {
  test('opens the API', async () => {
    expect((await ask({})).status).toBe(200);
    expect((await ask({ Authorization: `bearer  ${TOKEN}` })).status).toBe(200);
  });

  test.each([
    ['none', ''],
    ['a wrong one', `Bearer ${TOKEN.slice(0, -1)}0`],
    ['the beginning of it', `Bearer ${TOKEN.slice(0, 8)}`],
    ['another scheme', `Basic ${TOKEN}`],
    ['two of them', `Bearer ${TOKEN} ${TOKEN}`],
  ])('is needed: %s is refused', async (_, Authorization) => {
    const { status, headers, body } = await ask({ Authorization });
    expect(status).toBe(401);
    expect(headers.get('www-authenticate')).toMatch(/^Bearer/);
    expect(body).not.toContain(TOKEN);
    expect(body).not.toContain('vm1');
  });

  test.each(['/metrics', '/v1/openapi.json', '/v1/events', '/nothing/here'])(
    'is needed for %s too',
    async path => {
      expect((await ask({ Authorization: '' }, path)).status).toBe(401);
    },
  );
});

describe('a token that may only read', () => {
  const tokens = [
    { secret: TOKEN, right: 'full', name: null },
    { secret: `${TOKEN}-of-prometheus`, right: 'read-only', name: 'prometheus' },
  ] as const;
  const asked = async (method: string, path: string, secret: string) => {
    const control = new FakeControl(guestStatus('vm1'));
    const { app } = createApi(control, { version: '0', access: { tokens, hostNames: [] } });
    const { status } = await app.request(path, {
      method,
      headers: { Host: 'localhost', Authorization: `Bearer ${secret}`, 'Content-Type': 'application/json' },
      ...(method === 'PATCH' ? { body: '{"targetBytes":0}' } : {}),
    });
    return [status, control.calls.filter(([name]) => name !== 'statistics').length];
  };

  test('sees everything and steers nothing, beside one that does', async () => {
    for (const { secret } of tokens) {
      expect(await asked('GET', '/metrics', secret)).toEqual([200, 0]);
      expect(await asked('GET', '/v1/guests/vm1', secret)).toEqual([200, 0]);
    }
    expect(await asked('PATCH', '/v1/guests/vm1', tokens[0].secret)).toEqual([200, 1]);
    for (const [method, path] of [
      ['PATCH', '/v1/guests/vm1'],
      ['POST', '/v1/guests/vm1/hint'],
      ['POST', '/v1/guests/vm1/migration'],
      ['DELETE', '/v1/guests/vm1/migration'],
    ]) {
      expect(await asked(method, path, tokens[1].secret)).toEqual([403, 0]);
    }
  });
});

describe('the Host header', () => {
  test.each([
    'localhost',
    'LOCALHOST:8080',
    '127.0.0.1',
    '[::1]:8080',
    '192.0.2.7:80',
    'vmhost.example:8080',
    hostname(),
  ])('%s is ours', async Host => {
    expect((await ask({ Host })).status).toBe(200);
  });

  test.each(['', 'evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', '[::1', 'a b'])(
    '"%s" is refused: any DNS server may let a name point here',
    async Host => {
      expect((await ask({ Host })).status).toBe(421);
    },
  );
});

describe('the Origin header', () => {
  test('of our own page is welcome', async () => {
    expect((await ask({ Origin: 'http://127.0.0.1:8080' })).status).toBe(200);
  });

  test.each([
    'http://evil.example',
    'null',
    'http://127.0.0.1:9090',
    'https://127.0.0.1:8080',
    'http://localhost:8080',
  ])('%s is another page, and refused with the token', async Origin => {
    expect((await ask({ Origin })).status).toBe(403);
  });
});
