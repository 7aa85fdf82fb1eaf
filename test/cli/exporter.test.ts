/** `aerostat exporter`, and daemons that no option names: found where systemd's units run them. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { parseAddress } from '../../src/server/address.ts';
import { type ApiServer, serveApi } from '../../src/server/listen.ts';
import { FakeControl, guestStatus } from '../server/fake-control.ts';
import { guestsToml } from './guests-toml.ts';
import { run, type Session, start } from './terminal.ts';

const TOKEN = '0123456789abcdef0123456789abcdef';

let directory: string;
let env: Record<string, string>;
const open: { close(): unknown }[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  writeFileSync(join(directory, 'tokens'), `${TOKEN} read-only prometheus\n`, { mode: 0o600 });
  env = { AEROSTAT_RUN_DIR: join(directory, 'run'), XDG_RUNTIME_DIR: join(directory, 'own') };
});

afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
  rmSync(directory, { recursive: true });
});

/** A daemon as a unit runs it, with these guests. */
async function unit(place: string, ...names: string[]): Promise<{ server: ApiServer; control: FakeControl }> {
  const control = new FakeControl(...names.map(name => guestStatus(name)));
  const address = parseAddress(socketOf(place));
  const server = await serveApi(control, { version: '0.1.0', address });
  open.push(server);
  return { server, control };
}

const socketOf = (place: string): string => join(directory, 'run', place, 'api.sock');

