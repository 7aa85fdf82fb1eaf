import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { ProcessGroup, processesOfGroup } from '../../src/peers/process-group.ts';

/** A shell that starts a child, says so, and waits. */
async function shellWithChild(rest: string): Promise<ProcessGroup> {
  const script = `sleep 1000 & echo started; ${rest}`;
  const group = await ProcessGroup.start('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'ignore'] });
  await once(group.leader.stdout!, 'data');
  return group;
}

describe('a process group', () => {
  it('is killed as a whole', async () => {
    const group = await shellWithChild('wait');
    expect(processesOfGroup(group.pid).length).toBe(2);
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
});
