import { afterEach, describe, expect, it, vi } from 'vitest';
import { HintChannel } from '../../src/device/hint-channel.ts';
import { Inflation } from '../../src/device/inflation.ts';
import { InflationPromises } from '../../src/device/inflation-promises.ts';
import { PageAccounts } from '../../src/device/page-accounts.ts';
import { Reporting } from '../../src/device/reporting.ts';
import { PendingDiscards } from '../../src/memory/pending-discards.ts';
import { PendingState } from '../../src/memory/pending-state.ts';
import { reportHistories } from '../../src/sim/history-report.ts';
import { SimBacking } from '../../src/sim/sim-backing.ts';
import { liveHistory } from '../../src/sim/sim-history.ts';
import { SystemError } from '../../src/sys/error.ts';
import { RingPlace } from '../../src/vhost-user/ring-place.ts';
import { EMBEDDED_PROFILES } from '../support/profile-names.ts';

/** The seed of random tests: printed in their names, taken from the environment to repeat one. */
const SEED = Number(process.env.AEROSTAT_SEED ?? 20_260_701);
const STEPS = 200;

afterEach(() => vi.restoreAllMocks());

describe.each(EMBEDDED_PROFILES)(`histories of profile %s, from seed ${SEED} on`, profile => {
  it('lose no page and no byte, whatever fails', async () => {
    const lines: string[] = [];
    const { failures, histories } = await reportHistories(
      { seed: SEED, seeds: 6, steps: STEPS, profile },
      line => lines.push(line),
    );
    expect(failures, lines.join('\n')).toEqual([]);
    expect(histories).toBe(6);
  });
});

/** What is found of machines whose device may say of pages that they are zeros, from `seed` on. */
async function foundOfZeros(seed: number, seeds: number): Promise<string> {
  const { failures } = await reportHistories({ seed, seeds, steps: STEPS, profile: 'device-init' }, () => {});
  return failures.map(({ message }) => message).join('\n');
}

const BROKEN_PROMISE = 'a free page is not zeros, as the host promised';

function everyDiscardFails(): void {
  vi.spyOn(SimBacking.prototype, 'discard').mockImplementation(() => {
    throw new SystemError('fallocate', 12, 'simulated');
  });
}

describe('a history', () => {
  it('is the same again for the same seed, and another for another', async () => {
    const [once, again, other] = [
      await liveHistory({ seed: SEED, steps: STEPS }),
      await liveHistory({ seed: SEED, steps: STEPS }),
      await liveHistory({ seed: SEED + 1, steps: STEPS }),
    ];
    expect(again).toEqual(once);
    expect(other.trace).not.toEqual(once.trace);
  });

  it('has every kind of fault in it before long', async () => {
    const seen = new Set<string>();
    for (let seed = SEED; seed < SEED + 5; seed++) {
      for (const name of Object.keys((await liveHistory({ seed, steps: STEPS })).tally)) seen.add(name);
    }
    for (const fault of [
      'lose',
      'host down',
      'deadly discard',
      'failing discards',
      'false notice',
      'reset',
      'new driver without saying so',
    ]) {
      expect(seen).toContain(fault);
    }
  });

  it('finds a host that discards what the guest took back, and says how to see it again', async () => {
    const { retract } = PendingDiscards.prototype;
    vi.spyOn(PendingDiscards.prototype, 'retract').mockImplementation(function (
      this: PendingDiscards,
      start,
      count,
    ) {
      const retracted = retract.call(this, start, count);
      if (retracted > 0) this.mark(start, count);
      return 0;
    });
    const lines: string[] = [];
    const { failures } = await reportHistories({ seed: 10, seeds: 15, steps: STEPS }, line =>
      lines.push(line),
    );
    expect(failures.length).toBeGreaterThan(0);
    const [{ seed, message, command }] = failures;
    expect(message).toContain('is discarded and is the guest');
    expect(command).toBe(`npm run sim -- --seed ${seed} --steps ${STEPS}`);
    expect(lines).toContain(`Again: ${command}`);
    expect((await liveHistory({ seed, steps: STEPS })).failure?.message).toBe(message);
  });

  it('finds a host that takes a new driver without saying so for a guest that was paused', async () => {
    vi.spyOn(RingPlace.prototype, 'hasBase').mockReturnValue(true);
    vi.spyOn(RingPlace.prototype, 'isAt').mockReturnValue(true);
    const { failures } = await reportHistories({ seed: 1, seeds: 12, steps: STEPS }, () => {});
    expect(failures.map(({ message }) => message).join('\n')).toContain('is in the account and is the guest');
  });

  it('finds a host that goes on discarding while the rings are disabled', async () => {
    vi.spyOn(PendingState.prototype, 'held', 'get').mockReturnValue(false);
    const { failures } = await reportHistories({ seed: 20, seeds: 8, steps: STEPS }, () => {});
    expect(failures.map(({ message }) => message).join('\n')).toContain('is discarded and is the guest');
  });

  it('finds a device that acknowledges a deflation before the punch of its pages has ended', async () => {
    vi.spyOn(PageAccounts.prototype, 'quiet', 'get').mockReturnValue(true);
    const { failures } = await reportHistories({ seed: 110, seeds: 6, steps: STEPS }, () => {});
    expect(failures.map(({ message }) => message).join('\n')).toContain('is discarded and is the guest');
  });

  it('promises no zeros where every discard fails', async () => {
    everyDiscardFails();
    expect(await foundOfZeros(28, 2)).toBe('');
  });

  it('finds a device that promises zeros of inflated pages although the discard failed', async () => {
    everyDiscardFails();
    vi.spyOn(InflationPromises.prototype, 'hold', 'get').mockReturnValue(true);
    expect(await foundOfZeros(28, 1)).toContain(BROKEN_PROMISE);
  });

  it('finds a device that promises zeros of reported pages although the discard failed', async () => {
    everyDiscardFails();
    vi.spyOn(Reporting.prototype, 'promisesHold').mockReturnValue(true);
    expect(await foundOfZeros(15, 1)).toContain(BROKEN_PROMISE);
  });

  it('finds a device that promises zeros of inflated pages and acknowledges them first', async () => {
    const { write } = InflationPromises.prototype;
    vi.spyOn(InflationPromises.prototype, 'write').mockImplementation(function (
      this: InflationPromises,
      ring,
    ) {
      return write.call(this, ring, true);
    });
    vi.spyOn(InflationPromises.prototype, 'hold', 'get').mockReturnValue(true);
    vi.spyOn(Inflation.prototype, 'acknowledgesFirst', 'get').mockReturnValue(true);
    expect(await foundOfZeros(8, 1)).toContain(BROKEN_PROMISE);
  });

  it('finds a device that returns hinted blocks before they are discarded, where the guest waits for that', async () => {
    vi.spyOn(HintChannel.prototype, 'mayReturn').mockReturnValue(true);
    const { failures } = await reportHistories(
      { seed: 38, seeds: 1, steps: STEPS, profile: 'hint-ack' },
      () => {},
    );
    expect(failures.map(({ message }) => message).join('\n')).toContain('is discarded and is the guest');
  });

  it('finds a device that returns reported pages before they are discarded', async () => {
    vi.spyOn(Reporting.prototype, 'mayReturn').mockReturnValue(true);
    const { failures } = await reportHistories({ seed: 11, seeds: 10, steps: STEPS }, () => {});
    expect(failures.map(({ message }) => message).join('\n')).toContain('is discarded and is the guest');
  });
});
