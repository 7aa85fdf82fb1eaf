/** `aerostat run --guest linux`: boots, is steered from elsewhere, takes commands, and leaves nothing. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { describePeer, missingForUml } from '../support/peers.ts';
import { build, program } from './built.ts';

/** Far above what a boot takes; only what hangs reaches it. */
const BOOT_MS_MAX = 60_000;

describePeer('aerostat run --guest linux', missingForUml(), () => {
  let directory: string;
  let environment: NodeJS.ProcessEnv;
  let child: ChildProcess;
  let output: string;
  let log: string;

  beforeAll(build);

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    mkdirSync(join(directory, 'tmp'));
    environment = { ...process.env, XDG_RUNTIME_DIR: directory, TMPDIR: join(directory, 'tmp') };
    delete environment.AEROSTAT_API;
    child = spawn(program, ['run', '--guest', 'linux', '--memory', '256M'], { env: environment });
    [output, log] = ['', ''];
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
    const died = ended().then(code => {
      throw new Error(`it ended with ${code}: ${log}`);
    });
    await Promise.race([died, expect.poll(() => output, { timeout: BOOT_MS_MAX }).toContain('guest:')]);
    died.catch(() => {});
  }, BOOT_MS_MAX);

  afterEach(async () => {
    // Only a test that failed leaves it running; asked politely, it takes its guest along.
    if (child.exitCode === null) {
      const end = ended();
      child.kill('SIGTERM');
      await end;
    }
    rmSync(directory, { recursive: true });
  });

  const aerostat = (...words: string[]) => spawnSync(program, words, { env: environment, encoding: 'utf8' });

  const ended = () =>
    new Promise(resolve => {
      child.once('exit', code => resolve(code));
    });

  const expectNothingLeft = () => {
    expect(readdirSync(join(directory, 'tmp'))).toEqual([]);
    expect(readdirSync(join(directory, 'aerostat'))).toEqual([]);
  };

  test('gives a shell in a guest that can be steered from elsewhere, until exit', async () => {
    expect(log).toMatch(/Linux with 256M is up after .*\n.*aerostat set linux --balloon 128M\n$/);
    const { status, stdout } = aerostat('set', 'linux', '--balloon', '64M', '--wait', '--json');
    expect(status).toBe(EXIT.ok);
    expect(JSON.parse(stdout)).toMatchObject({
      reached: true,
      guest: { actualBytes: 64 * 2 ** 20, pendingBytes: 0 },
    });
    child.stdin?.write('grep balloon_inflate /proc/vmstat\n');
    await expect.poll(() => output, { timeout: 60_000 }).toMatch(/balloon_inflate 16384\r?\n/);
    const end = ended();
    child.stdin?.write('exit\n');
    expect(await end).toBe(EXIT.ok);
    expectNothingLeft();
  });

  test('takes a guest that is switched off from inside for done', async () => {
    const end = ended();
    child.stdin?.write('poweroff -f\n');
    expect(await end).toBe(EXIT.ok);
    expectNothingLeft();
  });

  test('ends with the guest, and all that it made, when it is told to', async () => {
    const end = ended();
    child.kill('SIGTERM');
    expect(await end).toBe(EXIT.terminated);
    expectNothingLeft();
  });
});
