/** Who moves the targets of the guests of a demonstration, and when it keeps its hands off. */
import { describe, expect, test } from 'vitest';
import type { StatisticsSample } from '../../src/control/contract.ts';
import { keepTargets, wantedBytes } from '../../src/demo/keeper.ts';
import { FakeControl, guestStatus, MIB } from '../server/fake-control.ts';

const MEMORY = 256 * MIB;
/** With what its balloon holds, and what was available to its programs then. */
const guest = (balloonBytes: number) =>
  guestStatus('vm1', { memoryBytes: MEMORY, targetBytes: balloonBytes, actualBytes: balloonBytes });

async function sampleOf(
  availableBytes: number | null,
  balloonedBytes: number | null = 0,
): Promise<StatisticsSample> {
  const { statistics, ageMs } = await new FakeControl(guestStatus('vm1')).statistics('vm1');
  return { statistics: { ...statistics, availableBytes }, ageMs, balloonedBytes };
}

describe('what a balloon should hold', () => {
  test.each([
    ['takes what is spare, a piece at a time', 0, 200, 48],
    ['takes the rest of it', 64, 74, 74],
    ['gives back at once what the guest is short of', 128, 10, 74],
    ['gives back all, and not more', 16, 0, 0],
    ['stays where little would change', 64, 70, undefined],
  ])('%s', async (_, balloon, available, wanted) => {
    const bytes = wantedBytes(guest(balloon * MIB), await sampleOf(available * MIB, balloon * MIB));
    expect(bytes).toBe(wanted === undefined ? undefined : wanted * MIB);
  });

  test('is not known of a guest that says nothing, or is not there', async () => {
    expect(wantedBytes(guest(0), undefined)).toBeUndefined();
    expect(wantedBytes(guest(0), await sampleOf(null))).toBeUndefined();
    expect(wantedBytes(guest(0), await sampleOf(200 * MIB, null))).toBeUndefined();
    expect(wantedBytes({ ...guest(0), connected: false }, await sampleOf(200 * MIB))).toBeUndefined();
  });

  test('goes by the balloon of the moment of which the guest spoke, and not by what it holds since', async () => {
    // It had 64 MiB to spare while the balloon held 16; 60 of them are in the balloon by now.
    expect(wantedBytes(guest(76 * MIB), await sampleOf(124 * MIB, 16 * MIB))).toBeUndefined();
  });
});

test('a guest whose target a person sets is left to them, and the others are not', async () => {
  const control = new FakeControl(guest(0), { ...guest(0), name: 'vm2' });
  control.sample = await sampleOf(200 * MIB);
  const ending = new AbortController();
  const kept = keepTargets(control, ending.signal, 1);
  const changesOf = (name: string) =>
    control.calls.filter(([asked, whose]) => asked === 'change' && whose === name);
  await expect.poll(() => changesOf('vm1').length).toBeGreaterThan(0);
  // The onlooker's.
  control.alter('vm1', { targetBytes: 8 * MIB, actualBytes: 8 * MIB });
  const before = changesOf('vm1').length;
  const others = changesOf('vm2').length;
  let held = 0;
  const grow = async () => {
    held += 16 * MIB;
    control.sample = await sampleOf(200 * MIB, held);
  };
  await expect
    .poll(async () => {
      await grow();
      return changesOf('vm2').length;
    })
    .toBeGreaterThan(others + 1);
  ending.abort();
  await kept;
  expect(changesOf('vm1').length).toBeLessThanOrEqual(before + 1);
  expect(control.known.get('vm1')?.targetBytes).toBe(8 * MIB);
});
