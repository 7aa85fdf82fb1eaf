/** Guests that a discarding thread goes round: how long each has its turn, and when it is left to gather. The clock is simulated. */

import { beforeEach, describe, expect, test } from 'vitest';
import { CLAIM_BYTES_MAX } from '../../src/memory/pending-state.ts';
import { GATHER_MS } from '../../src/threads/discard-link.ts';
import { LANE_MS, LaneTurns, REGION_MS } from '../../src/threads/lane-turns.ts';

const PAGE = 4096;

interface Region {
  readonly pending: { outstanding: number; haste: boolean };
  readonly unitBytes: number;
  claims: number;
}

let nowMs: number;
beforeEach(() => {
  nowMs = 1000;
});

function laneOf(...outstanding: readonly number[]): LaneTurns<Region> {
  const lane = new LaneTurns<Region>(() => nowMs);
  lane.regions = outstanding.map(units => ({
    pending: { outstanding: units, haste: false },
    unitBytes: PAGE,
    claims: 0,
  }));
  return lane;
}

/** A claim takes one unit, and so long. */
const taking = (costMs: number) => (region: Region) => {
  region.claims++;
  if (region.pending.outstanding === 0) return false;
  nowMs += costMs;
  region.pending.outstanding--;
  return true;
};

describe('a turn', () => {
  test('ends in time, however many regions there are, and the next one goes on behind that', () => {
    const lane = laneOf(...new Array<number>(500).fill(10));
    const startedMs = nowMs;
    expect(lane.serve(taking(2))).toBe(true);
    expect(nowMs - startedMs).toBeLessThanOrEqual(LANE_MS + 2);
    const first = lane.regions.filter(({ claims }) => claims > 0);
    lane.serve(taking(2));
    expect(first.every(({ claims }) => claims === 1)).toBe(true);
    expect(lane.regions.filter(({ claims }) => claims > 0)).toHaveLength(2 * first.length);
  });

  test('makes many claims that take little, and one that takes long', () => {
    const [quick, slow] = [laneOf(1000), laneOf(1000)];
    quick.serve(taking(REGION_MS / 100));
    slow.serve(taking(10 * REGION_MS));
    expect(quick.regions[0].claims).toBeGreaterThan(50);
    expect(slow.regions[0].claims).toBe(1);
  });

  test('says when nothing is left', () => {
    const lane = laneOf(1, 0);
    expect(lane.serve(taking(0))).toBe(false);
    expect(lane.outstandingBytes).toBe(0);
  });
});

describe('what a guest gives bit by bit', () => {
  test('gathers from when it had nothing pending, however often the thread comes by', () => {
    const lane = laneOf(1);
    expect(lane.gathers).toBe(false);
    lane.serve(taking(0));
    lane.regions[0].pending.outstanding = 5;
    expect(lane.gathers).toBe(true);
    nowMs += GATHER_MS;
    expect(lane.gathers).toBe(false);
  });

  test('does not gather where a caller waits for it, where it is much, nor while there was more', () => {
    const lane = laneOf(0);
    const [region] = lane.regions;
    lane.serve(taking(0));
    region.pending.outstanding = CLAIM_BYTES_MAX / PAGE;
    expect(lane.gathers).toBe(false);
    region.pending.outstanding = 1;
    expect(lane.gathers).toBe(true);
    region.pending.haste = true;
    expect(lane.gathers).toBe(false);
    const busy = laneOf(100);
    expect(busy.serve(taking(REGION_MS))).toBe(true);
    expect(busy.gathers).toBe(false);
  });
});
