/** Machines whose stop would take longer than they may stand still: it is called off, and they go on with all that they had. */
import { afterEach, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { compareMemories, Journey } from './journey.ts';
import { busyVm, closeAll, expectAlive, MIB, open } from './machines.ts';

afterEach(closeAll);

/** Long enough for a stop on a busy host, and too short for one that lingers. */
const LIMIT_MS = 1000;
const LINGER_MS = 1500;
const PAGES_16_MIB = (16 * MIB) / PAGE_SIZE;

describe('a stop that takes longer than the guest may stand still', () => {
  test.each(['stop', 'save', 'load'] as const)(
    'at %s is called off, and the next one takes everything along',
    async at => {
      const vm = await busyVm({ driver: { reportingDelayMs: 100 } });
      const verified: number[] = [];
      const phases: string[] = [];
      const journey = await Journey.of(vm, {
        channel: 'hint',
        connections: 2,
        downtimeMsMax: LIMIT_MS,
        roundsMax: 100,
        slowStops: { at, times: 2, ms: LINGER_MS },
        observer: ({ phase }) => phases.push(phase),
        atTheStop: (...memories) => verified.push(compareMemories(...memories).verified),
      });
      expect(journey.sourceError).toBeUndefined();
      open(journey.there);
      expect(vm.state).toBe('gone');
      const { calledOffMs = [], downtimeMs = 0 } = journey.summary ?? {};
      expect(calledOffMs.length).toBeGreaterThanOrEqual(2);
      // It was let go on here between the stops, and at each arrival all was there that it used.
      expect(
        phases.filter((phase, index) => phase === 'copying' && phases[index - 1] === 'stopping').length,
      ).toBe(calledOffMs.length);
      expect(Math.min(...verified)).toBeGreaterThan(PAGES_16_MIB);
      expect(downtimeMs).toBeGreaterThan(0);
      await expectAlive(journey.there);
    },
  );

  test('each time ends with the guest where it was, alive, and with its next migration', async () => {
    const vm = await busyVm();
    const options = { channel: 'hint', downtimeMsMax: LIMIT_MS, overLimit: 'refuse' } as const;
    const refused = await Journey.of(vm, { ...options, slowStops: { at: 'load', times: 99, ms: LINGER_MS } });
    expect(refused.sourceError?.message).toMatch(
      /longer than the 1000 ms that it may, 4 times.*runs on here/,
    );
    expect(refused.sourceError?.code).toBe('AEROSTAT_MIGRATION_FAILED');
    expect(vm.state).toBe('running');
    await expectAlive(vm);
    const moved = await Journey.of(vm, { channel: 'hint' });
    expect(moved.sourceError).toBeUndefined();
    await expectAlive(open(moved.there));
  });
});
