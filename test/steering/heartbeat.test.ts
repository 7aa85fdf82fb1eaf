/** What a policy leaves word of, what others make of it, and what its guard does when it is silent. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { statusOf } from '../../src/control/contract.ts';
import { guard } from '../../src/steering/guard.ts';
import { HeartbeatFile, isSilent, readHeartbeat, readHeartbeats } from '../../src/steering/heartbeat.ts';
import { knowingLeases, statusLeft } from '../../src/steering/left-leases.ts';
import { FakeControl, GIB, guestStatus } from '../server/fake-control.ts';
import { TestClock } from './world.ts';

let directory: string;
const clock = new TestClock();

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const PERIOD_MS = 2000;
const HELD = { name: 'q', monitor: '/run/q.qmp', targetBytes: GIB, released: false };

const beatOf = (onSilence: 'keep' | 'release' = 'keep') => ({
  ...{ atMs: clock.nowMs(), wallMs: clock.wallMs(), periodMs: PERIOD_MS, onSilence },
  ...{ dryRun: false, decisions: 7, moves: 3, guests: [HELD, { ...HELD, name: 'd', monitor: null }] },
});

/** A policy that is dead leaves this. */
function left(onSilence: 'keep' | 'release'): string {
  // Of a process that has ended.
  const { pid } = spawnSync('true');
  const path = join(directory, `policy-${pid}.beat`);
  writeFileSync(path, JSON.stringify({ version: 1, pid, api: '/run/policy.sock', ...beatOf(onSilence) }));
  return path;
}

async function beaten(): Promise<HeartbeatFile> {
  const file = new HeartbeatFile({ directory, api: '/run/policy.sock' });
  file.beat(beatOf());
  await expect.poll(() => readHeartbeats(directory).length).toBe(1);
  return file;
}

test('a policy that lives is seen, is silent after two periods, and leaves nothing when it ends in order', async () => {
  const file = await beaten();
  const [heartbeat] = readHeartbeats(directory);
  expect(heartbeat).toMatchObject({ pid: process.pid, decisions: 7, guests: [HELD, { monitor: null }] });
  expect(isSilent(heartbeat, clock.nowMs() + 2 * PERIOD_MS)).toBe(false);
  expect(isSilent(heartbeat, clock.nowMs() + 2 * PERIOD_MS + 1)).toBe(true);
  expect(statusLeft(heartbeat, clock.nowMs())).toMatchObject({ state: 'running', moves: 3 });
  expect(statusLeft(heartbeat, clock.nowMs() + 5000)).toMatchObject({ state: 'silent', decidedAgoMs: 5000 });
  await file.close('keep');
  expect(readdirSync(directory)).toEqual([]);
});

test('one that starts takes the place of one that was killed', async () => {
  left('keep');
  expect(readHeartbeats(directory)).toHaveLength(1);
  await beaten();
  expect(readHeartbeats(directory)).toMatchObject([{ pid: process.pid }]);
});

test('files that make no sense are no heartbeats', () => {
  writeFileSync(join(directory, 'policy-1.beat'), '{"version": 2}');
  writeFileSync(join(directory, 'policy-2.beat'), 'nonsense');
  expect(readHeartbeats(directory)).toEqual([]);
  expect(readHeartbeats(join(directory, 'none'))).toEqual([]);
});

test('a guest behind a monitor has the target and the owner that the policy left word of', async () => {
  left('keep');
  const qemu = statusOf('q', { socketPath: '/run/q.qmp', connected: true, memoryBytes: 4 * GIB });
  let nowMs = clock.nowMs();
  const control = new FakeControl(guestStatus('d'));
  const looked = async (actualBytes: number) => {
    control.guests = async () => [{ ...qemu, actualBytes }] as never;
    return (await knowingLeases(control, directory, () => nowMs).guests())[0];
  };
  expect(await looked(0.5 * GIB)).toMatchObject({
    targetBytes: GIB,
    targetOwner: { by: 'policy', lapsed: false },
  });
  nowMs += 60_000;
  expect(await looked(GIB)).toMatchObject({ targetBytes: GIB, targetOwner: { by: 'policy', lapsed: true } });
  // Another has set it since.
  expect(await looked(0.5 * GIB)).toMatchObject({ targetBytes: null, targetOwner: null });
});

/** Lets it look until it ends. */
async function guarded(path: string, release: () => Promise<void>): Promise<string[]> {
  const released: string[] = [];
  let ended = false;
  const done = guard({
    path,
    clock,
    release: async ({ name, monitor }) => {
      await release();
      released.push(`${name} ${monitor}`);
    },
  }).then(() => {
    ended = true;
  });
  while (!ended) await clock.pass(500);
  await done;
  return released;
}

test('the guard gives all memory back to guests behind monitors, tries again, and not before the policy is silent', async () => {
  const path = left('release');
  const beganMs = clock.nowMs();
  let tries = 0;
  const released = await guarded(path, async () => {
    expect(clock.nowMs() - beganMs).toBeGreaterThan(2 * PERIOD_MS);
    if (tries++ === 0) throw new Error('another program is connected');
  });
  expect([tries, released]).toEqual([2, ['q /run/q.qmp']]);
  expect(readHeartbeat(path)?.guests).toMatchObject([
    { released: true, targetBytes: 0 },
    { released: false },
  ]);
});

test('the guard leaves targets alone that are to be kept, and ends when another policy takes over', async () => {
  expect(await guarded(left('keep'), async () => {})).toEqual([]);
  const path = left('release');
  rmSync(path);
  expect(await guarded(path, async () => {})).toEqual([]);
});
