/** The program as it is installed: compiled, as a process of its own, with signals and pipes. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { build, program } from './built.ts';

let directory: string;
let children: ChildProcess[];

beforeAll(build);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  children = [];
});

afterEach(async () => {
  await Promise.all(children.map(kill));
  rmSync(directory, { recursive: true });
});

/** Gone, and with it whatever it might still have made in its directory. */
async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

const environment = () => ({ PATH: process.env.PATH, XDG_RUNTIME_DIR: directory });

const aerostat = (...words: string[]) =>
  spawnSync(program, words, { env: environment(), encoding: 'utf8', timeout: 60_000 });

/** How many sockets the kernel has at a path: the one that listens, and the far end of every connection to it. */
const socketsAt = (path: string) =>
  readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .filter(line => line.endsWith(` ${path}`)).length;

async function startDevice(...words: string[]) {
  const socket = join(directory, 'vm1');
  const child = spawn(program, ['device', '--socket-path', socket, ...words], { env: environment() });
  children.push(child);
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const ended = new Promise(resolve => {
    child.once('exit', (code, signal) => resolve(signal ?? code));
  });
  const died = ended.then(code => {
    throw new Error(`it ended with ${code}: ${log}`);
  });
  await Promise.race([died, expect.poll(() => log, { timeout: 60_000 }).toContain('API on')]);
  died.catch(() => {});
  return { child, socket, ended };
}

/** A demonstration whose guest is up; what it leaves behind would lie in the test's directory. */
async function demoThatIsUp() {
  const words = ['demo', '--guest', 'embedded', '--memory', '256M'];
  const demo = spawn(program, words, { env: { ...environment(), TMPDIR: directory } });
  children.push(demo);
  let text = '';
  demo.stderr.setEncoding('utf8').on('data', (more: string) => {
    text += more;
  });
  const said = () => text;
  const ended = new Promise(resolve => {
    demo.once('exit', code => resolve(code));
  });
  await expect.poll(said, { timeout: 60_000, interval: 10 }).toContain('up and idle');
  return { demo, ended, said };
}

describe('a daemon and the commands', () => {
  test('find each other where a session keeps its sockets, with nothing said about it', async () => {
    const { child, ended } = await startDevice();
    const { status, stdout } = aerostat('status', '--json');
    expect(status).toBe(EXIT.ok);
    expect(JSON.parse(stdout)).toMatchObject({ guests: [{ name: 'vm1', connected: false }] });
    expect(existsSync(join(directory, 'aerostat', 'api.sock'))).toBe(true);
    child.kill('SIGTERM');
    await ended;
  });

  test.each(['SIGTERM', 'SIGINT'] as const)(
    '%s ends a daemon with 0, and its sockets are gone',
    async signal => {
      const { child, socket, ended } = await startDevice();
      child.kill(signal);
      expect(await ended).toBe(EXIT.ok);
      expect(existsSync(socket)).toBe(false);
      expect(existsSync(join(directory, 'aerostat', 'api.sock'))).toBe(false);
    },
  );

  test('a second daemon on the same socket is refused, and the first goes on', async () => {
    const { socket } = await startDevice();
    const { status, stderr } = aerostat('device', '--socket-path', socket, '--api', join(directory, 'other'));
    expect(status).toBe(EXIT.failed);
    expect(stderr).toMatch(/^aerostat: .*vm1/);
    expect(stderr).not.toContain('    at ');
    expect(aerostat('status').status).toBe(EXIT.ok);
  });

  test('a daemon that was killed leaves sockets that the next one replaces', async () => {
    const { child, ended } = await startDevice();
    child.kill('SIGKILL');
    await ended;
    await startDevice();
    expect(aerostat('status').status).toBe(EXIT.ok);
  });
});

