import { describe, expect, test } from 'vitest';
import type { GuestStatus } from '../../src/control/contract.ts';
import {
  availableShare,
  doubtOf,
  isAtTarget,
  isMoving,
  isNear,
  isSettled,
  TOLERANCE_BYTES,
  wordBesideAccount,
} from '../../src/control/judgement.ts';
import { MemoryUseTracker } from '../../src/control/memory-use.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';

const KIB = 1024;
const at = (actualBytes: number | null, more: Partial<GuestStatus> = {}): GuestStatus => ({
  ...guestStatus('vm1'),
  targetBytes: GIB,
  actualBytes,
  ...more,
});

describe("a guest's word for its balloon", () => {
  const beside = (
    actualBytes: number | null,
    balloonedBytes: number | null,
    more: Partial<GuestStatus> = {},
  ) => wordBesideAccount(at(actualBytes, { balloonedBytes, removedBytes: 0, ...more }));

  test('is beside the account when its lists did not arrive, or were not asked back for', () => {
    expect(beside(GIB, 0)).toBe(GIB);
    expect(beside(0, GIB)).toBe(-GIB);
  });

  test('is not when they agree, nearly agree, or the account is not known', () => {
    expect(beside(GIB, GIB)).toBe(0);
    expect(beside(GIB, GIB - TOLERANCE_BYTES / 2)).toBe(0);
    expect(beside(GIB, GIB - MIB, { granularityBytes: 2 * MIB })).toBe(0);
    expect(beside(GIB, null)).toBe(0);
    expect(beside(null, GIB)).toBe(0);
  });

  test('may count memory that was removed, or not', () => {
    for (const word of [GIB - 256 * MIB, GIB - 128 * MIB, GIB]) {
      expect(beside(word, GIB - 256 * MIB, { removedBytes: 256 * MIB })).toBe(0);
    }
    expect(beside(GIB + MIB, GIB - 256 * MIB, { removedBytes: 256 * MIB })).toBe(MIB);
  });
});

describe('a guest is at its target', () => {
  test('when it has pages of 64 KiB and the target is no multiple of them', () => {
    const target = GIB + 4 * KIB;
    for (const actualBytes of [GIB, GIB + 64 * KIB]) {
      const guest = at(actualBytes, { targetBytes: target });
      expect(isAtTarget(guest)).toBe(true);
      expect(isSettled(guest)).toBe(true);
      expect(isMoving(guest)).toBe(false);
    }
  });

  test('and not when a piece of its memory is missing', () => {
    for (const actualBytes of [GIB - TOLERANCE_BYTES, GIB + TOLERANCE_BYTES, 0]) {
      expect(isAtTarget(at(actualBytes))).toBe(false);
      expect(isMoving(at(actualBytes))).toBe(true);
    }
  });

  test('as near as the pieces that its lists show let it come', () => {
    expect(isNear(GIB - MIB, GIB, 2 * MIB)).toBe(true);
    expect(isNear(GIB - 2 * MIB, GIB, 2 * MIB)).toBe(false);
    // Smaller pieces do not make it stricter.
    expect(isNear(GIB - 60 * KIB, GIB, 4 * KIB)).toBe(true);
  });

  test('only where both are known, and it is there', () => {
    expect(isAtTarget(at(null))).toBe(false);
    expect(isMoving(at(null))).toBe(false);
    expect(isAtTarget(at(GIB, { targetBytes: null }))).toBe(false);
    expect(isAtTarget(at(GIB, { connected: false }))).toBe(false);
  });

  test('and still moves while its memory is on its way to the host', () => {
    const guest = at(GIB, { pendingBytes: 4096 });
    expect(isSettled(guest)).toBe(false);
    expect(isMoving(guest)).toBe(true);
  });
});

test('what was available before the balloon grew is less by what it grew', async () => {
  const { statistics } = await new FakeControl(guestStatus('vm1')).statistics('vm1');
  const sample = { statistics, ageMs: 9000, balloonedBytes: GIB };
  const share = (balloonedBytes: number) => availableShare(at(balloonedBytes, { balloonedBytes }), sample);
  expect(share(GIB)).toEqual({ share: 3.5 / 4, old: false });
  expect(share(2 * GIB)).toEqual({ share: 2.5 / 4, old: true });
  expect(share(4.5 * GIB)).toEqual({ share: 0, old: true });
  // It may have used what it was given back.
  expect(share(0)).toEqual({ share: 3.5 / 4, old: true });
  expect(availableShare(at(0), undefined)).toBeNull();
});

test('more than a guest can spare is doubted, and what it said before its balloon moved is said to be old', async () => {
  const { statistics } = await new FakeControl(guestStatus('vm1')).statistics('vm1');
  const sample = { statistics: { ...statistics, availableBytes: GIB }, ageMs: 0, balloonedBytes: 0 };
  const doubt = (ballooned: number, bytes: number, known: typeof sample | null = sample) => {
    const guest = at(ballooned, { balloonedBytes: ballooned });
    return doubtOf(guest, new MemoryUseTracker().see(guest, known ?? undefined, 1000), bytes);
  };
  expect(doubt(0, 0.9 * GIB)).toBeUndefined();
  expect(doubt(0, 2 * GIB)).toMatchObject({ leftBytes: 2 * GIB, old: false });
  expect(doubt(0.5 * GIB, 1.2 * GIB)).toMatchObject({ old: true });
  // To give back needs no thought.
  expect(doubt(3 * GIB, 2 * GIB)).toBeUndefined();
  expect(doubt(0, 4096, null)).toMatchObject({ limitBytes: null });
});
