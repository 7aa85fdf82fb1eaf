/** A test of a fleet that is killed in the middle leaves nothing: no process, though some are to outlive what started them. */
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { killMarked, processesMarked, startOwner } from '../../support/owner.ts';

const SWEEPER = fileURLToPath(new URL('../../support/sweeper.ts', import.meta.url));

test('a test that is killed leaves no process in a session of its own, and no directory', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  const own = join(directory, "its own; it's gone with it");
  mkdirSync(own);
  writeFileSync(join(own, 'file'), '');
  const owner = startOwner(
    `const { spawn } = await import('node:child_process');
     const { Sweeper } = await load(${JSON.stringify(SWEEPER)});
     const { env } = new Sweeper(${JSON.stringify(own)});
     // As an agent starts a place for a machine: detached, so that it outlives the agent.
     const start = "trap '' HUP INT TERM; sleep 1000 & sleep 1000 & wait";
     const child = spawn('sh', ['-c', start], { env, detached: true, stdio: 'ignore' });
     child.unref();
     process.stdout.write(child.pid + '\\n');
     setInterval(() => {}, 1000);`,
    directory,
  );
  const left = () => processesMarked(`AEROSTAT_TEST_OF=${own}/`);
  try {
    await once(owner.stdout, 'data');
    await expect.poll(() => left().length).toBe(3);
    owner.kill('SIGKILL');
    await once(owner, 'exit');
    await expect.poll(left).toEqual([]);
    await expect.poll(() => existsSync(own)).toBe(false);
  } finally {
    killMarked(directory);
    rmSync(directory, { recursive: true, force: true });
  }
});
