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
const copy = mkdtempSync(join(tmpdir(), 'extending-'));

beforeAll(() => {
  for (const part of ['src', 'test/support', 'test/driver/world.ts', 'package.json', 'tsconfig.json']) {
    cpSync(join(root, part), join(copy, part), { recursive: true });
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  const document = readFileSync(join(root, 'docs/extending.md'), 'utf8');
  for (const [, diff] of document.matchAll(/```diff\n(.*?)```/gs)) {
    execFileSync('git', ['apply', '-'], { cwd: copy, input: diff });
  }
});

afterAll(() => rmSync(copy, { recursive: true, force: true }));

test('the changes compile', () => {
  const files = ['src/balloon/profiles.ts', 'src/device/balloon-device.ts', 'src/driver/balloon-driver.ts'];
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
