/** Programs of ours that others of ours start: that none is left when its owner is killed. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import { killMarked, processesMarked, startOwner } from '../support/owner.ts';
import { build } from './built.ts';

beforeAll(build);

const source = (path: string) => JSON.stringify(fileURLToPath(new URL(`../../src/${path}`, import.meta.url)));

test.each([
  [
    'an embedded guest that looks for its device',
    `const { startGuestProcess } = await load(${source('cli/processes.ts')});
     await startGuestProcess({ socketPath: process.env.TMPDIR + '/none.sock', memoryBytes: 64 * 2 ** 20 });`,
  ],
  [
    'the daemon of a bench',
    `const { PageDaemon } = await load(${source('bench/page/daemon.ts')});
     await PageDaemon.start({ guests: ['g'] });
     setInterval(() => {}, 1000);`,
  ],
])('%s ends with an owner that is killed', async (_, script) => {
  const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  const owner = startOwner(script, directory);
  try {
    await expect
      .poll(() => processesMarked(directory).filter(pid => pid !== owner.pid).length)
      .toBeGreaterThan(0);
    owner.kill('SIGKILL');
    await once(owner, 'exit');
    await expect.poll(() => processesMarked(directory)).toEqual([]);
  } finally {
    owner.kill('SIGKILL');
    killMarked(directory);
    rmSync(directory, { recursive: true, force: true });
  }
});
