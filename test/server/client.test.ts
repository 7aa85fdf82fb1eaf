import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { GuestEvent } from '../../src/control/contract.ts';
import type { MigrationStatus } from '../../src/control/migrations.ts';
import type { Control } from '../../src/control/operations.ts';
import { parseAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import { EventLog } from '../../src/server/event-log.ts';
import { type ApiServer, serveApi } from '../../src/server/listen.ts';
import { fullToken } from '../../src/server/token.ts';
import { FakeControl, GIB, guestStatus } from './fake-control.ts';

let directory: string;
let path: string;
let control: FakeControl;
let server: ApiServer;
let remote: Control;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  path = join(directory, 'api.sock');
  control = new FakeControl(guestStatus('vm1'), guestStatus('vm 2/ü'));
  server = await serveApi(control, { version: '0', address: parseAddress(path) });
  remote = remoteControl(parseAddress(path));
});

afterEach(async () => {
  await server.close();
  rmSync(directory, { recursive: true });
});

describe('a daemon seen through its API', () => {
  test('answers as it does itself', async () => {
    expect(await remote.daemon()).toEqual(await control.daemon());
    expect(await remote.guests()).toEqual(await control.guests());
    expect(await remote.guest('vm1')).toEqual(await control.guest('vm1'));
    expect(await remote.statistics('vm1')).toEqual(await control.statistics('vm1'));
    expect(await remote.host()).toEqual(await control.host());
    expect(await remote.samples()).toEqual(await control.samples());
    expect(await remote.map('vm1', { fromBytes: 4096, bytes: 8192, cells: 2 })).toEqual(control.memoryMap);
    expect(await remote.change('vm1', { targetBytes: GIB })).toMatchObject({ targetBytes: GIB });
    expect(await remote.change('vm1', { discard: 'before-ack' })).toMatchObject({ discard: 'before-ack' });
    expect(await remote.change('vm1', { pollIntervalMs: 5000 })).toMatchObject({ name: 'vm1' });
    expect(await remote.hint('vm1', { action: 'start' })).toMatchObject({ state: 'running' });
    control.alter('vm1', { profile: 'page-chunks' });
    expect(await remote.request('vm1', { request: 'unused-pages' })).toMatchObject({ lists: 3 });
    await remote.statistics('vm1', { freshMs: 0, timeoutMs: 50 });
    expect(control.calls.filter(([name]) => name !== 'statistics')).toEqual([
      ['map', 'vm1', { fromBytes: 4096, bytes: 8192, cells: 2 }],
      ['change', 'vm1', { targetBytes: GIB }],
      ['change', 'vm1', { discard: 'before-ack' }],
      ['change', 'vm1', { pollIntervalMs: 5000 }],
      ['hint', 'vm1', { action: 'start' }],
      ['request', 'vm1', { request: 'unused-pages' }],
    ]);
    expect(control.calls.at(-1)).toEqual(['statistics', 'vm1', { freshMs: 0, timeoutMs: 50 }]);
  });

  test('is asked over a connection for each question, so that none is lost with one that ends', async () => {
    let connections = 0;
    const counted = createServer((_, response) => response.end('{"guests":[]}'));
    counted.on('connection', () => connections++);
    const socket = join(directory, 'counted.sock');
    await new Promise<void>(resolve => counted.listen(socket, resolve));
    const asked = remoteControl(parseAddress(socket));
    for (let question = 0; question < 3; question++) await asked.daemon();
    expect(connections).toBe(3);
    await new Promise(resolve => counted.close(resolve));
  });

  test('is not waited for any longer when that is given up, and can be asked again', async () => {
    const stop = new AbortController();
    const impatient = remoteControl(parseAddress(path), { signal: stop.signal });
    let answer = () => {};
    const asked = new Promise<void>(resolve => {
      control.request = () => {
        resolve();
        return new Promise(() => {});
      };
    });
    const ordered = new Promise<void>(resolve => {
      control.migrate = () => {
        resolve();
        return new Promise(done => {
          answer = () => done({} as MigrationStatus);
        });
      };
    });
    const given = expect(impatient.request('vm1', { request: 'shrink' })).rejects.toThrow('enough');
    const order = impatient.migrate('vm1', { to: 'tcp:there:1' });
    await Promise.all([asked, ordered]);
    stop.abort(new Error('enough'));
    await given;
    // The client that began a migration has to hear of it.
    answer();
    expect(await order).toEqual({});
    expect(await impatient.guest('vm1')).toMatchObject({ name: 'vm1' });
  });

  test('finds a guest whatever its name holds', async () => {
    expect(await remote.guest('vm 2/ü')).toMatchObject({ name: 'vm 2/ü' });
  });

  test('fails with the code and the words that the daemon fails with', async () => {
    await expect(remote.guest('vm9')).rejects.toMatchObject({
      code: 'AEROSTAT_UNKNOWN_GUEST',
      message: 'no guest is called vm9; known: vm1, vm 2/ü',
      status: 404,
    });
    control.sample = null;
    await expect(remote.statistics('vm1')).rejects.toMatchObject({ code: 'AEROSTAT_GUEST_STATE' });
  });

  test('tells events', async () => {
    const seen: GuestEvent[] = [];
    const unsubscribe = remote.subscribe(event => seen.push(event));
    await expect
      .poll(() => {
        control.emit({ type: 'target', detail: { targetBytes: 1 } });
        return seen[0];
      })
      .toMatchObject({ guest: 'vm1', type: 'target', detail: { targetBytes: 1 } });
    unsubscribe();
  });

  test('goes on telling them after the connection was lost, none left out', async () => {
    await server.close();
    const events = new EventLog();
    const serve = () => serveApi(control, { version: '0', address: parseAddress(path), events });
    server = await serve();
    const seen: unknown[] = [];
    const unsubscribe = remote.subscribe(event => seen.push(event.detail.n));
    await expect.poll(() => events.waiting).toBe(1);
    control.emit({ detail: { n: 1 } });
    await expect.poll(() => seen).toEqual([1]);
    await server.close();
    server = await serve();
    control.emit({ detail: { n: 2 } });
    await expect.poll(() => seen, { timeout: 60_000 }).toEqual([1, 2]);
    unsubscribe();
  });

  test('tells what the daemon remembers first, where that is asked for', async () => {
    control.emit({ detail: { n: 1 } });
    const past: unknown[] = [];
    const now: unknown[] = [];
    const keen = remoteControl(parseAddress(path), { pastEvents: true });
    const endings = [
      keen.subscribe(({ detail }) => past.push(detail.n)),
      remote.subscribe(({ detail }) => now.push(detail.n)),
    ];
    await expect
      .poll(() => {
        control.emit({ detail: { n: 2 } });
        return now.length > 0 && past.length > 1;
      })
      .toBe(true);
    for (const end of endings) end();
    expect(past.slice(0, 2)).toEqual([1, 2]);
    expect(now).not.toContain(1);
  });

  test('takes a stream that says nothing any more for lost, and opens another', async () => {
    let streams = 0;
    const silent = createServer((_, response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      streams++;
      if (streams < 2) response.write('event: hello\ndata: {}\nid: 0000cafe-1\n\n');
      else response.write('event: target\ndata: {"detail":{"n":2}}\nid: 0000cafe-2\n\n');
    });
    await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as { port: number };
    const seen: unknown[] = [];
    const patient = remoteControl({ kind: 'tcp', host: '127.0.0.1', port }, { silenceMsMax: 50 });
    const unsubscribe = patient.subscribe(event => seen.push(event.detail.n));
    await expect.poll(() => seen[0], { timeout: 60_000 }).toBe(2);
    unsubscribe();
    silent.closeAllConnections();
    await new Promise(resolve => silent.close(resolve));
  });
});

