/**
 * A back-end that hands its guest to a successor in the middle of inflations and of everything else: session and device
 * become bytes, and another session and another device go on with nothing lost.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Inflation } from '../../src/device/inflation.ts';
import { reportHistories } from '../../src/sim/history-report.ts';
import { liveHistory } from '../../src/sim/sim-history.ts';
import { Vring } from '../../src/vhost-user/vring.ts';

/** The seed of random tests: printed in their names, taken from the environment to repeat one. */
const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_801);
const STEPS = 150;

afterEach(() => vi.restoreAllMocks());

describe(`histories in which a back-end hands its guest over, from seed ${SEED} on`, () => {
  it('lose no page and no byte, whatever fails beside', async () => {
    const lines: string[] = [];
    const choice = { seed: SEED, seeds: 6, steps: STEPS, handsOver: true };
    const { failures } = await reportHistories(choice, line => lines.push(line));
    expect(failures, lines.join('\n')).toEqual([]);
  });

  it('have successors with pages in the balloon', async () => {
    const { tally, trace } = await liveHistory({ seed: SEED, steps: STEPS, handsOver: true });
    expect(tally['hand over'], trace.join('\n')).toBeGreaterThan(2);
  });
});

describe('a history finds', () => {
  const failuresOf = async (seed: number, seeds: number) => {
    const { failures } = await reportHistories({ seed, seeds, steps: STEPS, handsOver: true }, () => {});
    return failures.map(({ message }) => message).join('\n');
  };

  it('a ring that is saved behind a buffer of which nothing was taken', async () => {
    const { save } = Vring.prototype;
    vi.spyOn(Vring.prototype, 'save').mockImplementation(function (this: Vring, fds) {
      const saved = save.call(this, fds);
      const [base, place] = [saved.base + 1, saved.place];
      return { ...saved, base, place: place && { ...place, base, unreturnedBase: base } };
    });
    expect(await failuresOf(1, 2)).not.toBe('');
  });

  it('a device that is saved without its account', async () => {
    const { takeOver } = Inflation.prototype;
    vi.spyOn(Inflation.prototype, 'takeOver').mockImplementation(function (this: Inflation, _, tenure) {
      takeOver.call(this, new Uint32Array(0), tenure);
    });
    expect(await failuresOf(7, 4)).toContain("the host's account has");
  });

  it('a successor that discards before it knows whose the pages are', async () => {
    const { adopt } = Inflation.prototype;
    vi.spyOn(Inflation.prototype, 'takeOver').mockImplementation(function (this: Inflation, runs) {
      adopt.call(this, runs);
    });
    expect(await failuresOf(23, 1)).toContain('is discarded and is the guest');
  });
});
