import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { guestOptions } from '../../src/cli/guest-options.ts';
import { EXIT } from '../../src/cli/usage.ts';
import { run } from './terminal.ts';

const read = (name: string) => readFileSync(new URL(`../../packaging/${name}`, import.meta.url), 'utf8');
const unit = read('aerostat@.service');
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

describe('the systemd unit', () => {
  const command = /^ExecStart=((?:.*\\\n)*.*)$/m.exec(unit)?.[1].replaceAll('\\\n', '') ?? '';
  const [program, ...words] = command.replace(' $OPTIONS', '').replaceAll('%i', 'vm1').split(/ +/);

  test('starts the program of the descriptor', () => {
    expect(program).toBe(descriptor.binary);
  });

  test('uses options that the program has', async () => {
    let started = false;
    const startDaemon = () => {
      started = true;
      return Promise.reject(new Error('far enough'));
    };
    expect((await run(words, { startDaemon })).code).toBe(EXIT.failed);
    expect(started).toBe(true);
  });

  test('names the guest by its instance', () => {
    const name = words.find(word => word.startsWith('--name='))?.slice('--name='.length);
    const choice = {
      socketPath: ['/run/x'],
      name: [name ?? ''],
      target: 0,
      discard: 'auto' as const,
      pollInterval: 0,
    };
    expect(guestOptions(choice)[0].name).toBe('vm1');
  });

  test.skipIf(spawnSync('systemd-analyze', ['--version']).error !== undefined)(
    'is understood by systemd, and leaves little exposed',
    () => {
      const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
      try {
        const file = join(directory, 'aerostat@.service');
        // The program is not installed where tests run.
        writeFileSync(file, unit.replaceAll('/usr/bin/aerostat', process.execPath));
        const analyze = (...args: string[]) => spawnSync('systemd-analyze', args, { encoding: 'utf8' });
        const verified = analyze('verify', file);
        expect(`${verified.stdout}${verified.stderr}`).toBe('');
        // Of 10; a plain unit has 9.6.
        const exposure = /Overall exposure level for .*: (\d+\.\d+)/.exec(
          analyze('security', '--offline=true', file).stdout,
        );
        expect(Number(exposure?.[1])).toBeLessThan(1);
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  );
});
