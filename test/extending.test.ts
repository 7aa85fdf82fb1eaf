/**
 * docs/extending.md is true: the changes that it shows apply to this tree, compile, and do what it says. They are made to a
 * copy of the sources.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
/** An ABI, a queue, an operation. */
const diffs = [...readFileSync(join(root, 'docs/extending.md'), 'utf8').matchAll(/```diff\n(.*?)```/gs)].map(
  ([, diff]) => diff,
);
const copy = mkdtempSync(join(tmpdir(), 'extending-'));

beforeAll(() => {
  for (const part of ['src', 'test/support', 'test/driver/world.ts', 'package.json', 'tsconfig.json']) {
    cpSync(join(root, part), join(copy, part), { recursive: true });
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  for (const diff of diffs) execFileSync('git', ['apply', '-'], { cwd: copy, input: diff });
});

afterAll(() => rmSync(copy, { recursive: true, force: true }));

test('the changes compile', () => {
  const files = [
    'src/balloon/profiles.ts',
    'src/device/balloon-device.ts',
    'src/driver/balloon-driver.ts',
    'src/hosting/data-worker.ts',
    'src/server/api.ts',
    'src/server/client.ts',
    'src/cli/guests.ts',
    'src/vm/vm-control.ts',
  ];
  const config = { extends: './tsconfig.json', include: [], files };
  writeFileSync(join(copy, 'changed.json'), JSON.stringify(config));
  const tsc = join(root, 'node_modules/.bin/tsc');
  // What it complains of is on its output, which becomes the error's message.
  const output = (() => {
    try {
      return execFileSync(tsc, ['--noEmit', '-p', 'changed.json'], { cwd: copy, encoding: 'utf8' });
    } catch (error) {
      return (error as { stdout: string }).stdout;
    }
  })();
  expect(output).toBe('');
}, 60_000);

test('a guest inflates with the new format, and answers on the new queue', async () => {
  const { World } = (await import(join(copy, 'test/driver/world.ts'))) as typeof import('./driver/world.ts');
  const runs = new World({ profile: 'page-runs' as 'virtio' });
  await runs.start();
  runs.device.targetPages = 1000;
  await runs.rest();
  expect(runs.device.accounts.balloonedPages).toBe(1000);
  expect(runs.device.counters).toMatchObject({ badBuffers: 0, badPages: 0 });

  const world = new World();
  await world.start();
  const { pressure } = world.device.parts as unknown as {
    pressure: { readonly percent: number | null; request(): void };
  };
  const idle = pressure.percent;
  expect(idle).toBeTypeOf('number');
  world.device.targetPages = 8000;
  await world.rest();
  expect(pressure.percent).toBe(idle);
  pressure.request();
  await world.rest();
  expect(pressure.percent).toBeGreaterThan(idle!);
  expect(world.device.counters).toMatchObject({ pressureBuffers: 2, badBuffers: 0 });
});

test('an operation is asked for over HTTP, and answered by the guest', async () => {
  const load = async (path: string) => import(join(copy, path));
  const [{ createApi }, { threadsControl }, { guestOperations }] = await Promise.all([
    load('src/server/api.ts') as Promise<typeof import('../src/server/api.ts')>,
    load('src/hosting/threads-control.ts') as Promise<typeof import('../src/hosting/threads-control.ts')>,
    load('src/hosting/guest-operations.ts'),
  ]);
  const guest = { device: { counters: { resets: 3 } } };
  // The thread of the guest, which has its handlers.
  const thread = { ask: async (operation: string) => guestOperations[operation](guest, {}) };
  const threads = { threadOf: () => thread, subscribe: () => () => {} };
  const { app, close } = createApi(threadsControl(threads as never), { version: '0.1.0' });
  try {
    const answer = await app.request('/v1/guests/g/resets');
    expect([answer.status, await answer.json()]).toEqual([200, { resets: 3 }]);
  } finally {
    close();
  }
});

test('an operation takes three files beside its tests, a queue one on each side and a line of a table', () => {
  const [abi, queue, operation] = diffs.map(diff =>
    [...diff.matchAll(/^\+\+\+ b\/(.*)$/gm)].map(([, path]) => path),
  );
  expect(abi).toEqual(['src/balloon/formats/page-runs.ts', 'src/balloon/profiles.ts']);
  expect(queue.sort()).toEqual([
    'src/balloon/features.ts',
    'src/device/parts.ts',
    'src/device/pressure.ts',
    'src/driver/pressure.ts',
    'src/driver/queue-parts.ts',
  ]);
  expect(operation).toEqual([
    'src/control/operations.ts',
    'src/hosting/guest-operations.ts',
    'src/server/routes.ts',
  ]);
});
