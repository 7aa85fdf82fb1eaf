import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { parseAddress } from '../../src/server/address.ts';
import { serveApi } from '../../src/server/listen.ts';
import { FakeMonitor } from '../peers/qemu/fake-monitor.ts';
import { FakeQemu } from '../peers/qemu/fake-qemu.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';
import { guestsToml } from './guests-toml.ts';
import { run, start, type Terminal } from './terminal.ts';

let qemu: FakeQemu;
let monitor: FakeMonitor;
let directory: string;
let qmp: string;

beforeEach(async () => {
  qemu = new FakeQemu();
  monitor = await FakeMonitor.start({ respond: (request, from) => qemu.answer(request, from) });
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  qmp = `--qmp web=${monitor.path}`;
});

afterEach(async () => {
  await monitor.close();
  rmSync(directory, { recursive: true });
});

const aerostat = (words: string, terminal: Terminal = {}) =>
  run(words.split(' '), { env: { AEROSTAT_API: '/nowhere/api.sock' }, ...terminal });

const json = async (words: string) => JSON.parse((await aerostat(`${words} --json`)).out);

describe('a guest of QEMU under the same commands', () => {
  test('has the status of any other guest, with null for what QEMU does not tell', async () => {
    const { guests } = await json(`status ${qmp}`);
    expect(Object.keys(guests[0])).toEqual(Object.keys(guestStatus('vm')));
    expect(guests).toEqual([
      {
        ...Object.fromEntries(Object.keys(guestStatus('vm')).map(field => [field, null])),
        name: 'web',
        socketPath: monitor.path,
        connected: true,
        state: 'running',
        profile: 'virtio',
        features: ['stats-vq', 'page-reporting', 'ring-event-idx'],
        memoryBytes: GIB,
        actualBytes: 0,
        pendingBytes: 0,
      },
    ]);
  });

  test('is shown to people without a guess', async () => {
    qemu.left = GIB - 256 * MIB;
    const { code, out } = await aerostat(`status ${qmp}`);
    expect(code).toBe(EXIT.ok);
    expect(out).toBe(
      [
        'GUEST  STATE    MEMORY  TARGET  BALLOON  PENDING  RESIDENT  LAST ERROR',
        'web    running      1G       -     256M        0         -  -',
        '',
      ].join('\n'),
    );
    expect((await aerostat(`status web ${qmp}`)).out.replace(monitor.path, 'SOCKET')).toMatchInlineSnapshot(`
      "web: running
        memory      1G
        target      -
        balloon     the guest says 256M
        pending     0
        resident    -
        given back  -
        discard     -
        hints       -
        profile     virtio
        features    stats-vq page-reporting ring-event-idx
        socket      SOCKET
        refused     -
        last error  -
      "
    `);
  });

  test('is called what its socket is, unless it is named', async () => {
    expect((await json(`status --qmp ${monitor.path}`)).guests[0].name).toBe('qmp');
    const { code, err } = await aerostat(`status --qmp ${monitor.path} --qmp ${monitor.path}`);
    expect(code).toBe(EXIT.usage);
    expect(err).toMatch(/two guests are called qmp/);
  });

  test('takes a target, and is waited for', async () => {
    const { guest, reached } = await json(`set web --memory 768M --wait ${qmp}`);
    expect(reached).toBe(true);
    expect(guest).toMatchObject({ targetBytes: 256 * MIB, actualBytes: 256 * MIB });
    expect(qemu.left).toBe(768 * MIB);
    const { out } = await aerostat(`set --balloon 0 --wait ${qmp}`);
    expect(out).toMatch(/^web: balloon 0 reached in/);
  });

  test('tells its statistics', async () => {
    const { statistics } = await json(`stats --fresh ${qmp}`);
    expect(statistics).toMatchObject({ freeBytes: 4096, totalBytes: null });
    expect((await aerostat(`stats web ${qmp}`)).out).toMatch(/free +4K/);
  });

  test('has its statistics polled', async () => {
    expect((await aerostat(`set --poll-interval 5s ${qmp}`)).code).toBe(EXIT.ok);
    expect(qemu.interval).toBe(5);
  });

  test('can be watched', async () => {
    const session = start(['watch', '--json', '--interval', '50ms', '--qmp', monitor.path]);
    await expect.poll(() => session.stdout.text.split('\n').length).toBeGreaterThan(3);
    session.interrupt();
    expect(await session.ended).toBe(EXIT.interrupted);
    const [line] = session.stdout.text.split('\n');
    expect(JSON.parse(line).guests[0]).toMatchObject({ memoryBytes: GIB });
  });

  test.each([
    ['hint web start', /only while it migrates/],
    ['hint web status', /tells nothing of free page hints/],
    ['set web --discard before-ack', /hypervisor of web decides itself/],
    ['set web --balloon 1G', /cannot hold/],
  ])('is refused what QEMU does not do: %s', async (words, why) => {
    const { code, err } = await aerostat(`${words} ${qmp}`);
    expect(code).toBe(EXIT.guestState);
    expect(err).toMatch(why);
  });
});

