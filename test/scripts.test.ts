/** Scripts that are interrupted, as a terminal does it: with all the programs that they have started. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

test('micro benchmarks that are interrupted leave nothing', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  const child = spawn(process.execPath, ['scripts/bench-micro.mjs'], {
    cwd: root,
    detached: true,
    env: { ...process.env, TMPDIR: directory },
    stdio: 'ignore',
  });
  try {
    const ended = once(child, 'exit');
    // Node keeps its own cache of compiled code there as well.
    const left = () => readdirSync(directory).filter(name => name.startsWith('aerostat-'));
    await expect.poll(left, { timeout: 60_000 }).toHaveLength(1);
    process.kill(-child.pid!, 'SIGINT');
    expect(await ended).toEqual([130, null]);
    expect(left()).toEqual([]);
  } finally {
    if (child.exitCode === null) process.kill(-child.pid!, 'SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  }
}, 90_000);
