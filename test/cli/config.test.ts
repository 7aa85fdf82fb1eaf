/** `aerostat config`, and commands over the guests of a configuration with every kind of source. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import type { Daemon, StartDaemon } from '../../src/daemon/options.ts';
import type { GuestOptions } from '../../src/hosting/options.ts';
import { parseAddress } from '../../src/server/address.ts';
import { type ApiServer, serveApi } from '../../src/server/listen.ts';
import { FakeMonitor } from '../peers/qemu/fake-monitor.ts';
import { FakeQemu } from '../peers/qemu/fake-qemu.ts';
import { FakeControl, GIB, guestStatus } from '../server/fake-control.ts';
import { build } from './built.ts';
import { run, start } from './terminal.ts';

let directory: string;
let path: string;
let env: Record<string, string>;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-config-'));
  mkdirSync(join(directory, 'aerostat'));
  path = join(directory, 'aerostat', 'aerostat.toml');
  env = { XDG_CONFIG_HOME: directory, AEROSTAT_SYSTEM_CONFIG: join(directory, 'none'), HOME: directory };
});

afterEach(() => rmSync(directory, { recursive: true }));

describe('aerostat config', () => {
  test('check says what a right file names, and of a wrong one every error with its place', async () => {
    writeFileSync(path, '[sources]\nlibvirt = ["qemu:///system"]\n[guests.web]\nsocket = "web.sock"\n');
    const right = await run(['config', 'check'], { env });
    expect(right).toMatchObject({ code: 0, out: `${path} is right: 1 guest to serve, 1 libvirt\n` });
    expect(JSON.parse((await run(['config', 'check', '--json'], { env })).out)).toMatchObject({
      path,
      served: 1,
    });
    writeFileSync(path, 'speed = 3\n[policy]\nreserve = "lots"\n');
    const wrong = await run(['config', 'check', path], { env });
    expect(wrong.code).toBe(2);
    expect(wrong.err).toContain(`${path}:1:1: speed: there is no such setting`);
    expect(wrong.err).toContain(`${path}:3:1: policy.reserve:`);
  });

  test('without a file says where one is looked for', async () => {
    const { code, err } = await run(['config', 'check'], { env });
    expect(code).toBe(2);
    expect(err).toContain(path);
  });

  test('show has what the file says with its line, and what else is in force', async () => {
    writeFileSync(path, '[policy]\nperiod = "1s"\n[guests.web]\nqmp = "/q"\nmin = "1G"\n');
    const { out } = await run(['config', 'show'], { env });
    expect(out).toContain('policy.period = "1s"  # line 2\n');
    expect(out).toContain('guests.web.min = "1G"  # line 5\n');
    expect(out).toContain('policy.on-silence = "keep"  # default\n');
    const { settings } = JSON.parse((await run(['config', 'show', '--json'], { env })).out);
    expect(settings).toContainEqual({ key: 'policy.period', value: '"1s"', line: 2 });
    expect(settings).toContainEqual({ key: 'log.level', value: '"info"', line: null });
  });

  test('explain says what a setting means, and knows the near ones of a wrong one', async () => {
    const one = await run(['config', 'explain', 'guests.web.min'], { env });
    expect(one.out).toMatch(/^guests\.NAME\.min {2}text\n {4}What the guest keeps/);
    expect(one.out).toContain('min = "512M"');
    expect((await run(['config', 'explain', 'policy'], { env })).out).toContain('policy.defaults.min');
    const wrong = await run(['config', 'explain', 'policy.target'], { env });
    expect(wrong).toMatchObject({
      code: 2,
      err: expect.stringContaining('device.target and guests.NAME.target are'),
    });
    expect(
      JSON.parse((await run(['config', 'explain', '--json'], { env })).out).settings.length,
    ).toBeGreaterThan(30);
  });
});

describe('a configuration with every kind of source', () => {
  let server: ApiServer;
  let control: FakeControl;
  let qemu: FakeQemu;
  let monitors: FakeMonitor[];

  beforeAll(build);

  beforeEach(async () => {
    control = new FakeControl(guestStatus('vm1'), guestStatus('web'));
    qemu = new FakeQemu();
    for (const name of ['host1', 'qemus']) mkdirSync(join(directory, name));
    const api = join(directory, 'host1', 'api.sock');
    server = await serveApi(control, { version: '0', address: parseAddress(api) });
    const paths = ['qemus/100.qmp', 'qemus/web.qmp', 'db.qmp'].map(name => join(directory, name));
    const respond: FakeMonitor['respond'] = (request, from) => qemu.answer(request, from);
    monitors = await Promise.all(paths.map(place => FakeMonitor.start({ path: place, respond })));
    // The driver of libvirt that its own tests have: a domain called test, without a hypervisor.
    writeFileSync(
      path,
      `[sources]
daemons = ["../host1/api.sock"]
qmp-dirs = ["../qemus", "../later"]
libvirt = ["test:///default"]

[guests.db]
qmp = "../db.qmp"
`,
    );
  });

  afterEach(async () => {
    await Promise.all(monitors.map(monitor => monitor.close()));
    await server.close();
  });

  /** Where libvirt's library is not installed, its source is a row with the reason. */
  const NAMES = ['vm1', 'host1/web', 'db', '100', 'qemus/web', expect.stringMatching(/^(test|libvirt)$/)];
  const names = async () => {
    const { guests } = JSON.parse((await run(['status', '--json'], { env })).out);
    return guests.map(({ name }: { name: string }) => name);
  };

  test('serves all of them in one list, and each command under these names', async () => {
    expect(await names()).toEqual(NAMES);
    expect((await run(['set', 'host1/web', '--balloon', '1G'], { env })).code).toBe(0);
    expect(control.calls).toContainEqual(['change', 'web', { targetBytes: GIB }]);
    await run(['set', 'qemus/web', '--balloon', '128M'], { env });
    expect(qemu.left).toBe(GIB - 2 ** 27);
    const table = await run(['status', 'qemus/*'], { env });
    expect(table.out).toMatch(/^qemus\/web +running/m);
  });

  test('one of which is gone costs the others nothing', async () => {
    await server.close();
    const { code, out } = await run(['status'], { env });
    expect(code).toBe(EXIT.unreachable);
    expect(out).toMatch(/^host1 +unreachable/m);
    expect(out).toMatch(/^100 +running/m);
    // No other guest is called so now.
    expect(out).toMatch(/^web +running/m);
  });

  test('serves one page and one top', async () => {
    const page = start(['dashboard', '--no-open', '--json'], { env });
    await expect.poll(() => page.stdout.text).toContain('#token=');
    const url = new URL(JSON.parse(page.stdout.text).url);
    const answer = await fetch(new URL('/v1/guests', url), {
      headers: { authorization: `Bearer ${url.hash.slice('#token='.length)}`, connection: 'close' },
    });
    const { guests } = (await answer.json()) as { guests: { name: string }[] };
    expect(guests.map(({ name }) => name)).toEqual(NAMES);
    page.interrupt();
    await page.ended;
    const top = start(['top'], { env, columns: 140 });
    for (const name of ['host1/web', 'db', '100', 'qemus/web']) {
      await expect.poll(() => top.stdout.text).toContain(name);
    }
    top.interrupt();
    await top.ended;
  });

  test('is not looked at where an option or the environment names guests', async () => {
    const socket = join(directory, 'host1', 'api.sock');
    const { out } = await run(['status', '--json'], { env: { ...env, AEROSTAT_API: socket } });
    expect(JSON.parse(out).guests).toHaveLength(2);
  });
});