const RAM = {
  total: GIB,
  transferred: 300 * MIB,
  remaining: 100 * MIB,
  duplicate: 200_000,
  normal: 70_000,
  'page-size': 4096,
  'dirty-sync-count': 2,
  mbps: 8000,
};

describe('aerostat migrate', () => {
  const completed = { status: 'completed', 'total-time': 1500, downtime: 40, ram: { ...RAM, remaining: 0 } };

  test('moves a guest and sums up', async () => {
    qemu.migrations = [{ status: 'setup' }, { status: 'active', ram: RAM }, completed];
    const { code, out } = await aerostat(`migrate web tcp:host2:4444 --connections 2 ${qmp}`);
    expect(code).toBe(EXIT.ok);
    expect(out).toMatchInlineSnapshot(`
      "web: moved to tcp:host2:4444 in 1.5s
        downtime     40ms
        rounds       2
        transferred  300M
        pages sent   70,000
        zero pages   200,000
      "
    `);
    expect(monitor.commands.filter(command => command.startsWith('migrate'))).toEqual([
      'migrate-set-capabilities',
      'migrate-set-parameters',
      'migrate-set-parameters',
      'migrate',
    ]);
  });

  test('says the same to programs, with null for what QEMU does not tell', async () => {
    qemu.migrations = [completed];
    expect(await json(`migrate tcp:host2:4444 --bandwidth 10gbit --downtime-limit 50ms ${qmp}`)).toEqual({
      guest: 'web',
      to: 'tcp:host2:4444',
      summary: {
        totalMs: 1500,
        downtimeMs: 40,
        rounds: 2,
        bytes: 300 * MIB,
        pages: 70_000,
        zeroPages: 200_000,
        resentPages: null,
        freePages: null,
        balloonPages: null,
        unbackedPages: null,
        hintRaces: null,
      },
    });
    const parameters = monitor.requests.find(({ command }) => command === 'migrate-set-parameters');
    expect(parameters?.arguments).toEqual({ 'max-bandwidth': 1.25e9, 'downtime-limit': 50 });
  });

  test('shows how far it is on a terminal, and to who asks meanwhile', async () => {
    qemu.migrations = [{ status: 'active', 'total-time': 700, 'expected-downtime': 90, ram: RAM }];
    const session = start(['migrate', 'tcp:host2:4444', '--qmp', monitor.path], { columns: 100 });
    await expect.poll(() => session.stderr.text).toContain('round 2, 100M to go');
    qemu.migrations = [completed];
    expect(await session.ended).toBe(EXIT.ok);
    qemu.migrations = [{ status: 'active', 'total-time': 700, 'expected-downtime': 90, ram: RAM }];
    expect((await aerostat(`migrate web --status ${qmp}`)).out).toBe(
      'web: active after 700ms, round 2, 300M sent, 100M to go, 954M/s, 90ms of downtime expected\n',
    );
    qemu.migrations = [];
    expect(await json(`migrate --status ${qmp}`)).toEqual({ guest: 'web', migration: null });
  });

  test('is called back by Ctrl-C, and by --cancel', async () => {
    qemu.migrations = [{ status: 'active', ram: RAM }];
    const session = start(['migrate', 'tcp:host2:4444', '--qmp', monitor.path]);
    await expect.poll(() => monitor.commands).toContain('migrate');
    session.interrupt();
    await expect.poll(() => monitor.commands).toContain('migrate_cancel');
    qemu.migrations = [{ status: 'cancelled' }];
    expect(await session.ended).toBe(EXIT.interrupted);
    // Another client's migration, as far as this command knows.
    qemu.migrations = [{ status: 'active', ram: RAM }];
    expect((await aerostat(`migrate --cancel ${qmp}`)).code).toBe(EXIT.ok);
    qemu.migrations = [{ status: 'cancelled' }];
    const { code, err } = await aerostat(`migrate --cancel ${qmp}`);
    expect(code).toBe(EXIT.guestState);
    expect(err).toContain('is not being moved');
  });

  test('says why QEMU could not', async () => {
    qemu.migrations = [{ status: 'failed', 'error-desc': 'Connection refused' }];
    const { code, err } = await aerostat(`migrate tcp:host2:4444 ${qmp}`);
    expect(code).toBe(EXIT.failed);
    expect(err).toMatch(/could not migrate to tcp:host2:4444: Connection refused/);
  });

  test.each([
    ['migrate', /where to/],
    ['migrate web host2:4444', /host2:4444 is no destination/],
    ['migrate web tcp:host2:4444 --connections 0', /1 to 64/],
    ['migrate web tcp:host2:4444 --bandwidth fast', /is not a rate/],
    ['migrate web tcp:host2:4444 --status', /leave its destination out/],
  ])('%s makes no sense', async (words, why) => {
    const { code, err } = await aerostat(`${words} ${qmp}`);
    expect(code).toBe(EXIT.usage);
    expect(err).toMatch(why);
    expect(monitor.commands).not.toContain('migrate');
  });
});

