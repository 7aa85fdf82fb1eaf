/**
 * A guest that lends its allocator and its host, as two processes that share nothing but the guest's memory and a socket:
 * while the guest allocates, writes, checks and frees, the host takes frames and returns them.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { FRAME_BYTES } from '../../src/balloon/shared-frames.ts';
import { BENCH_GUEST, type BenchDaemon } from '../../src/bench/bench-daemon.ts';
import { startGuestProcess } from '../../src/cli/processes.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';

const SEED = Number(process.env.AEROSTAT_SEED ?? 20_261_130);
const FRAMES = 64;
const MEMORY_BYTES = FRAMES * FRAME_BYTES;
/** Targets that the host sets one after the other; each is a share of memory. */
const TARGETS = [0.5, 0.1, 0.9, 0, 0.3, 0.8, 0.2, 0];
/** Words that the guest looks at under each of them, at least. */
const CHECKS = 5_000;

interface Found {
  readonly checked: number;
  readonly blocked: number;
  readonly wrong: readonly string[];
}

let daemon: BenchDaemon | undefined;
let child: ChildProcess | undefined;

afterEach(async () => {
  child?.kill('SIGKILL');
  await daemon?.close();
});

function next<T>(): Promise<T> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null) => reject(new Error(`the guest ended with ${code}`));
    child?.once('exit', ended);
    child?.once('message', message => {
      child?.off('exit', ended);
      resolve(message as T);
    });
  });
}

function ask<T>(question: string): Promise<T> {
  const answer = next<T>();
  child?.send(question);
  return answer;
}

test(`no page of a guest loses its content while frames are taken and returned, seed ${SEED}`, async () => {
  build();
  // Its threads run what was compiled. Free frames are evicted all the time.
  const compiled: typeof import('../../src/bench/bench-daemon.ts') = await import(
    new URL('../../dist/bench/bench-daemon.js', import.meta.url).href
  );
  daemon = await compiled.BenchDaemon.start({
    profile: 'shared',
    discard: 'auto',
    without: [],
    evictionMs: 5,
  });
  const { control } = daemon;
  const guest = fileURLToPath(new URL('./shared-guest.mjs', import.meta.url));
  child = fork(guest, [daemon.socketPath, String(MEMORY_BYTES), String(SEED)]);
  expect(await next()).toBe('ready');
  for (const share of TARGETS) {
    const targetBytes = Math.floor(FRAMES * share) * FRAME_BYTES;
    await control.change(BENCH_GUEST, { targetBytes, force: true });
    const before = await ask<Found>('how far');
    expect(before.wrong).toEqual([]);
    // The guest has worked under this target.
    const checked = async () => (await ask<Found>('how far')).checked;
    await expect.poll(checked).toBeGreaterThan(before.checked + CHECKS);
  }
  const { counters } = await control.guest(BENCH_GUEST);
  // It answers when all of its memory has come back.
  const { wrong, checked } = await ask<Found>('end');
  expect(wrong).toEqual([]);
  expect(checked).toBeGreaterThan(TARGETS.length * CHECKS);
  expect(counters.punches).toBeGreaterThan(TARGETS.length);
});

test('the embedded guest lends its allocator, and its workloads go on while free frames are taken', async () => {
  build();
  const words = ['--profile', 'shared'];
  const host = await DaemonProcess.start(['vm'], [...words, '--eviction-interval', '20ms']);
  try {
    const guest = await startGuestProcess({
      socketPath: host.socketOf('vm'),
      memoryBytes: MEMORY_BYTES,
      words: [...words, '--whole'],
    });
    try {
      const resident = async () => (await host.control.guest('vm')).residentBytes ?? 0;
      await guest.tell({ do: 'start', workload: 'build' });
      // Compilers come and go, and what they free is taken: pages are checked by their owners all the time.
      const done = async () => Number((await guest.tell({ do: 'status' })).vmstat.pagesFreed);
      const before = await done();
      await expect.poll(done, { timeout: 60_000 }).toBeGreaterThan(before + 4 * (MEMORY_BYTES / 4096));
      expect((await guest.tell({ do: 'verify' })).checkedBytes).toBeGreaterThan(0);
      const busy = await resident();
      await guest.tell({ do: 'stop' });
      await guest.tell({ do: 'drop-caches' });
      await expect.poll(resident, { timeout: 60_000 }).toBeLessThan(busy / 2);
      expect((await guest.tell({ do: 'status' })).features).toContain('shared-allocator');
      await expect(guest.tell({ do: 'compact' })).rejects.toMatchObject({ code: 'AEROSTAT_GUEST_COMMAND' });
      await expect(guest.tell({ do: 'age', degree: 0.5 })).rejects.toMatchObject({
        code: 'AEROSTAT_GUEST_COMMAND',
      });
    } finally {
      await guest.close();
    }
  } finally {
    await host.stop();
  }
}, 130_000);
