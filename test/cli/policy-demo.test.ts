/** What a newcomer types to see a memory policy at work: the story in the terminal, and its page in a browser. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Control } from '../../src/control/operations.ts';
import { LIVING_GUEST_NAMES } from '../../src/demo/living-guests.ts';
import { remoteControl } from '../../src/server/client.ts';
import { build, program } from './built.ts';

let directory: string;
let env: NodeJS.ProcessEnv;
let child: ChildProcess | undefined;

beforeAll(build);
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  mkdirSync(join(directory, 'tmp'));
  env = { ...process.env, XDG_RUNTIME_DIR: directory, TMPDIR: join(directory, 'tmp'), DISPLAY: '' };
  delete env.AEROSTAT_API;
});
afterEach(async () => {
  await end('SIGKILL');
  rmSync(directory, { recursive: true });
});

function begin(...words: string[]): ChildProcess {
  child = spawn(program, words, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  return child;
}

async function end(signal: NodeJS.Signals): Promise<number | null> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return null;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
  return child.exitCode;
}

test('demo policy tells how a guest that bursts gets memory, and leaves nothing', async () => {
  const { stdout } = begin('demo', 'policy', '--guest', 'embedded', '--json');
  let printed = '';
  stdout?.setEncoding('utf8').on('data', text => {
    printed += text;
  });
  if (child === undefined) throw new Error('it was started');
  const [code] = await once(child, 'close');
  expect(code).toBe(0);
  const { steps, hostBytes, memoryBytes, guests, samples } = JSON.parse(printed);
  expect(guests).toHaveLength(3);
  const [idle, taken, burst] = steps.map(({ hasBytes }: { hasBytes: number[] }) => hasBytes);
  expect(idle).toEqual([memoryBytes, memoryBytes, memoryBytes]);
  expect(taken.reduce((sum: number, bytes: number) => sum + bytes)).toBeLessThan(hostBytes);
  expect(burst[0]).toBeGreaterThan(taken[0]);
  expect(steps[2].why).toMatch(/^web keeps /);
  expect(samples.length).toBeGreaterThan(steps.length);
  expect(readdirSync(join(directory, 'tmp'))).toEqual([]);
}, 180_000);

test('dashboard --policy opens at the page of a policy that steers the three guests', async () => {
  const { stdout } = begin('dashboard', '--policy');
  if (stdout === null) throw new Error('it has an output');
  const [text] = await once(stdout.setEncoding('utf8'), 'data');
  const address = new URL(String(text).trim());
  const found = /^#token=(.+)&page=\/policy$/.exec(address.hash);
  expect(found).not.toBeNull();
  const control: Control = remoteControl(
    { kind: 'tcp', host: address.hostname, port: Number(address.port) },
    { token: found?.[1] ?? '' },
  );
  const steered = async () => {
    const { state, guests } = await control.policy();
    return [state, ...guests.filter(({ decision }) => decision !== null).map(({ name }) => name)];
  };
  await expect.poll(steered, { timeout: 60_000 }).toEqual(['running', ...LIVING_GUEST_NAMES]);
  expect(await end('SIGINT')).toBe(0);
  expect(readdirSync(join(directory, 'tmp'))).toEqual([]);
}, 120_000);
