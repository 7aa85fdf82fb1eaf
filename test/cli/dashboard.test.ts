/** `aerostat dashboard` as a person starts it: three guests, a page, and nothing left when it ends. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import type { GuestStatus } from '../../src/control/contract.ts';
import type { MigrationAnswer } from '../../src/control/migrations.ts';
import type { Daemon } from '../../src/daemon/options.ts';
import { LIVING_GUEST_NAMES } from '../../src/demo/living-guests.ts';
import { formatAddress, parseAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import { type ApiServer, serveApi } from '../../src/server/listen.ts';
import { fullToken } from '../../src/server/token.ts';
import { FakeControl, guestStatus } from '../server/fake-control.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { build, program } from './built.ts';
import { guestsToml } from './guests-toml.ts';
import { run, type Session, start } from './terminal.ts';

let directory: string;
let environment: NodeJS.ProcessEnv;
let child: ChildProcess | undefined;

beforeAll(build);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  mkdirSync(join(directory, 'tmp'));
  environment = { ...process.env, XDG_RUNTIME_DIR: directory, TMPDIR: join(directory, 'tmp') };
  delete environment.AEROSTAT_API;
  delete environment.DISPLAY;
});

afterEach(async () => {
  await end();
  rmSync(directory, { recursive: true });
});

/** Starts it, and resolves with the address that it prints. */
async function dashboard(...words: string[]): Promise<URL> {
  child = spawn(program, ['dashboard', ...words], { env: environment, stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  for await (const text of child.stdout?.setEncoding('utf8') ?? []) {
    printed += text;
    if (printed.endsWith('\n')) return new URL(printed.trim());
  }
  throw new Error('it printed no address');
}

async function end(): Promise<number | null> {
  if (child === undefined || child.exitCode !== null) return child?.exitCode ?? null;
  const ended = once(child, 'exit');
  child.kill('SIGINT');
  await ended;
  return child.exitCode;
}

async function ask<Answer>(address: URL, path: string): Promise<Answer> {
  const token = address.hash.slice('#token='.length);
  const response = await fetch(new URL(path, address), { headers: { Authorization: `Bearer ${token}` } });
  expect(response.status).toBe(200);
  return (await response.json()) as Answer;
}

async function guestsAt(address: URL): Promise<readonly GuestStatus[]> {
  return (await ask<{ guests: readonly GuestStatus[] }>(address, '/v1/guests')).guests;
}

/** The oldest event that it knows of, if any. */
async function pastEventAt(address: URL): Promise<unknown> {
  const control = remoteControl(
    { kind: 'tcp', host: address.hostname, port: Number(address.port) },
    { token: address.hash.slice('#token='.length), pastEvents: true },
  );
  return new Promise(resolve => {
    const end = control.subscribe(event => settle(event));
    const timer = setTimeout(() => settle(undefined), 500);
    const settle = (event: unknown) => {
      clearTimeout(timer);
      end();
      resolve(event);
    };
  });
}

async function obstacleAt(address: URL, name: string): Promise<string | null> {
  return (await ask<MigrationAnswer>(address, `/v1/guests/${name}/migration`)).obstacle;
}

test('shows three guests that live, and leaves nothing', async () => {
  const address = await dashboard('--demo');
  expect(address.hostname).toBe('127.0.0.1');
  expect(await (await fetch(new URL('/', address))).text()).toContain('<title>Aerostat</title>');
  expect((await fetch(new URL('/v1/guests', address))).status).toBe(401);
  expect((await guestsAt(address)).map(({ name }) => name)).toEqual(LIVING_GUEST_NAMES);
  expect(await obstacleAt(address, 'traveller')).toBeNull();
  expect(await obstacleAt(address, 'files')).toMatch(/the program that runs it/);
  await expect
    .poll(
      async () => (await guestsAt(address)).every(({ residentBytes }) => (residentBytes ?? 0) > 8 * 2 ** 20),
      {
        timeout: 60_000,
      },
    )
    .toBe(true);
  // Before, no balloon held anything until a user asked for it.
  await expect
    .poll(async () => (await guestsAt(address)).every(({ actualBytes }) => (actualBytes ?? 0) > 0), {
      timeout: 60_000,
    })
    .toBe(true);
  expect(await end()).toBe(0);
  expect(readdirSync(join(directory, 'tmp'))).toEqual([]);
});

test('shows the daemon that runs', async () => {
  const daemon = await DaemonProcess.start(['vm1']);
  try {
    await daemon.control.change('vm1', { targetBytes: 4096 });
    const address = await dashboard('--api', join(daemon.directory, 'api.sock'));
    expect(await guestsAt(address)).toMatchObject([{ name: 'vm1', connected: false }]);
    await expect
      .poll(() => pastEventAt(address), { timeout: 60_000 })
      .toMatchObject({ guest: 'vm1', type: 'target' });
    expect(await end()).toBe(0);
  } finally {
    await daemon.stop();
  }
});

test('interrupted while its guests boot, it does not complain of those that did not come up', async () => {
  const session: Session = start(['dashboard', '--demo'], {
    // There is no daemon that the guests could connect to.
    startDaemon: async () => {
      session.interrupt();
      return { close: async () => {} } as Daemon;
    },
  });
  expect(await session.ended).toBe(EXIT.interrupted);
  expect(session.stderr.text).toBe('');
});

describe('the address', () => {
  const TOKEN = 'a-token-that-never-changes';
  let server: ApiServer;
  let config: string;

  beforeEach(async () => {
    server = await serveApi(new FakeControl(guestStatus('vm1')), {
      version: '0',
      address: parseAddress('127.0.0.1:0'),
      tokens: fullToken(TOKEN),
    });
    config = join(directory, 'aerostat.toml');
    const guests = [{ name: 'vm1', api: formatAddress(server.address), 'token-file': 'token' }];
    writeFileSync(join(directory, 'token'), TOKEN, { mode: 0o600 });
    writeFileSync(config, guestsToml(guests));
  });

  afterEach(() => server.close());

  const urlsIn = (text: string) => text.match(/https?:\/\/\S+/g) ?? [];

  /** All that a command of these words says until it is there. */
  async function said(...words: string[]): Promise<Session> {
    const session = start(['dashboard', ...words]);
    await expect.poll(() => session.stdout.text + session.stderr.text).toContain('#token=');
    session.interrupt();
    await session.ended;
    return session;
  }

  test('to be opened is the only one that is printed', async () => {
    const { stdout, stderr } = await said(
      ...['--api', formatAddress(server.address), '--token-file', join(directory, 'token')],
    );
    expect(urlsIn(stdout.text)).toHaveLength(1);
    expect(urlsIn(stderr.text)).toEqual([]);
    expect(stderr.text).toMatch(
      /^The page of the daemon at 127\.0\.0\.1:\d+\. Open this in a browser; Ctrl-C/,
    );
    // It is the page's own token, of this one run.
    expect(stdout.text).not.toContain(TOKEN);
  });

  test('has the token that is given where the guests are of a file, and a new one where none is', async () => {
    const words = ['--config', config, '--token-file', join(directory, 'token')];
    expect((await said(...words)).stdout.text).toMatch(new RegExp(`#token=${TOKEN}\n$`));
    expect((await said(...words.slice(0, 2))).stdout.text).not.toContain(TOKEN);
  });

  test('with a port that is taken names the option that chose it', async () => {
    const { port } = server.address as { port: number };
    const { code, err } = await run(['dashboard', '--config', config, '--port', String(port)]);
    expect(code).toBe(EXIT.failed);
    expect(err).toMatch(/another program listens there already; choose another with --port$/m);
  });
});

test('demonstrates nothing in place of a daemon that was named and is not there', async () => {
  const { code, err } = await run(['dashboard', '--api', join(directory, 'none.sock')]);
  expect(code).toBe(3);
  expect(err).toMatch(/no daemon listens/);
});

test.each(['x', '-1', '65536'])('has no port %s', async port => {
  expect((await run(['dashboard', `--port=${port}`])).code).toBe(2);
});
