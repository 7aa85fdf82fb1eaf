import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ProcessGroup, processesOfGroup } from '../../src/peers/process-group.ts';

import { killMarked, processesMarked, startOwner } from '../support/owner.ts';

const GROUP_SOURCE = fileURLToPath(new URL('../../src/peers/process-group.ts', import.meta.url));

/** Each group has a process that ends it when we are gone. */
const GUARD = 1;

/** A shell that starts a child, says so, and waits. */
async function shellWithChild(rest: string): Promise<ProcessGroup> {
  const script = `sleep 1000 & echo started; ${rest}`;
  const group = await ProcessGroup.start('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'ignore'] });
  await once(group.leader.stdout!, 'data');
  return group;
}

const commandsOfGroup = (group: number) =>
  processesOfGroup(group).map(pid => readFileSync(`/proc/${pid}/comm`, 'utf8').trim());

describe('a process group', () => {
  it('is killed as a whole', async () => {
    const group = await shellWithChild('wait');
    expect(processesOfGroup(group.pid).length).toBe(GUARD + 2);
    group.kill();
    group.kill();
    expect(await group.exited).toEqual({ code: null, signal: 'SIGKILL' });
    expect(processesOfGroup(group.pid)).toEqual([]);
  });

  it('does not outlive its leader', async () => {
    const group = await shellWithChild('read line; exit 3');
    group.leader.stdin!.end('\n');
    expect(await group.exited).toEqual({ code: 3, signal: null });
    expect(group.ended).toBe(true);
    expect(processesOfGroup(group.pid)).toEqual([]);
    group.kill();
  });

  it('says which program cannot be started', async () => {
    await expect(ProcessGroup.start('/nowhere/x', [], {})).rejects.toMatchObject({ code: 'AEROSTAT_SPAWN' });
  });

  // A program that ignores whatever can be ignored, and has lost its owner before its first line or after its last.
  it.each(['at once', 'when its processes run'])(
    'ends with an owner that is killed %s, and its directory goes with it',
    async moment => {
      const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
      const own = join(directory, "its own; it's gone with it");
      mkdirSync(own);
      writeFileSync(join(own, 'file'), '');
      const script = "trap '' HUP INT TERM PIPE; sleep 1000 & sleep 1000 & wait";
      const owner = startOwner(
        `const { ProcessGroup } = await load(${JSON.stringify(GROUP_SOURCE)});
       const { pid } = await ProcessGroup.start('sh', ['-c', ${JSON.stringify(script)}], { stdio: ['pipe', 'pipe', 'pipe', 'pipe'], directory: ${JSON.stringify(own)} });
       process.stdout.write(pid + '\\n');
       setInterval(() => {}, 1000);`,
        directory,
      );
      try {
        const [line] = await once(owner.stdout, 'data');
        const group = Number(line);
        expect(group).toBeGreaterThan(0);
        if (moment !== 'at once') await expect.poll(() => processesOfGroup(group).length).toBe(GUARD + 3);
        owner.kill('SIGKILL');
        await once(owner, 'exit');
        await expect.poll(() => processesOfGroup(group)).toEqual([]);
        await expect.poll(() => processesMarked(directory)).toEqual([]);
        expect(existsSync(own)).toBe(false);
      } finally {
        killMarked(directory);
        rmSync(directory, { recursive: true });
      }
    },
  );

  it('ends with its owner though its guard was killed before', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    const owner = startOwner(
      `const { ProcessGroup } = await load(${JSON.stringify(GROUP_SOURCE)});
       const { pid } = await ProcessGroup.start('sleep', ['1000'], {});
       process.stdout.write(pid + '\\n');
       setInterval(() => {}, 1000);`,
      directory,
    );
    try {
      const [line] = await once(owner.stdout, 'data');
      const group = Number(line);
      await expect.poll(() => commandsOfGroup(group).sort()).toEqual(['sh', 'sleep']);
      for (const pid of processesOfGroup(group)) if (pid !== group) process.kill(pid, 'SIGKILL');
      owner.kill('SIGKILL');
      await once(owner, 'exit');
      await expect.poll(() => processesOfGroup(group)).toEqual([]);
    } finally {
      killMarked(directory);
      rmSync(directory, { recursive: true });
    }
  });
});
