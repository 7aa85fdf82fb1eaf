import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lockHolder, tryLock } from '../../src/sys/lock.ts';

describe('a lock between processes', () => {
  let directory: string;
  let path: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    path = join(directory, 'lock');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('is held by one at a time, and says by whom', () => {
    const lock = tryLock(path)!;
    expect(tryLock(path)).toBeUndefined();
    expect(lockHolder(path)).toBe(process.pid);
    lock.release();
    lock.release();
    const next = tryLock(path)!;
    expect(tryLock(path)).toBeUndefined();
    next.release();
  });

  it('can be removed by its holder, and taken anew', () => {
    const lock = tryLock(path)!;
    lock.remove();
    expect(existsSync(path)).toBe(false);
    const next = tryLock(path)!;
    expect(tryLock(path)).toBeUndefined();
    next.remove();
    expect(lockHolder(path)).toBeUndefined();
  });

  it('is free again when the process that held it is killed', async () => {
    const holder = spawn('flock', [path, 'sh', '-c', 'echo held; exec sleep 1000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    });
    await once(holder.stdout, 'data');
    expect(tryLock(path)).toBeUndefined();
    process.kill(-holder.pid!, 'SIGKILL');
    await once(holder, 'exit');
    await expect.poll(() => tryLock(path)).toBeDefined();
  });
});
