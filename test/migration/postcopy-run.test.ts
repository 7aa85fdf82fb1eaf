/** Post-copy under a network that is cut after every one of its messages, and the mistakes that it must not make. */
import { describe, expect, test, vi } from 'vitest';
import { isLoss } from '../../src/sim/migration-run.ts';
import { POSTCOPY_MISTAKES } from '../../src/sim/postcopy-guest.ts';
import { reportPostcopy } from '../../src/sim/postcopy-report.ts';
import { runPostcopy } from '../../src/sim/postcopy-run.ts';

vi.setConfig({ testTimeout: 120_000 });

const SEED = Number(process.env.AEROSTAT_SEED ?? 1);
const SEEDS = Array.from({ length: 20 }, (_, index) => SEED + index);

async function tried(options: Parameters<typeof runPostcopy>[0]) {
  try {
    return await runPostcopy(options);
  } catch (error) {
    throw new Error(`seed ${options.seed}, cut after ${options.cutAfter}: ${error}`, { cause: error });
  }
}

describe('post-copy', () => {
  test('brings all, after no round, one and two', async () => {
    const results = [];
    for (const seed of SEEDS) results.push(await tried({ seed }));
    expect(results.map(({ runsAt }) => runsAt)).toEqual(SEEDS.map(() => 'destination'));
    expect(results.some(({ summary }) => (summary?.postcopy?.faults ?? 0) > 0)).toBe(true);
    expect(new Set(results.map(({ summary }) => summary?.rounds))).toEqual(new Set([2, 3, 4]));
  });

  test('brings a guest that does nothing, of which nothing may be left to come later', async () => {
    const results = [];
    for (const seed of SEEDS) results.push(await tried({ seed, still: true }));
    expect(results.map(({ runsAt }) => runsAt)).toEqual(SEEDS.map(() => 'destination'));
    expect(results.map(({ summary }) => summary?.postcopy === null)).toContain(true);
    expect(results.map(({ summary }) => summary?.postcopy === null)).toContain(false);
  });

  test('cut after every message of it: the guest is on one side, and has all that it wrote', async () => {
    const { failures, ends, recoveries } = await reportPostcopy({ seed: SEED, seeds: 3 }, () => {});
    expect(failures).toEqual([]);
    expect(ends.nowhere).toBe(0);
    expect(ends.source).toBeGreaterThan(0);
    expect(ends.destination).toBeGreaterThan(0);
    expect(recoveries).toBeGreaterThan(ends.destination / 2);
  });

  test('a destination that dies after the switch takes the guest with it: the source does not run what it let go', async () => {
    const ends = new Set<string>();
    const [seed] = SEEDS;
    const { messages } = await tried({ seed });
    for (let cutAfter = 1; cutAfter <= messages; cutAfter++) {
      const { runsAt } = await tried({ seed, cutAfter, dies: true });
      ends.add(runsAt);
    }
    expect(ends).toEqual(new Set(['source', 'nowhere']));
  });

  test.each(POSTCOPY_MISTAKES)('finds a planted mistake: %s', async mistake => {
    let lost = 0;
    for (const seed of SEEDS) {
      try {
        await runPostcopy({ seed, mistake });
      } catch (error) {
        if (!isLoss(error)) throw error;
        lost++;
      }
    }
    expect(lost).toBeGreaterThan(0);
  });
});
