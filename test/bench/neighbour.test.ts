/** That the bench of the neighbour plays its inputs, says how it went, and leaves nothing behind; its figures are nobody's to assert. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { HOSTILE_INPUTS } from '../../src/bench/neighbour/inputs.ts';
import { neighbourBenchCommand } from '../../src/cli/commands/bench-neighbour.ts';
import type { CliContext } from '../../src/cli/context.ts';
import { build } from '../cli/built.ts';
import { BenchPlace } from './bench-place.ts';

vi.setConfig({ testTimeout: 120_000 });
build();

let place: BenchPlace;
beforeEach(() => {
  place = new BenchPlace();
});
afterEach(() => place.close());

test('an honest guest is clocked beside hostile ones, and both are gone afterwards', async () => {
  const { report, page } = await place.run('neighbour --inputs full-ring,regions --seconds 1');
  expect(place.remains).toEqual([]);
  expect(report.rows.map(row => [row.case, row.scenario])).toEqual([
    ['full-ring', 'kick to used'],
    ['regions', 'kick to used'],
  ]);
  for (const row of report.rows) {
    expect(row.elapsedMs.min).toBeGreaterThan(0);
    expect(row.throughputShare).toBeGreaterThan(0);
    expect(row.rounds).toBeGreaterThan(0);
  }
  expect(Object.keys(report.ratios)).toEqual([
    'neighbour.worstMs',
    'neighbour.idleWorstMs',
    'neighbour.apiWorstMs',
    'neighbour.throughputShare',
  ]);
  expect(report.notes).toEqual([]);
  expect(page).toContain('<svg');
});

test('help tells of every input what the table says', () => {
  let help = '';
  const command = neighbourBenchCommand({} as CliContext).configureOutput({
    writeOut: text => {
      help += text;
    },
  });
  command.outputHelp();
  for (const { name, about } of HOSTILE_INPUTS) expect(help).toContain(`${name.padEnd(19)}${about}`);
});
