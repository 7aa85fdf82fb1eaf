/** That QEMU's device and ours are measured beside each other, and that nothing of either stays; no figure is judged. */
import { once } from 'node:events';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { build } from '../cli/built.ts';
import { describeWithQemu, until } from '../peers/qemu/peer.ts';
import { BenchPlace } from './bench-place.ts';

vi.setConfig({ testTimeout: 120_000 });

const MIB = 2 ** 20;
const ORDERS = ['ordered', 'shuffled'];
const WORDS = 'inflate --memory 128M --balloon 32M --runs 1 --peer qemu';

describeWithQemu('aerostat bench inflate --peer qemu', () => {
  build();
  let place: BenchPlace;
  beforeEach(() => {
    place = new BenchPlace();
  });
  afterEach(() => place.close());

  it('has rows of both devices for both orders of pages, and the ratios that goals are set for', async () => {
    const { report, page } = await place.run(WORDS);
    expect(place.remains).toEqual([]);
    expect(report.command).toBe(`aerostat bench ${WORDS}`);
    const devices = ['QEMU', 'Aerostat', 'Aerostat, before-ack'];
    expect(report.rows.map(row => [row.scenario, row.case])).toEqual([
      ...ORDERS.flatMap(order => devices.map(device => [order, device])),
      ...ORDERS.map(order => [order, 'bare punch']),
    ]);
    for (const row of report.rows) {
      expect(row.elapsedMs.min).toBeGreaterThan(0);
      if (row.peer !== 'kernel') expect(row.buffers).toBe((32 * MIB) / 4096 / 256);
    }
    expect(Object.keys(report.ratios)).toEqual([
      'inflate.ordered',
      'inflate.shuffled',
      'inflate.orderedBeforeAck',
      'inflate.shuffledBeforeAck',
      'deflate',
      'inflate.ordered.toFloor',
      'ordered.toFloor',
      'inflate.shuffled.toFloor',
      'shuffled.toFloor',
    ]);
    expect(page).toContain('<svg');
  });

  it.each(['alone', 'with all of its group, as by Ctrl-C in a terminal'])(
    'leaves nothing when it is interrupted %s',
    async who => {
      const bench = place.start(WORDS);
      await until(() => place.programs.some(name => name.startsWith('qemu-system')));
      const ended = once(bench, 'exit');
      process.kill(who === 'alone' ? bench.pid! : -bench.pid!, 'SIGINT');
      expect(await ended).toEqual([EXIT.interrupted, null]);
      await until(() => place.remains.length === 0);
    },
  );
});