describe('aerostat device --config', () => {
  /** A daemon that keeps what it is told. */
  function recorded() {
    const opened: GuestOptions[] = [];
    const connected = new Set<string>();
    const control = new FakeControl();
    const daemon: Daemon = {
      control,
      servedMs: 0,
      version: '0',
      failed: new Promise(() => {}),
      open: async guest => {
        opened.push(guest);
        control.known.set(guest.name, guestStatus(guest.name, { connected: connected.has(guest.name) }));
      },
      toHandOver: [],
      get keeper(): never {
        throw new Error('this fake has no keeper');
      },
      handOver: () => Promise.reject(new Error('this fake hands nothing over')),
      dismiss: async name =>
        void opened.splice(
          opened.findIndex(guest => guest.name === name),
          1,
        ),
      close: async () => {},
    };
    const startDaemon: StartDaemon = async ({ guests }) => {
      for (const guest of guests) await daemon.open(guest);
      return daemon;
    };
    return { opened, connected, startDaemon, names: () => opened.map(({ name }) => name) };
  }

  test('serves the guests that have a socket, with the API, log and policy of the file', async () => {
    writeFileSync(
      path,
      '[api]\nlisten = "api.sock"\n[log]\nformat = "json"\n[device]\ntarget = "1G"\npolicy = true\n' +
        '[guests.web]\nsocket = "web.sock"\nmin = "512M"\n[guests.db]\nsocket = "db.sock"\ntarget = "2G"\n' +
        '[guests.far]\nqmp = "/q"\n',
    );
    const { opened, startDaemon } = recorded();
    const session = start(['device'], { env: { ...env, XDG_STATE_HOME: directory }, startDaemon });
    await expect.poll(() => session.stderr.text).toContain('API on');
    expect(opened.map(({ name, targetBytes }) => [name, targetBytes])).toEqual([
      ['web', GIB],
      ['db', 2 * GIB],
    ]);
    expect(JSON.parse(session.stderr.text.split('\n')[0])).toHaveProperty('level');
    const socket = join(directory, 'aerostat', 'api.sock');
    expect(session.stderr.text).toContain(socket);
    expect((await run(['policy', 'status', '--api', socket], { env })).code).toBe(0);
    session.interrupt('SIGTERM');
    expect(await session.ended).toBe(0);
  });

  test('takes guests in and lets them go on SIGHUP; one with a front-end stays, and a wrong file changes nothing', async () => {
    const write = (...guests: string[]) =>
      writeFileSync(
        path,
        guests.map(name => `[guests.${name}]\nsocket = "${name}.sock"\n`).join('') +
          '[api]\nlisten = "a.sock"\n',
      );
    write('one', 'two', 'three');
    const { names, connected, startDaemon } = recorded();
    connected.add('two');
    const session = start(['device', '--config', path], { env, startDaemon });
    await expect.poll(() => session.stderr.text).toContain('API on');
    write('one', 'four');
    session.hangUp();
    await expect.poll(() => session.stderr.text).toMatch(/three.*not served/);
    expect(names()).toEqual(['one', 'two', 'four']);
    expect(session.stderr.text).toMatch(/two.*served until its front-end leaves/);
    writeFileSync(path, 'speed = 3\n');
    session.hangUp();
    await expect.poll(() => session.stderr.text).toContain(`${path}:1:1: speed`);
    expect(names()).toEqual(['one', 'two', 'four']);
    session.interrupt('SIGTERM');
    expect(await session.ended).toBe(0);
  });

  test('is refused beside sockets, and where the file has no guest to serve', async () => {
    writeFileSync(path, '[guests.far]\nqmp = "/q"\n');
    const none = await run(['device', '--config', path], { env });
    expect([none.code, none.err]).toEqual([EXIT.usage, expect.stringContaining('has no guest to serve')]);
    const both = await run(['device', '--config', path, '--socket-path', 'a'], { env });
    expect([both.code, both.err]).toEqual([EXIT.usage, expect.stringContaining('not by both')]);
  });
});