describe('a QEMU that is killed', () => {
  test('before a command is said to be gone', async () => {
    const { code, err } = await aerostat(`status --qmp ${join(directory, 'absent')}`);
    expect(code).toBe(EXIT.unreachable);
    expect(err).toMatch(/no such socket; start QEMU with -qmp unix:PATH/);
  });

  test.each([
    ['status', 'query-balloon'],
    ['status', 'x-query-virtio-status'],
    ['set --balloon 512M', 'balloon'],
    ['set --balloon 512M --wait', 'query-memory-size-summary'],
    ['set --poll-interval 1s', 'qom-set'],
    ['stats', 'qom-get'],
    ['stats --fresh', 'qom-set'],
    ['watch --interval 50ms', 'query-balloon'],
    ['watch --json --interval 50ms', 'qom-list'],
    ['migrate tcp:host2:4444', 'migrate'],
    ['migrate tcp:host2:4444', 'query-migrate'],
    ['migrate --status', 'query-migrate'],
    ['migrate --cancel', 'migrate_cancel'],
  ])('in the middle of `aerostat %s`, at %s, ends it with words and a code', async (words, command) => {
    // What waits or watches comes further than one look.
    let left = /wait|watch/.test(words) ? 2 : 1;
    const { respond } = monitor;
    qemu.migrations = [{ status: 'active', ram: RAM }];
    monitor.respond = (request, from) => {
      if (request.command === command && --left <= 0) void monitor.close();
      else respond(request, from);
    };
    const { code, err } = await aerostat(`${words} ${qmp}`);
    expect(code).toBe(EXIT.unreachable);
    expect(err).toMatch(/^aerostat: .*(was not answered|cannot connect|closed the connection)/);
  });
});

describe('a monitor that another program has', () => {
  let holder: ChildProcess;
  let path: string;
  let server: Server;

  beforeEach(async () => {
    path = join(directory, 'held.qmp');
    // As QEMU does: the first client is greeted, and the next ones wait in silence.
    server = createServer();
    await new Promise<void>(resolve => server.listen(path, resolve));
    const program = join(directory, 'dashboard-holder');
    writeFileSync(program, "require('net').connect(process.argv[2]);");
    const connected = once(server, 'connection');
    holder = spawn(process.execPath, [program, path], { stdio: 'ignore' });
    await connected;
  });

  afterEach(async () => {
    await end();
    await new Promise(resolve => server.close(resolve));
  });

  async function end(): Promise<void> {
    if (holder.exitCode !== null || holder.signalCode !== null) return;
    const ended = once(holder, 'exit');
    holder.kill();
    await ended;
  }

  test('is said to be had by that program, and the command fails long before its patience ends', async () => {
    const began = performance.now();
    const { code, err } = await aerostat(`status --qmp web=${path}`);
    expect(code).toBe(EXIT.unreachable);
    expect(err).toContain(
      `takes one client at a time, and dashboard-holder (process ${holder.pid}) is connected; ask that program, end it,`,
    );
    const heldMs = performance.now() - began;
    // The same wait without another client lasts until the greeting is overdue.
    await end();
    const silent = performance.now();
    expect((await aerostat(`status --qmp web=${path}`)).err).toMatch(/sent no greeting within/);
    expect(heldMs).toBeLessThan(performance.now() - silent);
  });

  test('is unreachable in a list, with the reason, and the list fails', async () => {
    const file = join(directory, 'aerostat.toml');
    const guests = [
      { name: 'web', qmp: path },
      { name: 'db', qmp: monitor.path },
    ];
    writeFileSync(file, guestsToml(guests));
    const { code, out, err } = await aerostat(`status --config ${file}`);
    expect(code).toBe(EXIT.unreachable);
    expect(out).toMatch(/^web {4}unreachable .*dashboard-holder/m);
    expect(out).toMatch(/^db {5}running /m);
    expect(err).toMatch(/1 of 2 guests cannot be asked: web: .*dashboard-holder/);
  });
});

