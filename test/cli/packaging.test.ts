import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { guestOptions } from '../../src/cli/guest-options.ts';
import { EXIT } from '../../src/cli/usage.ts';
import type { DaemonOptions } from '../../src/daemon/options.ts';
import { run } from './terminal.ts';

const read = (name: string) => readFileSync(new URL(`../../packaging/${name}`, import.meta.url), 'utf8');
const descriptor = JSON.parse(read('50-aerostat.json'));

describe('the vhost-user descriptor', () => {
  test('has what the schema asks for, and nothing besides', () => {
    expect(descriptor).toEqual({
      description: expect.any(String),
      type: 'balloon',
      binary: '/usr/bin/aerostat',
    });
  });

  test('says the same type as the program itself', async () => {
    const { out } = await run(['--print-capabilities']);
    expect(JSON.parse(out).type).toBe(descriptor.type);
  });
});

const units = [
  { file: 'aerostat@.service', command: 'device', exposureMax: 1 },
  { file: 'aerostat.service', command: 'device', exposureMax: 1 },
  { file: 'aerostat-pair@.service', command: 'device', exposureMax: 1 },
  { file: 'aerostat-keeper.service', command: 'keep', exposureMax: 1 },
  // It listens on TCP, which the others may not.
  { file: 'aerostat-exporter.service', command: 'exporter', exposureMax: 2 },
] as const;

/** As the units say it. */
const KEEPER = '/run/aerostat/keeper/keeper.sock';
const CONFIGURATION = '/etc/aerostat/aerostat.toml';

describe.each(units)('the systemd unit $file', ({ file, command: name, exposureMax }) => {
  const unit = read(file);
  const command = /^ExecStart=((?:.*\\\n)*.*)$/m.exec(unit)?.[1].replaceAll('\\\n', '') ?? '';
  const known: Readonly<Record<string, string>> = { OPTIONS: '' };
  const [program, ...words] = command
    .replaceAll(
      /\$(\w+)/g,
      (_, variable: string) => known[variable] ?? expect.fail(`${file} has $${variable}`),
    )
    .replaceAll('%i', 'vm1')
    .trim()
    .split(/ +/);

  test('starts the program of the descriptor', () => {
    expect([program, words[0]]).toEqual([descriptor.binary, name]);
  });

  test('uses options that the program has', async () => {
    let started: DaemonOptions | undefined;
    const startDaemon = (options: DaemonOptions) => {
      started = options;
      return Promise.reject(new Error('far enough'));
    };
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    const configuration = join(directory, 'aerostat.toml');
    writeFileSync(configuration, '[guests.vm1]\nsocket = "/run/aerostat/guests/vm1.sock"\n');
    const said = [...unit.matchAll(/^Environment=(.*)$/gm)].flatMap(([, all]) => all.split(' '));
    const env = {
      ...Object.fromEntries(said.map(each => each.split('='))),
      // The service manager's, for StateDirectory=.
      STATE_DIRECTORY: '/var/lib/aerostat/vm1',
    };
    const placed = words.map(word => word.replace(CONFIGURATION, configuration));
    const { code, err } = await run(placed, { startDaemon, env });
    rmSync(directory, { recursive: true });
    expect(code, err).toBe(EXIT.failed);
    // Its tokens are the service manager's to bring.
    if (name === 'exporter') expect(err).toContain('there is no file %d/tokens');
    // There is no such directory here.
    else if (name === 'keep') expect(err).toContain('/run/aerostat/keeper/keeper.sock');
    else {
      const keep = file === 'aerostat-pair@.service' ? KEEPER : 'systemd';
      expect(started).toMatchObject({ keep, stateDirectory: '/var/lib/aerostat/vm1' });
      expect(started?.guests.map(guest => guest.name)).toEqual(['vm1']);
    }
  });

  test('is documented by pages that the package has', async () => {
    const pages = /^Documentation=(.*)$/m.exec(unit)?.[1].match(/man:\S+/g) ?? [];
    expect(pages).toContain(`man:aerostat-${name}(1)`);
    expect(pages).toContain('man:aerostat(1)');
  });

  test.skipIf(spawnSync('systemd-analyze', ['--version']).error !== undefined)(
    'is understood by systemd, and leaves little exposed',
    () => {
      const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
      try {
        const path = join(directory, file);
        // The program is not installed where tests run, nor are its manual pages.
        const here = (text: string) => text.replaceAll('/usr/bin/aerostat', process.execPath);
        writeFileSync(path, here(unit));
        // It is started by others.
        const keeper = 'aerostat-keeper.service';
        if (file !== keeper) writeFileSync(join(directory, keeper), here(read(keeper)));
        const analyze = (...args: string[]) => spawnSync('systemd-analyze', args, { encoding: 'utf8' });
        const verified = analyze('verify', '--man=no', path);
        expect(`${verified.stdout}${verified.stderr}`).toBe('');
        // Of 10; a plain unit has 9.6.
        const exposure = /Overall exposure level for .*: (\d+\.\d+)/.exec(
          analyze('security', '--offline=true', path).stdout,
        );
        expect(Number(exposure?.[1])).toBeLessThan(exposureMax);
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  );
});

test('the unit of one guest names it by its instance', () => {
  const [, name] = /--name=(\S+)/.exec(read('aerostat@.service')) ?? [];
  const choice = {
    socketPath: ['/run/x'],
    name: [name.replace('%i', 'vm1')],
    target: 0,
    discard: 'auto' as const,
    pollInterval: 0,
  };
  expect(guestOptions(choice)[0].name).toBe('vm1');
});

test('units of daemons have systemd store what guests need to go on, take the word of the process that follows, and keep a state', () => {
  for (const file of ['aerostat@.service', 'aerostat.service']) {
    const unit = read(file);
    expect(unit).toMatch(/^Type=notify$/m);
    expect(unit).toMatch(/^NotifyAccess=all$/m);
    expect(Number(/^FileDescriptorStoreMax=(\d+)$/m.exec(unit)?.[1])).toBeGreaterThan(1000);
    expect(unit).toMatch(/^StateDirectory=aerostat\//m);
  }
  expect(read('aerostat.service')).toMatch(/^ConditionPathExists=\/etc\/aerostat\/aerostat\.toml$/m);
});

test('units of a pair have one keeper, which they start and do not outlive, and one of them stands by', () => {
  const [pair, keeper] = [read('aerostat-pair@.service'), read('aerostat-keeper.service')];
  expect(keeper).toContain(`ExecStart=/usr/bin/aerostat keep ${KEEPER}`);
  expect(pair).toMatch(new RegExp(`^ExecStart=/usr/bin/aerostat device --standby --keep=${KEEPER}`, 'm'));
  for (const setting of ['Requires', 'After'])
    expect(pair).toMatch(new RegExp(`^${setting}=aerostat-keeper\\.service$`, 'm'));
  for (const unit of [pair, keeper]) expect(unit).toMatch(/^Type=notify$/m);
  // The other one's sockets are there, too, and its state.
  expect(pair).toMatch(/^RuntimeDirectoryPreserve=yes$/m);
  expect(pair).toMatch(/^StateDirectory=aerostat\/guests$/m);
});

test('units of daemons leave the socket of one that died, and let it see the memory of the host', () => {
  for (const file of ['aerostat@.service', 'aerostat.service']) {
    expect(read(file)).toMatch(/^RuntimeDirectoryPreserve=yes$/m);
    expect(read(file)).not.toMatch(/^ProcSubset=pid$/m);
  }
});
