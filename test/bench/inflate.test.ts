/** The benchmarks run as a person runs them, small: what they say must add up, whatever the machine is like. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { raisePool } from '../../src/bench/inflate/huge-pool.ts';
import type { BenchReport, BenchRow, Spread } from '../../src/bench/report.ts';
import { benchReport, round, spreadOf } from '../../src/bench/report.ts';
import { freeHugePages, HUGE_PAGE_SIZE, type HugePages, reserveHugePages } from '../support/huge-pages.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const PROGRAM = fileURLToPath(new URL('../../bin/aerostat', import.meta.url));
const MIB = 2 ** 20;
const BALLOON_PAGES = (48 * MIB) / 4096;

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

const median = (value: BenchRow[string] | undefined): number => (value as Spread).median;

describe('aerostat bench inflate', () => {
  let report: BenchReport;

  beforeAll(() => {
    const files = ['--json', join(directory, 'r.json'), '--report', join(directory, 'r.html')];
    const words =
      '--memory 128M --balloon 48M --runs 1 --warm 1 --profiles virtio,page-bitmap,sg --scenario touched,aged-50';
    execFileSync(process.execPath, [PROGRAM, 'bench', 'inflate', ...words.split(' '), ...files], {
      stdio: 'pipe',
    });
    report = JSON.parse(readFileSync(join(directory, 'r.json'), 'utf8'));
  });

  test('has a row for every case and scenario, the naive device included', () => {
    const names = report.rows.map(row => `${row.scenario} ${row.case}`);
    const cases = ['virtio', 'page-bitmap', 'sg', 'naive'];
    expect(names).toEqual(
      ['touched', 'aged-50'].flatMap(scenario => cases.map(name => `${scenario} ${name}`)),
    );
  });

  test('counts what the ABIs are known to need', () => {
    const [virtio, bitmap, sg, naive] = report.rows;
    expect(virtio.buffers).toBe(BALLOON_PAGES / 256);
    expect(virtio.listBytes).toBe(BALLOON_PAGES * 4);
    expect(Number(bitmap.listBytes)).toBeLessThan(Number(virtio.listBytes) / 10);
    expect(sg.listBytes).toBe(0);
    expect(naive.punches).toBe(BALLOON_PAGES);
    expect(Number(virtio.punches)).toBeLessThan(BALLOON_PAGES / 10);
  });

  test('leaves memory as fragmented as the scenario says', () => {
    for (const row of report.rows) {
      const degree = row.scenario === 'aged-50' ? 0.5 : 0;
      expect(Math.abs(Number(row.fragmentation) - degree)).toBeLessThan(0.1);
    }
  });

  test('measures a floor for every row, and nothing below the time of its parts', () => {
    for (const row of report.rows) {
      expect(median(row.floorMs)).toBeGreaterThan(0);
      expect(median(row.elapsedMs)).toBeGreaterThanOrEqual(median(row.guestMs) * 0.99);
      expect(row.toFloor).toBeCloseTo(median(row.elapsedMs) / median(row.floorMs), 5);
    }
    expect(Object.keys(report.ratios)).toContain('naive.touched.toVirtio');
  });

  test('refuses at once a report that has no place', () => {
    const place = join(directory, 'nowhere', 'r.json');
    const { status, stderr } = spawnSync(process.execPath, [PROGRAM, 'bench', 'inflate', '--json', place], {
      encoding: 'utf8',
    });
    expect(status).toBe(2);
    expect(stderr).toContain(`there is no directory ${join(directory, 'nowhere')}; make it first`);
  });

  test('says what made it, and draws it in a page that needs nothing else', () => {
    expect(report.command).toBe(
      'aerostat bench inflate --memory 128M --balloon 48M --profiles virtio,page-bitmap,sg --scenario touched,aged-50 --runs 1 --warm 1',
    );
    const page = readFileSync(join(directory, 'r.html'), 'utf8');
    expect(page).toContain('<svg');
    expect(page).not.toMatch(/(?:src|href)=["']https?:/);
    expect(readdirSync(directory).filter(file => file.endsWith('.svg'))).toHaveLength(6);
  });
});

describe('aerostat bench inflate --backing', () => {
  let pool: HugePages;
  // No other test file may have the pool meanwhile: what of it is in use is measured.
  beforeAll(() => {
    pool = reserveHugePages((64 * MIB) / HUGE_PAGE_SIZE);
  });
  afterAll(() => pool.release());

  const run = (...words: readonly string[]) =>
    spawnSync(process.execPath, [PROGRAM, 'bench', 'inflate', ...words], { encoding: 'utf8' });

  test('has a row for every profile on every backing that the machine has, and says why it has not the others', () => {
    const json = join(directory, 'b.json');
    const words = '--memory 64M --balloon 32M --runs 1 --profiles page-chunks,shared';
    const names = ['memfd', 'thp', 'hugetlb-2m'];
    const { status, stdout, stderr } = run(...words.split(' '), '--backing', names.join(), '--json', json);
    expect([status, stderr]).toEqual([0, expect.any(String)]);
    const { rows, notes, ratios } = JSON.parse(readFileSync(json, 'utf8')) as BenchReport;
    const missing = names.filter(name => notes.some(note => note.startsWith(`${name} was not measured: `)));
    const had = names.filter(name => !missing.includes(name));
    expect(had).toContain('memfd');
    if (pool.missing === undefined) expect(had).toContain('hugetlb-2m');
    const inflations = had.flatMap(name => ['page-chunks', 'shared'].map(profile => `${profile} on ${name}`));
    expect(rows.map(row => row.case)).toEqual([...inflations, 'five threads wake each other']);
    for (const name of missing) expect(stdout).toContain(`${name} was not measured: `);
    for (const row of rows.slice(0, -1)) {
      // All of it came back, but for the pages that the driver itself has touched meanwhile; and for huge ones that are incomplete.
      const left = 32 * MIB - Number(row.reclaimedBytes);
      expect(left).toBeLessThanOrEqual(Number(row.incompleteBytes) + 2 * MIB);
      expect(median(row.reclaimGiBs)).toBeGreaterThan(0);
      expect(median(row.writeNsBefore)).toBeGreaterThan(0);
      expect(median(row.writeNsAfter)).toBeGreaterThan(0);
    }
    expect(ratios['memfd.touched.toFloor']).toBe(ratios['memfd.page-chunks.touched.toFloor']);
    expect(ratios['memfd.touched.wakeups.toFloor']).toBeGreaterThan(0);
  });

  test('takes out of the pool what it put in, though another run raised it meanwhile', async () => {
    if (pool.missing !== undefined) return;
    const free = freeHugePages();
    const [first, second] = [
      await raisePool((free + 1) * HUGE_PAGE_SIZE),
      await raisePool((free + 3) * HUGE_PAGE_SIZE),
    ];
    expect(freeHugePages()).toBe(free + 3);
    await first();
    expect(freeHugePages()).toBe(free + 2);
    await second();
    expect(freeHugePages()).toBe(free);
  });

  test('refuses what belongs to another measurement', () => {
    expect(run('--backing', 'memfd', '--peer', 'qemu')).toMatchObject({ status: 2 });
    expect(run('--backing', 'paper').stderr).toContain(
      'paper is no backing; there are memfd, thp, hugetlb-2m',
    );
    expect(run('--reserve').stderr).toContain('--reserve belongs to --backing');
  });
});

describe('a report', () => {
  test('has the middle of its samples as median, of an even number the mean of the two', () => {
    expect(spreadOf([3, 1, 2])).toEqual({ min: 1, median: 2, max: 3 });
    expect(spreadOf([4, 1, 2, 3])).toEqual({ min: 1, median: 2.5, max: 4 });
  });

  test('rounds ratios to what a noisy machine can tell', () => {
    expect(round(1.23456)).toBe(1.235);
    expect(benchReport('x', '1', { rows: [], ratios: { a: 0.000271933 } }).ratios).toEqual({ a: 0.0002719 });
  });
});