describe('a guest of QEMU without a driver', () => {
  test('has the state that a guest of our device has then, and the reason is said', async () => {
    qemu.driver = false;
    expect((await json(`status ${qmp}`)).guests[0]).toMatchObject({ state: 'no-driver', lastError: null });
    expect((await aerostat(`status ${qmp}`)).out).toMatch(/ no driver /);
    qemu.driver = true;
    expect((await json(`status ${qmp}`)).guests[0]).toMatchObject({ state: 'running', lastError: null });
    qemu.runState = 'paused';
    expect((await aerostat(`status ${qmp}`)).out).toMatch(/ paused /);
    const { code, err } = await aerostat(`set web --balloon 128M --wait --timeout 60s ${qmp}`);
    expect(code).toBe(EXIT.notReached);
    expect(err).toMatch(/it is paused: its hypervisor has stopped it/);
    qemu.runState = 'running';
    qemu.balloon = false;
    expect((await json(`status ${qmp}`)).guests[0]).toMatchObject({
      connected: false,
      state: 'waiting',
      lastError: expect.stringMatching(/-device virtio-balloon-pci/),
    });
  });
});

describe('a file that names guests of both kinds', () => {
  let control: FakeControl;
  let close: () => Promise<void>;
  let file: string;

  beforeEach(async () => {
    control = new FakeControl(guestStatus('vm2', { actualBytes: GIB, balloonedBytes: GIB }));
    const api = join(directory, 'api.sock');
    const server = await serveApi(control, { version: '0', address: parseAddress(api) });
    close = () => server.close();
    file = join(directory, 'aerostat.toml');
    const guests = [
      { name: 'web', qmp: monitor.path },
      { name: 'db', api: './api.sock', guest: 'vm2' },
    ];
    writeFileSync(file, guestsToml(guests));
  });

  afterEach(() => close());

  test('lists them in one table', async () => {
    expect((await aerostat(`status --config ${file}`)).out).toBe(
      [
        'GUEST  STATE    MEMORY  TARGET  BALLOON  PENDING  RESIDENT  LAST ERROR',
        'web    running      1G       -        0        0         -  -',
        'db     running      4G       0       1G        0      1.5G  -',
        '',
      ].join('\n'),
    );
  });

  test('serves every command, under the names in the file', async () => {
    expect((await json(`status db --config ${file}`)).guests[0].name).toBe('db');
    expect((await json(`set db --balloon 2G --config ${file}`)).guest).toMatchObject({
      name: 'db',
      targetBytes: 2 * GIB,
    });
    expect(control.calls).toContainEqual(['change', 'vm2', { targetBytes: 2 * GIB }]);
    await aerostat(`set web --balloon 128M --config ${file}`);
    expect(qemu.left).toBe(GIB - 128 * MIB);
    expect((await json(`stats db --config ${file}`)).statistics.totalBytes).toBe(4 * GIB);
    expect((await json(`stats web --config ${file}`)).statistics.totalBytes).toBeNull();
    expect((await json(`hint db start --config ${file}`)).state).toBe('running');
  });

  test('lists a guest that cannot be reached with the reason, and fails for that guest alone', async () => {
    await monitor.close();
    const { guests } = await json(`status --config ${file}`);
    const table = await aerostat(`status --config ${file}`);
    expect(table.code).toBe(EXIT.unreachable);
    expect(table.out).toMatch(/^web {4}unreachable .*\ndb {5}running /m);
    expect(table.err).toMatch(/1 of 2 guests cannot be asked: web: cannot connect to the QEMU monitor/);
    expect(guests.map((guest: { connected: boolean }) => guest.connected)).toEqual([false, true]);
    expect(guests[0].lastError).toMatch(/cannot connect to the QEMU monitor/);
    expect((await aerostat(`status web --config ${file}`)).code).toBe(EXIT.unreachable);
    expect((await aerostat(`status db --config ${file}`)).code).toBe(EXIT.ok);
    expect((await aerostat(`status absent --config ${file}`)).code).toBe(EXIT.unknownGuest);
  });

  test('migrates each in the way of its host', async () => {
    qemu.migrations = [{ status: 'failed' }];
    expect((await aerostat(`migrate web tcp:h:1 --config ${file}`)).code).toBe(EXIT.failed);
    expect((await aerostat(`migrate db --status --config ${file}`)).out).toBe('db: never migrated\n');
    expect((await aerostat(`migrate db --cancel --config ${file}`)).code).toBe(EXIT.guestState);
  });

  test.each([
    ['[guests', /aerostat\.toml:1:8: /],
    ['', /names no guests: give it \[sources\]/],
    ['[guests.web]', /names no guests: give it \[sources\]/],
    ['[guests.web]\nqmp = 5', /aerostat\.toml:2:1: guests\.web\.qmp: /],
    ['[guests.web]\nqpm = "/q"', /aerostat\.toml:2:1: guests\.web\.qpm: there is no such setting/],
    ['[guests."w b"]\nqmp = "/q"', /aerostat\.toml:1:1: .*letters, digits/],
    ['[guests.a]\nqmp = "/q"\n[guests.a]\napi = "/a"', /aerostat\.toml:3:/],
  ])('is refused with the place when it says %j', async (text, why) => {
    writeFileSync(file, text);
    const { code, err } = await aerostat(`status --config ${file}`);
    expect(code).toBe(EXIT.usage);
    expect(err).toMatch(why);
    expect(err).toContain(file);
  });

  test('is missed by its name when it is not there', async () => {
    const { code, err } = await aerostat(`status --config ${file}.gone`);
    expect(code).toBe(EXIT.usage);
    expect(err).toMatch(/\.gone: there is no such file/);
  });

  test('is not read beside --qmp or --api', async () => {
    expect((await aerostat(`status --config ${file} ${qmp}`)).code).toBe(EXIT.usage);
    expect((await aerostat(`status --api /a ${qmp}`)).code).toBe(EXIT.usage);
  });
});

