import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AccessRules } from '../../src/server/access.ts';
import { createApi } from '../../src/server/api.ts';
import { fullToken } from '../../src/server/token.ts';
import { FakeControl } from './fake-control.ts';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
});

afterEach(() => rmSync(directory, { recursive: true }));

function build(): void {
  mkdirSync(join(directory, 'assets'));
  writeFileSync(join(directory, 'index.html'), '<!doctype html>');
  writeFileSync(join(directory, 'favicon.svg'), '<svg/>');
  writeFileSync(join(directory, 'secret.txt'), 'secret');
  writeFileSync(join(directory, 'assets', 'index-abc.js'), 'run()');
}

function ask(path: string, access?: AccessRules, headers: Record<string, string> = {}, method = 'GET') {
  const { app } = createApi(new FakeControl(), {
    version: '0',
    pageDirectory: directory,
    ...(access === undefined ? {} : { access }),
  });
  return app.request(path, { method, headers: { Host: '127.0.0.1:8080', ...headers } });
}

describe('the page', () => {
  test('is at the root, may run nothing but its own, and is looked for anew each time', async () => {
    build();
    const response = await ask('/');
    expect(await response.text()).toBe('<!doctype html>');
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'text/html; charset=utf-8',
      'content-security-policy': expect.stringMatching(/^default-src 'none'; script-src 'self';/),
      'cache-control': 'no-cache',
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
    });
  });

  test('keeps what has a digest in its name', async () => {
    build();
    const { headers } = await ask('/assets/index-abc.js');
    expect(headers.get('content-type')).toBe('text/javascript; charset=utf-8');
    expect(headers.get('cache-control')).toMatch(/immutable/);
  });

  test.each(['/secret.txt', '/assets/..%2fsecret.txt', '/assets/../../../etc/passwd', '/assets/other.js'])(
    'has no %s',
    async path => {
      build();
      const response = await ask(path);
      expect(response.status).toBe(404);
      expect(response.headers.get('cache-control')).toBe('no-store');
      expect(await response.text()).not.toContain('secret\n');
    },
  );

  test('that was never built says how to build it', async () => {
    const response = await ask('/');
    expect(response.status).toBe(404);
    expect(await response.text()).toContain('npm run build');
  });

  test('answers to GET alone', async () => {
    build();
    expect((await ask('/', undefined, {}, 'POST')).status).toBe(405);
  });
});

describe('over TCP', () => {
  const access = { tokens: fullToken('0123456789abcdef'), hostNames: [] };

  test('needs no token, where all that it shows needs one', async () => {
    build();
    expect((await ask('/', access)).status).toBe(200);
    expect((await ask('/assets/index-abc.js', access)).status).toBe(200);
    expect((await ask('/v1/guests', access)).status).toBe(401);
  });

  test('is not given to another name or another origin', async () => {
    build();
    expect((await ask('/', access, { Host: 'evil.example' })).status).toBe(421);
    expect((await ask('/', access, { Origin: 'http://evil.example' })).status).toBe(403);
  });
});