describe('when no daemon is there', () => {
  const failureOf = (address: string) =>
    remoteControl(parseAddress(address))
      .guests()
      .catch(error => error);

  test('it says so, and how to start a daemon', async () => {
    const error = await failureOf(join(directory, 'none.sock'));
    expect(error).toMatchObject({ code: 'AEROSTAT_UNREACHABLE' });
    expect(error.message).toMatch(
      /no daemon listens at .*none\.sock; start one with "aerostat device.*--api/,
    );
  });

  test('a port without a listener is the same', async () => {
    expect(await failureOf('127.0.0.1:1')).toMatchObject({ code: 'AEROSTAT_UNREACHABLE' });
  });

  test('another server is not taken for ours', async () => {
    const other = createServer((_, response) => response.writeHead(404).end('<html>'));
    await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as { port: number };
    expect((await failureOf(`127.0.0.1:${port}`)).message).toMatch(/is not Aerostat.*404/);
    other.closeAllConnections();
    await new Promise(resolve => other.close(resolve));
  });
});

describe('a daemon that asks for a token', () => {
  const TOKEN = '0123456789abcdef0123456789abcdef';

  test('is told by the options that a person has, whether none was given or a wrong one', async () => {
    const guarded = await serveApi(control, {
      version: '0',
      address: parseAddress('127.0.0.1:0'),
      tokens: fullToken(TOKEN),
    });
    try {
      await expect(remoteControl(guarded.address).guests()).rejects.toThrow(
        /asks for a token; name the file that holds it with --token-file, or put the token itself into AEROSTAT_TOKEN/,
      );
      await expect(remoteControl(guarded.address, { token: 'x'.repeat(32) }).guests()).rejects.toThrow(
        /does not know this token; check --token-file, or AEROSTAT_TOKEN/,
      );
      expect(await remoteControl(guarded.address, { token: TOKEN }).guests()).toHaveLength(2);
    } finally {
      await guarded.close();
    }
  });
});