describe('guests of a directory of monitors', () => {
  let other: FakeMonitor;

  beforeEach(async () => {
    const path = join(directory, '100.qmp');
    other = await FakeMonitor.start({ path, respond: (request, from) => qemu.answer(request, from) });
  });

  afterEach(() => other.close());

  test('are under the same commands, and those that are silent fail alone', async () => {
    expect((await json(`status --qmp-dir ${directory}`)).guests[0]).toMatchObject({
      name: '100',
      connected: true,
    });
    await aerostat(`set 100 --balloon 128M --qmp-dir ${directory}`);
    expect(qemu.left).toBe(GIB - 128 * MIB);
    const dead = await FakeMonitor.start({ path: join(directory, '101.qmp'), greeting: null });
    try {
      const { code, out } = await aerostat(`status --qmp-dir ${directory}`);
      expect(code).toBe(EXIT.unreachable);
      expect(out).toMatch(/^100 {4}running .*\n101 {4}unreachable /m);
    } finally {
      await dead.close();
    }
  });

  test('are said not to be there by where they were looked for, not as those of a daemon', async () => {
    const [empty, another] = [join(directory, 'empty'), join(directory, 'another')];
    for (const path of [empty, another]) mkdirSync(path);
    expect(await aerostat(`status --qmp-dir ${empty}`)).toMatchObject({
      code: EXIT.ok,
      out: `No monitor of a QEMU is in ${empty}.\n`,
    });
    const config = join(directory, 'aerostat.toml');
    writeFileSync(config, '[sources]\nqmp-dirs = ["empty", "another"]\n');
    expect((await aerostat(`status --config ${config}`)).out).toBe(
      `There is no guest at ${empty}, ${another}.\n`,
    );
  });

  test('are refused beside other guests, and where there is no directory', async () => {
    expect((await aerostat(`status --qmp-dir ${directory} ${qmp}`)).code).toBe(EXIT.usage);
    expect((await aerostat(`status --qmp-names vm`)).code).toBe(EXIT.usage);
    const { code, err } = await aerostat(`status --qmp-dir ${directory}/nothing`);
    expect(code).toBe(EXIT.usage);
    expect(err).toMatch(/there is no such directory/);
  });
});

test('a client of a dashboard sends no guest where only the user of the machine may', async () => {
  const session = start(['dashboard', '--no-open', '--qmp', `web=${monitor.path}`], { env: {} });
  await expect.poll(() => session.stdout.text).toMatch(/#token=\S+\n/);
  const page = new URL(session.stdout.text.trim());
  const answer = await fetch(new URL('/v1/guests/web/migration', page), {
    method: 'POST',
    headers: {
      authorization: `Bearer ${page.hash.slice('#token='.length)}`,
      'content-type': 'application/json',
      connection: 'close',
    },
    body: JSON.stringify({ to: 'exec:touch /tmp/harm' }),
  });
  expect(answer.status).toBe(400);
  expect(monitor.commands).not.toContain('migrate');
  session.interrupt();
  await session.ended;
});
