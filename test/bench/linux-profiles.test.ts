/** `aerostat bench linux --profiles` as a person runs it, small: what it says must add up, whatever the machine is like. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { BenchReport, BenchRow, Spread } from '../../src/bench/report.ts';
import { driverModuleComplaint } from '../../src/peers/uml/driver-module.ts';
import { findUmlKernels } from '../../src/peers/uml/kernel.ts';
import { run } from '../cli/terminal.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 400_000 });

const PROGRAM = fileURLToPath(new URL('../../bin/aerostat', import.meta.url));
const BALLOON_PAGES = (64 * 2 ** 20) / 4096;

const [kernel] = findUmlKernels();
const lacks =
  kernel === undefined
    ? 'no User Mode Linux is here'
    : (kernel.fault ?? driverModuleComplaint(kernel)?.message);

const median = (value: BenchRow[string] | undefined): number => (value as Spread).median;

test('--no-embedded belongs to --profiles, and an ABI that there is not is refused by its name', async () => {
  expect(await run(['bench', 'linux', '--no-embedded'])).toMatchObject({
    code: 2,
    err: expect.stringContaining('--no-embedded belongs to --profiles'),
  });
  expect(await run(['bench', 'linux', '--profiles', 'virtio,v7'])).toMatchObject({
    code: 2,
    err: expect.stringContaining('v7 is no profile; there are virtio'),
  });
});

describe.skipIf(lacks !== undefined)(`bench linux --profiles${lacks ? ` (skipped: ${lacks})` : ''}`, () => {
  let directory: string;
  let report: BenchReport;
  let row: (name: string) => BenchRow;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    const words = '--profiles page-chunks --memory 192M --balloon 64M --runs 1 --no-touched';
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
      'aerostat bench linux --memory 192M --balloon 64M --no-touched --profiles page-chunks --runs 1',
    );
    expect(report.rows.map(({ scenario, case: name }) => `${scenario} ${name}`)).toEqual([
      "idle kernel's driver",
      'idle page-chunks',
      'idle page-chunks (embedded)',
    ]);
  });

  test('counts what the ABIs are known to need, in the kernel as in the embedded guest', () => {
    const [kernel, chunks, embedded] = report.rows;
    expect(kernel).toMatchObject({ buffers: BALLOON_PAGES / 256, listBytes: BALLOON_PAGES * 4 });
    for (const one of [chunks, embedded]) {
      expect(one.buffers).toBe(1);
      expect(Number(one.listBytes)).toBeLessThan(2048);
    }
    expect(Number(chunks.kicks)).toBeLessThan(Number(kernel.kicks));
  });

  test('its steps are parts of the whole, and the kernel tells none of its own', () => {
    const chunks = row('page-chunks');
    const steps = ['allocatingMs', 'listingMs', 'waitingMs'].map(step => median(chunks[step]));
    const total = steps.reduce((sum, step) => sum + step, 0);
    expect(total).toBeGreaterThan(0);
    // All before the guest says that it is there; the clocks are two.
    expect(total).toBeLessThan(median(chunks.elapsedMs) * 1.5);
    expect(median(chunks.configuringMs)).toBeGreaterThan(0);
    expect(row("kernel's driver").allocatingMs).toBeNull();
    expect(chunks.claimedMs).toBe(590);
    expect(row('page-chunks (embedded)').claimedMs).toBeNull();
  });

  test('gives the ratios by their names', () => {
    expect(Object.keys(report.ratios).sort()).toEqual([
      'embeddedToLinux.page-chunks',
      'kernel.toPageChunks',
      'page-chunks.toAllocation',
    ]);
    const elapsed = (name: string) => median(row(name).elapsedMs);
    const ratio = elapsed("kernel's driver") / elapsed('page-chunks');
    expect(report.ratios['kernel.toPageChunks'] / ratio).toBeCloseTo(1, 2);
  });

  test('its report has the charts', () => {
    const drawn = readdirSync(directory).filter(name => name.endsWith('.svg'));
    expect(drawn).toHaveLength(4);
    expect(readFileSync(join(directory, 'r.html'), 'utf8')).toContain('page-chunks.toAllocation');
  });
});
