/** `aerostat bench linux --profiles` as a person runs it, small: what it says must add up, whatever the machine is like. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { BenchReport, BenchRow, Spread } from '../../src/bench/report.ts';
import { driverModuleComplaint } from '../../src/peers/uml/driver-module.ts';
import { findUmlKernels } from '../../src/peers/uml/kernel.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 400_000 });

const PROGRAM = fileURLToPath(new URL('../../bin/aerostat', import.meta.url));
const BALLOON_PAGES = (64 * 2 ** 20) / 4096;

const [kernel] = findUmlKernels();
const lacks =
  kernel === undefined
    ? 'no User Mode Linux is here'
    : (kernel.fault ?? driverModuleComplaint(kernel)?.message);

const median = (value: BenchRow[string] | undefined): number => (value as Spread).median;

test('belongs together: --no-embedded and --profiles; an ABI that there is not is refused by its name', () => {
  const run = (...words: string[]) =>
    spawnSync(process.execPath, [PROGRAM, 'bench', 'linux', ...words], { encoding: 'utf8' });
  expect(run('--no-embedded')).toMatchObject({ status: 2, stderr: /--no-embedded belongs to --profiles/ });
  expect(run('--profiles', 'virtio,v7')).toMatchObject({ status: 2, stderr: /v7 is no profile/ });
});

describe.skipIf(lacks !== undefined)(`bench linux --profiles${lacks ? ` (skipped: ${lacks})` : ''}`, () => {
  let directory: string;
  let report: BenchReport;
  let row: (name: string) => BenchRow;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    const words = '--profiles virtio,page-chunks --memory 192M --balloon 64M --runs 1 --no-touched';
    const files = ['--json', join(directory, 'r.json'), '--report', join(directory, 'r.html')];
    execFileSync(process.execPath, [PROGRAM, 'bench', 'linux', ...words.split(' '), ...files], {
      stdio: 'pipe',
    });
    report = JSON.parse(readFileSync(join(directory, 'r.json'), 'utf8'));
    row = name => report.rows.find(one => one.case === name)!;
  });

  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  test('says what made it, and has a row for each driver', () => {
    expect(report.command).toBe(
      'aerostat bench linux --memory 192M --balloon 64M --no-touched --profiles virtio,page-chunks --runs 1',
    );
    expect(report.rows.map(({ scenario, case: name }) => `${scenario} ${name}`)).toEqual([
      "idle kernel's driver",
      'idle virtio',
      'idle page-chunks',
      'idle virtio (embedded)',
      'idle page-chunks (embedded)',
    ]);
  });

  test('counts what the ABIs are known to need, in the kernel as in the embedded guest', () => {
    for (const name of ["kernel's driver", 'virtio', 'virtio (embedded)']) {
      expect(row(name).buffers).toBe(BALLOON_PAGES / 256);
      expect(row(name).listBytes).toBe(BALLOON_PAGES * 4);
    }
    expect(row('page-chunks').buffers).toBe(1);
    expect(Number(row('page-chunks').listBytes)).toBeLessThan(2048);
    expect(Number(row('page-chunks').kicks)).toBeLessThan(Number(row('virtio').kicks));
  });

  test('its steps are parts of the whole, and the kernel tells none of its own', () => {
    for (const name of ['virtio', 'page-chunks']) {
      const one = row(name);
      const steps = ['allocatingMs', 'listingMs', 'waitingMs'].map(step => median(one[step]));
      const total = steps.reduce((sum, step) => sum + step, 0);
      expect(total).toBeGreaterThan(0);
      // All before the guest says that it is there; the clocks are two.
      expect(total).toBeLessThan(median(one.elapsedMs) * 1.5);
      expect(median(one.configuringMs)).toBeGreaterThan(0);
    }
    expect(row("kernel's driver").allocatingMs).toBeNull();
    expect(row('virtio').claimedMs).toBe(4126);
    expect(row('virtio (embedded)').claimedMs).toBeNull();
  });

  test('gives the ratios by their names', () => {
    expect(Object.keys(report.ratios).sort()).toEqual([
      'embeddedToLinux.kernel',
      'embeddedToLinux.page-chunks',
      'embeddedToLinux.virtio',
      'kernel.toPageChunks',
      'page-chunks.toAllocation',
      'page-chunks.toAllocationByPage',
      'virtio.toPageChunks',
    ]);
    const elapsed = (name: string) => median(row(name).elapsedMs);
    expect(report.ratios['virtio.toPageChunks']).toBeCloseTo(elapsed('virtio') / elapsed('page-chunks'), 0);
  });

  test('its report has the charts', () => {
    const drawn = readdirSync(directory).filter(name => name.endsWith('.svg'));
    expect(drawn).toHaveLength(4);
    expect(readFileSync(join(directory, 'r.html'), 'utf8')).toContain('page-chunks.toAllocation');
  });
});
