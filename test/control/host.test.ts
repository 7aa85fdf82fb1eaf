import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readHost } from '../../src/control/host.ts';

let proc: string;

beforeEach(() => {
  proc = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
});

afterEach(() => rmSync(proc, { recursive: true }));

test('reads memory, swap and pressure as the kernel writes them', async () => {
  writeFileSync(
    join(proc, 'meminfo'),
    'MemTotal:       24681408 kB\nMemFree:  1 kB\nMemAvailable:   20000000 kB\nShmem:   4 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n',
  );
  mkdirSync(join(proc, 'pressure'));
  writeFileSync(
    join(proc, 'pressure', 'memory'),
    'some avg10=1.50 avg60=0.25 avg300=0.00 total=1\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1\n',
  );
  expect(await readHost(proc)).toEqual({
    totalBytes: 24681408 * 1024,
    availableBytes: 20000000 * 1024,
    sharedBytes: 4096,
    swapTotalBytes: 0,
    swapFreeBytes: 0,
    pressure: { some10Percent: 1.5, some60Percent: 0.25, full10Percent: 0.5, full60Percent: 0 },
  });
});

test('says what it does not know', async () => {
  expect(await readHost(proc)).toEqual({
    totalBytes: null,
    availableBytes: null,
    sharedBytes: null,
    swapTotalBytes: null,
    swapFreeBytes: null,
    pressure: null,
  });
});

test('knows this machine', async () => {
  const { totalBytes, availableBytes } = await readHost();
  expect(availableBytes).toBeLessThanOrEqual(totalBytes ?? 0);
});
