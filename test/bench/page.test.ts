/** That the bench of the page looks, counts what it saw, and leaves nothing behind; its figures are not asserted. */
import { once } from 'node:events';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Spread } from '../../src/bench/report.ts';
import { EXIT } from '../../src/cli/usage.ts';
import { findProgram } from '../../src/peers/programs.ts';
import { build } from '../cli/built.ts';
import { BenchPlace } from './bench-place.ts';

vi.setConfig({ testTimeout: 120_000 });
build();

const SMALL = '--guests 3 --seconds 2 --memory 256M --runs 1';

let place: BenchPlace;
beforeEach(() => {
  place = new BenchPlace();
});
afterEach(() => place.close());

test('a client that asks for what the page asks for stands for it where no browser is', async () => {
  const { report, page } = await place.run(`page ${SMALL} --no-browser`);
  expect(place.remains).toEqual([]);
  expect(report.rows.map(row => [row.scenario, row.case])).toEqual([
    ['3 guests', 'page open'],
    ['3 guests', 'metrics scraped'],
    ['map of 0.25 GiB', 'first map'],
    ['map of 0.25 GiB', 'map again'],
    ['map of 0.25 GiB', 'map after a change'],
    ['inflate 0.219 GiB', 'no onlooker'],
    ['inflate 0.219 GiB', 'page (client), metrics'],
  ]);
  for (const { elapsedMs } of report.rows) expect(elapsedMs.min).toBeGreaterThan(0);
  const [open, scraped, , , change] = report.rows;
  expect(scraped.daemonPeakMiB).toBeGreaterThan(50);
  expect(open.updatesPerSecond).toBeGreaterThan(0);
  expect(open.framesPerSecond).toBeNull();
  expect((change.bytes as Spread).max).toBeLessThan(100_000);
  expect(Object.keys(report.ratios)).toEqual([
    'page.cpuShare',
    'page.cpuShareWithoutPage',
    'inflateWithPage',
  ]);
  for (const ratio of Object.values(report.ratios)) expect(ratio).toEqual(expect.any(Number));
  expect(report.notes.join(' ')).toMatch(/No browser: .* A client/);
  expect(page).toContain('<svg');
});

test.skipIf(findProgram('chromium') === undefined)(
  'a browser counts its frames and the maps that it drew, and a bench that is interrupted takes it along',
  async () => {
    const { report } = await place.run(`page ${SMALL} --parts guests,map`);
    expect(place.remains).toEqual([]);
    const [open] = report.rows;
    const drawn = report.rows.at(-1);
    expect(open.peer).toMatch(/^chromium \d+$/);
    expect(open.framesPerSecond).toBeGreaterThan(0);
    expect(open.pageCpuPercent).toBeGreaterThan(0);
    expect([drawn?.case, drawn?.peer]).toEqual(['map drawn', open.peer]);
    expect(drawn?.elapsedMs.max).toBeGreaterThan(0);
    expect(report.ratios['page.framesToBlank']).toBeGreaterThan(0);

    const bench = place.start(`page ${SMALL} --parts map`);
    await vi.waitUntil(() => place.programs.some(name => name.startsWith('chrom')), { timeout: 60_000 });
    const ended = once(bench, 'exit');
    process.kill(-(bench.pid as number), 'SIGINT');
    expect(await ended).toEqual([EXIT.interrupted, null]);
    await vi.waitUntil(() => place.remains.length === 0, { timeout: 60_000 });
  },
);
