/** That the bench of the neighbour plays its inputs, says how it went, and leaves nothing behind; its figures are not asserted. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { MUST_TELL_HOST, PAGE_LIST } from '../../src/balloon/features.ts';
import { HandFrontEnd } from '../../src/bench/neighbour/front-end.ts';
import { inflateAndDeflate } from '../../src/bench/neighbour/inputs/lists.ts';
import { HOME, LIST_AT } from '../../src/bench/neighbour/inputs/rings.ts';
import { HOSTILE_INPUTS } from '../../src/bench/neighbour/inputs.ts';
import { PageDaemon } from '../../src/bench/page/daemon.ts';
import { neighbourBenchCommand } from '../../src/cli/commands/bench-neighbour.ts';
import type { CliContext } from '../../src/cli/context.ts';
import { U64 } from '../../src/vhost-user/protocol.ts';
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
    'neighbour.shareBesideWork',
  ]);
  expect(report.notes).toEqual([]);
  expect(page).toContain('<svg');
});

test('a list that takes long is waited for as long as the daemon answers, by a hostile guest', async () => {
  const daemon = await PageDaemon.start({ guests: ['g'], words: ['--profile', 'page-chunks'] });
  const frontEnd = new HandFrontEnd(daemon.socketOf('g'));
  // Far less than working off 512 GiB takes.
  const limitMs = 5;
  try {
    frontEnd.negotiate(MUST_TELL_HOST | PAGE_LIST);
    frontEnd.handOver([HOME, { guestAddress: 2 ** 39, size: 2 ** 39 }]);
    for (const [index, value] of [1, 2 ** 39, 2 ** 39].entries()) {
      frontEnd.memory.write(LIST_AT + index * 8, U64.encode({ value: BigInt(value) }));
    }
    const [inflate, deflate] = inflateAndDeflate(frontEnd, 24);
    inflate.offer(0);
    expect(() => frontEnd.waitReturned(inflate, limitMs)).toThrow('the daemon stands still');
    frontEnd.waitWorkedOff(inflate, limitMs);
    expect((await daemon.control.guest('g')).balloonedBytes).toBe(2 ** 39);
    deflate.offer(0);
    frontEnd.waitWorkedOff(deflate);
  } finally {
    frontEnd.close();
    await daemon.close();
  }
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
