/** `aerostat run` and `aerostat demo` with the embedded guest, which needs nothing installed. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { killMarked, processesMarked } from '../support/owner.ts';
import { build, program } from './built.ts';
import { type Session, start } from './terminal.ts';

const MIB = 2 ** 20;
/** Far above what a start takes; only what hangs reaches it. */
const START_MS_MAX = 30_000;

let directory: string;
let environment: NodeJS.ProcessEnv;

beforeAll(build);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  mkdirSync(join(directory, 'tmp'));
  environment = { ...process.env, XDG_RUNTIME_DIR: directory, TMPDIR: join(directory, 'tmp') };
  delete environment.AEROSTAT_API;
});

afterEach(() => rmSync(directory, { recursive: true }));

const expectNothingLeft = () => expect(readdirSync(join(directory, 'tmp'))).toEqual([]);

test('aerostat run starts no guest when it was interrupted while its device was started', async () => {
  // Its threads run what was compiled.
  const { startDaemon } = await import(new URL('../dist/daemon/daemon.js', pathToFileURL(program)).href);
  const session: Session = start(['run', '--guest', 'embedded', '--memory', '128M'], {
    env: { AEROSTAT_API: join(directory, 'api.sock') },
    startDaemon: async options => {
      const daemon = await startDaemon(options);
      session.interrupt();
      return daemon;
    },
  });
  expect(await session.ended).toBe(EXIT.interrupted);
  expect(session.stderr.text).toBe('');
});

describe('aerostat run', () => {
  let child: ChildProcess;
  let output: string;
  let log: string;

  const begin = (words: readonly string[], stdin: 'pipe' | 'ignore' = 'pipe') => {
    child = spawn(program, ['run', '--guest', 'embedded', '--memory', '128M', ...words], {
      env: environment,
      stdio: [stdin, 'pipe', 'pipe'],
    });
    [output, log] = ['', ''];
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
  };

  const up = () => expect.poll(() => output + log, { timeout: START_MS_MAX }).toContain('is up');

  const run = async (...words: string[]) => {
    begin(words);
    await up();
  };

  const ended = () =>
    new Promise(resolve => {
      child.once('exit', code => resolve(code));
    });

  afterEach(() => {
    child.kill('SIGKILL');
  });

  test('starts device and guest as two processes, which others can steer, until exit', async () => {
    await run();
    expect(log).toContain('aerostat set embedded --balloon 64M');
    const words = ['set', 'embedded', '--balloon', '32M', '--wait', '--json'];
    const { status, stdout } = spawnSync(program, words, { env: environment, encoding: 'utf8' });
    expect(status).toBe(EXIT.ok);
    expect(JSON.parse(stdout)).toMatchObject({ guest: { actualBytes: 32 * MIB, pendingBytes: 0 } });
    child.stdin?.write('status\n');
    await expect.poll(() => output, { timeout: 60_000 }).toMatch(/actual +32M/);
    const end = ended();
    child.stdin?.write('exit\n');
    expect(await end).toBe(EXIT.ok);
    expectNothingLeft();
  });

  test('speaks any ABI, and JSON', async () => {
    await run('--profile', 'page-range', '--rings', 'packed', '--json');
    child.stdin?.write('{"id":1,"do":"status"}\n');
    await expect.poll(() => output, { timeout: 60_000 }).toContain('"profile":"page-range"');
    expect(output).toContain('ring-packed');
    const end = ended();
    child.stdin?.end();
    expect(await end).toBe(EXIT.ok);
  });

  test('ends with its guest when it is told to', async () => {
    await run();
    const end = ended();
    child.kill('SIGTERM');
    expect(await end).toBe(EXIT.terminated);
    expectNothingLeft();
  });

  test.each(['while its guest starts', 'when its guest is up'])(
    'leaves no process when it is killed %s',
    async moment => {
      // Without input, as of a service, nothing but its device tells a guest that it is alone.
      begin([], 'ignore');
      if (moment === 'when its guest is up') await up();
      else await expect.poll(() => processesMarked(directory).length, { timeout: START_MS_MAX }).toBe(2);
      const end = ended();
      child.kill('SIGKILL');
      await end;
      try {
        await expect.poll(() => processesMarked(directory)).toEqual([]);
      } finally {
        killMarked(directory);
      }
    },
  );

  test('gives Linux no ABI that it does not know', () => {
    const words = ['run', '--guest', 'linux', '--profile', 'sg'];
    expect(spawnSync(program, words, { env: environment }).status).toBe(EXIT.usage);
  });
});

describe('aerostat demo', () => {
  // Nothing is found there: no kernel of Linux, whatever this machine has.
  const bare = () => ({
    ...environment,
    PATH: join(directory, 'tmp'),
    XDG_CACHE_HOME: join(directory, 'cache'),
  });

  test('tells its story with the embedded guest where no Linux guest can be started', () => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [program, 'demo', '--memory', '256M', '--json'],
      { env: bare(), encoding: 'utf8' },
    );
    expect({ status, stderr }).toMatchObject({
      status: EXIT.ok,
      stderr: expect.stringMatching(/^embedded guest: missing: linux\.uml.*aerostat peers install uml\n/),
    });
    const { guest, bytes, steps } = JSON.parse(stdout);
    expect(guest).toBe('embedded');
    const resident = steps.map((step: { residentBytes: number }) => step.residentBytes);
    // It used memory, freed it, gave it away, had it back, and used it again.
    expect(resident[2]).toBeGreaterThanOrEqual(bytes);
    expect(resident[3]).toBeLessThan(bytes / 4);
    expect(resident[5]).toBeGreaterThanOrEqual(bytes);
    expect(steps[3].balloonBytes).toBe(bytes);
    expectNothingLeft();
  });

  test('with --guest linux says what is missing', () => {
    const { status, stderr } = spawnSync(process.execPath, [program, 'demo', '--guest', 'linux'], {
      env: bare(),
      encoding: 'utf8',
    });
    expect(status).toBe(EXIT.failed);
    expect(stderr).toMatch(/^aerostat: missing: linux\.uml.*aerostat peers install uml\n$/);
  });
});
