import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { guestOptions } from '../../src/cli/guest-options.ts';
import { EXIT } from '../../src/cli/usage.ts';
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
  { file: 'aerostat@.service', command: 'device', exposureMax: 1, environment: {} },
  {
    file: 'aerostat.service',
    command: 'device',
    exposureMax: 1,
    environment: { GUESTS: '--socket-path=/run/a/vm1.sock --socket-path=/run/a/vm2.sock' },
  },
  // It listens on TCP, which the others may not.
  { file: 'aerostat-exporter.service', command: 'exporter', exposureMax: 2, environment: {} },
] as const;

describe.each(units)('the systemd unit $file', ({ file, command: name, exposureMax, environment }) => {
  const unit = read(file);
  const command = /^ExecStart=((?:.*\\\n)*.*)$/m.exec(unit)?.[1].replaceAll('\\\n', '') ?? '';
  const known: Readonly<Record<string, string>> = { OPTIONS: '', ...environment };
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
    let started = false;
    const startDaemon = () => {
      started = true;
      return Promise.reject(new Error('far enough'));
    };
    const { code, err } = await run(words, { startDaemon });
    expect(code, err).toBe(EXIT.failed);
    if (name === 'device') expect(started).toBe(true);
    // Its tokens are the service manager's to bring.
    else expect(err).toContain('there is no file %d/tokens');
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
        writeFileSync(path, unit.replaceAll('/usr/bin/aerostat', process.execPath));
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

test('units of daemons leave the socket of one that died, and let it see the memory of the host', () => {
  for (const file of ['aerostat@.service', 'aerostat.service']) {
    expect(read(file)).toMatch(/^RuntimeDirectoryPreserve=yes$/m);
    expect(read(file)).not.toMatch(/^ProcSubset=pid$/m);
  }
});
