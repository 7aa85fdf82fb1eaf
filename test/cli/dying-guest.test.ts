/** `aerostat demo` and `run` with a kernel that dies at boot: no failure unless a person asked for it, and no stack trace. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { missingPrograms } from '../../src/peers/programs.ts';
import { describePeer } from '../support/peers.ts';
import { build, program } from './built.ts';

/** What Linux 6.1 says on a processor with AMX, in short. */
const PANIC = `Linux version 9.9.9
userspace - ptrace set fp regs failed, errno = 14
Kernel panic - not syncing: userspace - ptrace set fp regs failed, errno = 14
Call Trace:
 [<0>] show_stack`;

describePeer('a kernel that dies at boot', missingPrograms('busybox'), () => {
  let directory: string;
  let environment: NodeJS.ProcessEnv;

  beforeAll(build);
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    const place = join(directory, 'aerostat/peers/uml');
    const modules = join(place, 'root/usr/lib/uml/modules/9.9.9/kernel/drivers/virtio');
    for (const path of [modules, join(place, 'root/usr/bin'), join(directory, 'tmp')]) {
      mkdirSync(path, { recursive: true });
    }
    writeFileSync(join(modules, 'virtio_balloon.ko'), '');
    const script = `#!/bin/sh\n[ "$1" = --version ] && echo 9.9.9 && exit\ncat <<'END'\n${PANIC}\nEND\nexit 1\n`;
    writeFileSync(join(place, 'root/usr/bin/linux.uml'), script, { mode: 0o755 });
    writeFileSync(join(place, 'peer.json'), JSON.stringify({ version: '9.9.9', packages: {}, bytes: 1 }));
    environment = {
      ...process.env,
      XDG_CACHE_HOME: directory,
      XDG_RUNTIME_DIR: directory,
      TMPDIR: join(directory, 'tmp'),
    };
  });
  afterEach(() => {
    expect(readdirSync(join(directory, 'tmp'))).toEqual([]);
    rmSync(directory, { recursive: true });
  });

  const aerostat = (...words: string[]) =>
    spawnSync(program, words, { env: environment, encoding: 'utf8', input: 'exit\n' });

  const FALLBACK =
    /^Linux guest: 9\.9\.9 .*\n(?:.*\n)*?embedded guest: the guest did not boot: .*does not run on this processor.*`aerostat peers install uml`.*\n/;

  test('makes the demo go on with the embedded guest, and says so in a line', () => {
    const { status, stdout, stderr } = aerostat('demo', '--memory', '128M', '--json');
    expect(stderr).toMatch(FALLBACK);
    expect(stderr).not.toMatch(/Call Trace|show_stack| at .*\.js/);
    expect(status).toBe(EXIT.ok);
    expect(JSON.parse(stdout)).toMatchObject({ guest: 'embedded' });
  });

  test('makes run go on with the embedded guest, and says so in a line', () => {
    const { status, stderr } = aerostat('run', '--memory', '128M');
    expect(stderr).toMatch(FALLBACK);
    expect(stderr).toContain('aerostat set embedded --balloon 64M');
    expect(status).toBe(EXIT.ok);
  });

  test.each(['demo', 'run'])('is one sentence to a person who asked %s for it', command => {
    const { status, stderr } = aerostat(command, '--guest', 'linux', '--memory', '128M');
    expect(status).toBe(EXIT.failed);
    const told = stderr.split('\n').filter(line => line.startsWith('aerostat: '));
    expect(told).toHaveLength(1);
    expect(told[0]).toMatch(/the guest did not boot: .*does not run on this processor/);
    expect(stderr).not.toMatch(/Call Trace|show_stack| at .*\.js/);
  });

  test('shows its console with --verbose', () => {
    expect(aerostat('run', '--guest', 'linux', '--memory', '128M', '--verbose').stderr).toContain(
      'Call Trace',
    );
  });
});