/** What a daemon that was killed leaves behind: a socket without a listener. */
async function deadUnit(place: string): Promise<void> {
  mkdirSync(join(directory, 'run', place), { recursive: true });
  const { spawnSync } = await import('node:child_process');
  const leave = `require('node:net').createServer().listen(${JSON.stringify(socketOf(place))}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['--eval', leave]);
}

/** An exporter, and what it answers. */
async function exporter(...words: string[]) {
  const listen = ['--listen', '127.0.0.1:0', '--token-file', join(directory, 'tokens')];
  const session: Session = start(['exporter', ...listen, ...words], { env });
  await expect.poll(() => session.stderr.text).toMatch(/figures on http\S+/);
  const [, base] = /figures on (http:\/\/[\d.:]+)/.exec(session.stderr.text) ?? [];
  const ask = (path: string, token?: string, method = 'GET') =>
    fetch(`${base}${path}`, {
      method,
      headers: { connection: 'close', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    });
  const scrape = async (): Promise<string[]> => (await (await ask('/metrics', TOKEN)).text()).split('\n');
  open.push({
    close: async () => {
      session.interrupt('SIGTERM');
      expect(await session.ended).toBe(EXIT.ok);
    },
  });
  return { ask, scrape, session };
}

const upOf = (lines: readonly string[]): Record<string, number> =>
  Object.fromEntries(
    lines
      .map(line => /^aerostat_daemon_up\{daemon="([^"]*)"\} (\d)$/.exec(line))
      .flatMap(match => (match === null ? [] : [[match[1], Number(match[2])]])),
  );

describe('an exporter', () => {
  test('shows the guests of all daemons that units run, and which daemon does not answer', async () => {
    await unit('vm1', 'vm1');
    await deadUnit('vm2');
    const { scrape } = await exporter();
    const lines = await scrape();
    expect(upOf(lines)).toEqual({ [socketOf('vm1')]: 1, [socketOf('vm2')]: 0 });
    expect(lines).toContain(`aerostat_guest_connected{daemon="${socketOf('vm1')}",guest="vm1"} 1`);
    expect(lines).toContain(`process_start_time_seconds{daemon="${socketOf('vm1')}"} 1700000000.25`);
    expect(lines.some(line => /^aerostat_host_memory_available_bytes [1-9]\d+$/.test(line))).toBe(true);
    // A unit that is started, and one that ends well and takes its socket with it.
    const { server } = await unit('vm3', 'vm3');
    expect(upOf(await scrape())).toMatchObject({ [socketOf('vm3')]: 1 });
    open.splice(open.indexOf(server), 1);
    await server.close();
    expect(upOf(await scrape())).not.toHaveProperty(socketOf('vm3'));
  });

  test('asks for a token, one that reads is enough, and health is asked without one', async () => {
    const { ask } = await exporter();
    expect((await ask('/metrics')).status).toBe(401);
    expect((await ask('/metrics', `${TOKEN}x`)).status).toBe(401);
    expect((await ask('/metrics', TOKEN)).status).toBe(200);
    const health = await ask('/healthz');
    expect([health.status, await health.json()]).toEqual([200, { status: 'ok' }]);
    expect((await ask('/metrics', TOKEN, 'POST')).status).toBe(403);
    expect((await ask('/v1/guests', TOKEN)).status).toBe(404);
  });

  test('has the guests of a file under the names that it gives them', async () => {
    await unit('vm1', 'vm1', 'vm2', 'vm3');
    const config = join(directory, 'aerostat.toml');
    const guests = ['vm1', 'vm2'].map(guest => ({ name: `web-${guest}`, api: socketOf('vm1'), guest }));
    writeFileSync(config, guestsToml(guests));
    const { scrape } = await exporter('--config', config);
    const named = (await scrape()).filter(line => line.startsWith('aerostat_guest_connected'));
    expect(named.map(line => /guest="([^"]*)"/.exec(line)?.[1])).toEqual(['web-vm1', 'web-vm2']);
  });

  test('does not wait for a daemon that hangs', async () => {
    await unit('vm1', 'vm1');
    mkdirSync(join(directory, 'run', 'stuck'), { recursive: true });
    const silent: Server = createServer(() => {});
    await new Promise<void>(resolve => silent.listen(socketOf('stuck'), resolve));
    open.push({ close: () => silent.close() });
    const { scrape } = await exporter();
    expect(upOf(await scrape())).toEqual({ [socketOf('vm1')]: 1, [socketOf('stuck')]: 0 });
  });

  test('is refused without tokens, and at an address that others reach unless that is said', async () => {
    const none = await run(['exporter'], { env });
    expect([none.code, none.err]).toEqual([EXIT.failed, expect.stringContaining('--token-file')]);
    const words = ['exporter', '--listen', '0.0.0.0:0', '--token-file', join(directory, 'tokens')];
    const remote = await run(words, { env });
    expect([remote.code, remote.err]).toEqual([EXIT.failed, expect.stringContaining('--listen-remote')]);
  });
});

describe('daemons that no option names', () => {
  test('are found where units run them, and their guests are one list', async () => {
    await unit('vm1', 'vm1');
    await unit('guests', 'web', 'db');
    await deadUnit('vm2');
    const { code, out } = await run(['status', '--json'], { env });
    // One daemon does not answer, and the others' guests are shown all the same.
    expect(code).toBe(EXIT.unreachable);
    const guests = JSON.parse(out).guests as { name: string; lastError: string | null }[];
    expect(guests.map(({ name }) => name)).toEqual(['web', 'db', 'vm1', 'vm2']);
    expect(guests.at(-1)?.lastError).toMatch(/no daemon listens/);
    // Before, this said that no daemon listens at a socket that the user had not named.
    expect((await run(['set', 'web', '--balloon', '256M'], { env })).code).toBe(EXIT.ok);
  });

  test('have their guests told apart where two have one name', async () => {
    await unit('a', 'vm', 'only');
    await unit('b', 'vm');
    const { out } = await run(['status', '--json'], { env });
    expect(JSON.parse(out).guests.map(({ name }: { name: string }) => name)).toEqual([
      'a/vm',
      'only',
      'b/vm',
    ]);
  });

  test('are not looked for where an option says where the daemon is, or the user has one', async () => {
    await unit('vm1', 'vm1');
    const named = await run(['status', '--api', join(directory, 'none.sock')], { env });
    expect(named.code).toBe(EXIT.unreachable);
    const own = new FakeControl(guestStatus('mine'));
    const address = parseAddress(join(directory, 'own/aerostat/api.sock'));
    open.push(await serveApi(own, { version: '0.1.0', address }));
    const { out } = await run(['status', '--json'], { env });
    expect(JSON.parse(out).guests.map(({ name }: { name: string }) => name)).toEqual(['mine']);
  });
});
