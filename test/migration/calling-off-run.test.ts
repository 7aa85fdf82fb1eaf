/** Whole migrations whose stops take longer than they may, on simulated hosts. */
import { expect, test, vi } from 'vitest';
import { runMigration } from '../../src/sim/migration-run.ts';

vi.setConfig({ testTimeout: 120_000 });

const SEED = Number(process.env.AEROSTAT_SEED ?? 1);
const SEEDS = Array.from({ length: 30 }, (_, index) => SEED + index);

test('stops are called off and tried again, the guest is at one end, and has lost nothing', async () => {
  const stops: number[] = [];
  for (const seed of SEEDS) {
    const { runsAt, summary } = await runMigration({ seed, fault: 'none' });
    expect([seed, runsAt]).toEqual([seed, 'destination']);
    stops.push(summary?.calledOffMs.length ?? 0);
  }
  expect(Math.max(...stops)).toBeGreaterThan(0);
});

test('a stop is gone through with where no limit was asked for', async () => {
  for (const seed of SEEDS) {
    const { runsAt, summary } = await runMigration({ seed, fault: 'none', keepsLimit: false });
    expect([seed, runsAt, summary?.calledOffMs]).toEqual([seed, 'destination', []]);
  }
});

test('a stop that is called off after the guest was let go has it run at both ends, which is found', async () => {
  let twice = 0;
  for (const seed of SEEDS) {
    await runMigration({ seed, fault: 'none', goesOnLate: true }).catch(error => {
      // Where the destination has heard `go` and does not run the guest yet, it refuses what is not to be any more.
      expect(String(error)).toMatch(/runs at both ends|recall came while ready/);
      if (/both ends/.test(String(error))) twice++;
    });
  }
  expect(twice).toBeGreaterThan(0);
});