describe('a command', () => {
  test('ends with 130 on Ctrl-C', async () => {
    await startDevice();
    const watch = spawn(program, ['watch', '--json'], { env: environment() });
    children.push(watch);
    await new Promise(resolve => watch.stdout.once('data', resolve));
    const ended = new Promise(resolve => {
      watch.once('exit', code => resolve(code));
    });
    watch.kill('SIGINT');
    expect(await ended).toBe(EXIT.interrupted);
  });

  test('that waits for a device which serves another guest ends on Ctrl-C', async () => {
    const { socket } = await startDevice();
    const guest = () => {
      const words = ['guest', '--connect', socket, '--memory', '64M', '--json'];
      const child = spawn(program, words, { env: environment() });
      children.push(child);
      return child;
    };
    const served = guest();
    await new Promise(resolve => served.stdout.once('data', resolve));
    const sockets = socketsAt(socket);
    const waiting = guest();
    const ended = new Promise(resolve => {
      waiting.once('exit', code => resolve(code));
    });
    await expect.poll(() => socketsAt(socket), { timeout: 60_000 }).toBeGreaterThan(sockets);
    const askedAt = performance.now();
    waiting.kill('SIGINT');
    expect(await ended).toBe(EXIT.interrupted);
    // By itself it would have waited ten seconds.
    expect(performance.now() - askedAt).toBeLessThan(8000);
  });

  test('that finds no device says how to start one', () => {
    const { status, stderr } = aerostat('guest', '--connect', join(directory, 'none'));
    expect(status).toBe(EXIT.unreachable);
    expect(stderr).toMatch(/^aerostat: no device listens at .*aerostat device --socket-path/);
  });

  test('that is interrupted while it tells a story says nothing of what it had to give up', async () => {
    const { demo, ended, said } = await demoThatIsUp();
    demo.kill('SIGTERM');
    expect(await ended).toBe(EXIT.terminated);
    expect(said()).not.toContain('aerostat:');
  });

  test('whose terminal is closed cleans up', async () => {
    const { demo, ended } = await demoThatIsUp();
    demo.kill('SIGHUP');
    expect(await ended).toBe(EXIT.hungUp);
    expect(readdirSync(directory).filter(name => name.startsWith('aerostat-demo-'))).toEqual([]);
  });

  test.skipIf(spawnSync('script', ['--version']).status !== 0)(
    'whose terminal goes away with all its input and output ends without a complaint',
    async () => {
      const [log, pid] = ['log', 'pid'].map(name => join(directory, name));
      const demo = `exec ${program} demo --guest embedded --memory 256M 2> ${log}`;
      const terminal = spawn('script', ['-qfc', `echo $$ > ${pid}; ${demo}`, '/dev/null'], {
        env: { ...environment(), SHELL: '/bin/sh', TMPDIR: directory },
      });
      children.push(terminal);
      const said = () => (existsSync(log) ? readFileSync(log, 'utf8') : '');
      await expect.poll(said, { timeout: 60_000 }).toContain('up and idle');
      terminal.kill('SIGKILL');
      const state = () => {
        const path = `/proc/${readFileSync(pid, 'utf8').trim()}/stat`;
        return existsSync(path) ? readFileSync(path, 'utf8').replace(/^.*\) (.).*\n/s, '$1') : 'gone';
      };
      await expect.poll(state, { timeout: 60_000 }).toMatch(/gone|Z/);
      expect(said()).not.toMatch(/Assertion|aerostat:/);
      expect(readdirSync(directory).filter(name => name.startsWith('aerostat-demo-'))).toEqual([]);
    },
  );

  test('that gets one Ctrl-C from the terminal and from npm cleans up', async () => {
    const { demo, ended } = await demoThatIsUp();
    demo.kill('SIGINT');
    await new Promise(resolve => setTimeout(resolve, 10));
    demo.kill('SIGINT');
    expect(await ended).toBe(EXIT.interrupted);
    expect(readdirSync(directory).filter(name => name.startsWith('aerostat-demo-'))).toEqual([]);
  });

  test('ends quietly when its reader is gone', async () => {
    await startDevice();
    const watch = `${program} watch --json --interval 50ms | head -n 1`;
    const { status, stderr, stdout } = spawnSync('sh', ['-c', watch], {
      env: environment(),
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect({ status, stderr }).toEqual({ status: EXIT.ok, stderr: '' });
    expect(JSON.parse(stdout)).toHaveProperty('guests');
  });

  test.skipIf(!existsSync('/dev/full'))('whose output cannot be written says so, and fails', () => {
    const { status, stderr } = spawnSync('sh', ['-c', `${program} --help > /dev/full`], {
      env: environment(),
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect(status).toBe(EXIT.failed);
    expect(stderr).toMatch(/^aerostat: .*cannot be written: .*ENOSPC/);
    expect(stderr).not.toContain('    at ');
  });

  test('that cannot print its complaint ends with the code all the same', () => {
    const { status } = spawnSync('sh', ['-c', `${program} status 2> /dev/full`], {
      env: environment(),
      timeout: 60_000,
    });
    expect(status).toBe(EXIT.unreachable);
  });

  test('says which version it is', () => {
    expect(aerostat('--version').stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe('a clone that is not built', () => {
  test('says how to build it', () => {
    cpSync(dirname(program), join(directory, 'bin'), { recursive: true });
    writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
    const { status, stderr } = spawnSync(process.execPath, [join(directory, 'bin', 'aerostat'), 'status'], {
      encoding: 'utf8',
    });
    expect(status).toBe(EXIT.failed);
    expect(stderr).toMatch(/^aerostat: not built yet; run: npm run build/);
  });
});

test('where too few files may be open, that is said in a sentence and not by a stack trace', () => {
  // Its modules are read all at once.
  const { status, stderr } = spawnSync('sh', ['-c', 'ulimit -n 28; exec "$0" bench --help', program], {
    encoding: 'utf8',
  });
  expect(status).toBe(EXIT.failed);
  expect(stderr).toMatch(/^aerostat: too few files may be open .*ulimit -n 1024[^\n]*\n$/);
});
