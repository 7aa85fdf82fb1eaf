/** That QEMU's migration and ours are measured beside each other, and that nothing of either stays; no figure is judged. */
import { once } from 'node:events';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { EXIT } from '../../src/cli/usage.ts';
import { build } from '../cli/built.ts';
import { describeWithQemu, until } from '../peers/qemu/peer.ts';
import { BenchPlace } from './bench-place.ts';

vi.setConfig({ testTimeout: 120_000 });

const MIB = 2 ** 20;
const SCENARIOS = ['hinted', 'hintedAtBandwidth', 'plain', 'multifd4'];
const WORDS = 'migrate --memory 256M --used 25% --runs 1 --peer qemu';

describeWithQemu('aerostat bench migrate --peer qemu', () => {
  build();
  let place: BenchPlace;
  beforeEach(() => {
    place = new BenchPlace();
  });
  afterEach(() => place.close());

  it('moves a guest with hints and full memory with both, and compares them', async () => {
    const { report, page } = await place.run(WORDS);
    expect(place.remains).toEqual([]);
    expect(report.command).toBe(`aerostat bench ${WORDS}`);
    expect(report.rows.map(row => [row.scenario, row.case])).toEqual(
      SCENARIOS.flatMap(scenario => ['QEMU', 'Aerostat'].map(side => [scenario, side])),
    );
    for (const row of report.rows) {
      expect(row.elapsedMs.min).toBeGreaterThan(0);
      const hinted = row.scenario.startsWith('hinted');
      const [least, most] = hinted ? [32, row.case === 'QEMU' ? 280 : 240] : [128, 136];
      // Full memory is sent once. QEMU sends while it waits for hints, and on a busy host they come late.
      expect(Number(row.bytes) / MIB).toBeGreaterThan(least);
      expect(Number(row.bytes) / MIB).toBeLessThan(most);
    }
    const of = (name: string) =>
      ['', '.bytesToQemu', '.downtimeToQemu'].map(what => `migrate.${name}${what}`);
    expect(Object.keys(report.ratios)).toEqual([...SCENARIOS.flatMap(of), 'migrate.downtimeToQemu']);
    expect(report.notes[0]).toMatch(/^QEMU \d+\./);
    expect(page).toContain('<svg');
  });

  it('has a guest that writes run at its destination at once with both, and compares them', async () => {
    const words = 'migrate --memory 256M --used 40% --load dirty-20M --runs 1 --peer qemu --postcopy';
    const { report } = await place.run(words);
    expect(place.remains).toEqual([]);
    expect(report.rows.map(row => row.case)).toEqual(['QEMU', 'Aerostat']);
    for (const { elapsedMs, downtimeMs } of report.rows) {
      expect(elapsedMs.min).toBeGreaterThan((downtimeMs as typeof elapsedMs).min);
      expect((downtimeMs as typeof elapsedMs).min).toBeGreaterThan(0);
    }
    // It went on writing there.
    expect((report.rows[0].workShare as { min: number }).min).toBeGreaterThan(0);
    expect(Object.keys(report.ratios)).toEqual([
      'postcopy.downtimeToQemu',
      'postcopy.throughputToQemu',
      'postcopy.elapsedToQemu',
    ]);
  });

  it('leaves nothing when it is interrupted with two QEMUs at work, as by Ctrl-C in a terminal', async () => {
    const bench = place.start(WORDS);
    await until(() => place.programs.filter(name => name.startsWith('qemu-system')).length === 2);
    const ended = once(bench, 'exit');
    process.kill(-bench.pid!, 'SIGINT');
    expect(await ended).toEqual([EXIT.interrupted, null]);
    await until(() => place.remains.length === 0);
  });

  it('leaves nothing when it is killed', async () => {
    const bench = place.start(WORDS);
    await until(() => place.programs.filter(name => name.startsWith('qemu-system')).length === 2);
    bench.kill('SIGKILL');
    await until(() => place.programs.length === 0);
  });
});
