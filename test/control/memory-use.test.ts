import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { balloonLimit, MemoryUseTracker, sumKnown } from '../../src/control/memory-use.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';

const sampleOf = async (
  freeBytes: number | null,
  cacheBytes = 0,
  availableBytes: number | null = null,
  balloonedBytes: number | null = null,
) => {
  const { statistics } = await new FakeControl(guestStatus('vm1')).statistics('vm1');
  return { statistics: { ...statistics, freeBytes, cacheBytes, availableBytes }, ageMs: 0, balloonedBytes };
};

const sizes = fc.integer({ min: 0, max: 4 * GIB });

describe('how memory divides', () => {
  test('adds up, whatever the guest says', async () => {
    const { statistics } = await sampleOf(0);
    fc.assert(
      fc.property(
        sizes,
        sizes,
        sizes,
        sizes,
        sizes,
        (freeBytes, cacheBytes, ballooned, pending, resident) => {
          const guest = guestStatus('vm1', {
            balloonedBytes: ballooned,
            pendingBytes: pending,
            residentBytes: resident,
          });
          const sample = {
            statistics: { ...statistics, freeBytes, cacheBytes },
            ageMs: 0,
            balloonedBytes: null,
          };
          const use = new MemoryUseTracker().see(guest, sample, 1000);
          const { used, cache, freeHeld, freeAway } = use ?? {};
          const parts = [used, cache, freeHeld, freeAway, use?.ballooned].map(part => part ?? Number.NaN);
          expect(parts.every(part => part >= 0)).toBe(true);
          expect(parts.reduce((sum, part) => sum + part, 0)).toBe(4 * GIB);
          expect(use?.pending).toBeLessThanOrEqual(use?.ballooned ?? 0);
        },
      ),
    );
  });

  test('tells free memory that the host holds from what it does not', async () => {
    const guest = guestStatus('vm1', { balloonedBytes: GIB, actualBytes: GIB, residentBytes: 1.5 * GIB });
    const use = new MemoryUseTracker().see(guest, await sampleOf(2 * GIB, 0.5 * GIB), 1000);
    expect(use).toMatchObject({
      used: 0.5 * GIB,
      cache: 0.5 * GIB,
      freeHeld: 0.5 * GIB,
      freeAway: 1.5 * GIB,
    });
  });

  test('does not say what of the free memory is held where what the host holds is not known', async () => {
    const guest = guestStatus('vm1', { residentBytes: null });
    const use = new MemoryUseTracker().see(guest, await sampleOf(2 * GIB), 1000);
    expect(use).toMatchObject({ free: 2 * GIB, freeHeld: null, freeAway: null, resident: null });
  });

  test('is summed by what is known, and nothing is not 0', () => {
    expect(sumKnown([1, null, 2, undefined])).toEqual({ bytes: 3, unknown: 2 });
    expect(sumKnown([null])).toEqual({ bytes: null, unknown: 1 });
    expect(sumKnown([])).toEqual({ bytes: 0, unknown: 0 });
  });

  test('takes what a moving balloon gains from what was free, not from what is used', async () => {
    const tracker = new MemoryUseTracker();
    const sample = await sampleOf(3 * GIB);
    tracker.see(guestStatus('vm1'), sample, 1000);
    const moving = guestStatus('vm1', { balloonedBytes: GIB, actualBytes: GIB });
    // A newer sample, and yet from before the balloon was as large as the account says.
    expect(tracker.see(moving, sample, 2000)).toMatchObject({ used: GIB, ballooned: GIB });
    expect(tracker.see(moving, await sampleOf(1.75 * GIB), 3000)).toMatchObject({ used: 1.25 * GIB });
  });

  test('goes by what the balloon held when the guest took the sample, where that is known', async () => {
    const tracker = new MemoryUseTracker();
    const moving = guestStatus('vm1', { balloonedBytes: 2 * GIB, actualBytes: 2 * GIB });
    // 3 GiB were free while it held nothing.
    expect(tracker.see(moving, await sampleOf(3 * GIB, 0, null, 0), 1000)).toMatchObject({ used: GIB });
  });

  test('is not known of a guest that says nothing, nor of one that is gone', async () => {
    const tracker = new MemoryUseTracker();
    expect(tracker.see(guestStatus('vm1'), await sampleOf(null), 1000)).toMatchObject({
      memory: 4 * GIB,
      used: null,
      freeHeld: null,
    });
    const gone = guestStatus('vm1', { connected: false, memoryBytes: null });
    expect(tracker.see(gone, undefined, 2000)).toBeUndefined();
  });
});

test('a balloon may take what is available, but for a reserve', async () => {
  const guest = guestStatus('vm1', { balloonedBytes: GIB, actualBytes: GIB });
  const see = async (available: number | null) =>
    new MemoryUseTracker().see(guest, await sampleOf(GIB, 0, available, GIB), 1000);
  const limit = balloonLimit(await see(GIB)) ?? 0;
  expect(limit).toBeLessThan(2 * GIB);
  expect(limit).toBeGreaterThan(1.9 * GIB);
  expect(limit % 4096).toBe(0);
  expect(balloonLimit(await see(null))).toBeNull();
  expect(balloonLimit(await see(-2 * GIB - MIB))).toBe(0);
});

test('what a guest had available and what its balloon holds since are not added', async () => {
  // A guest of 256 MiB, of which 242 MiB were available, gave 242 MiB away: it can spare no 484 MiB.
  const grown = guestStatus('vm1', {
    memoryBytes: 256 * MIB,
    balloonedBytes: 242 * MIB,
    actualBytes: 242 * MIB,
  });
  const limit = async (then: number | null) =>
    balloonLimit(new MemoryUseTracker().see(grown, await sampleOf(240 * MIB, 0, 242 * MIB, then), 1000));
  expect(await limit(0)).toBeLessThanOrEqual(242 * MIB);
  expect(await limit(0)).toBeGreaterThan(230 * MIB);
  // Nothing is known of what it held then.
  expect(await limit(null)).toBeNull();
});
