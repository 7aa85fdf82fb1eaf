import { describe, expect, it } from 'vitest';
import {
  featureNames,
  hasFeature,
  IN_ORDER,
  RING_EVENT_IDX,
  RING_FEATURES,
  RING_INDIRECT_DESC,
  RING_PACKED,
  VERSION_1,
} from '../../src/virtio/features.ts';

describe('feature bits (VIRTIO 6)', () => {
  it('have the numbers of the specification', () => {
    expect([RING_INDIRECT_DESC, RING_EVENT_IDX, VERSION_1, RING_PACKED, IN_ORDER]).toEqual([
      1n << 28n,
      1n << 29n,
      1n << 32n,
      1n << 34n,
      1n << 35n,
    ]);
    expect(hasFeature(RING_FEATURES, IN_ORDER)).toBe(true);
    expect(hasFeature(RING_FEATURES, VERSION_1)).toBe(false);
  });

  it('are printed by name, lowest first, and by number where they have no name', () => {
    expect(featureNames(VERSION_1 | RING_EVENT_IDX | (1n << 63n) | 1n)).toEqual([
      'bit-0',
      'ring-event-idx',
      'version-1',
      'bit-63',
    ]);
  });

  it("are looked up in the device type's table first", () => {
    expect(featureNames(0b10n | VERSION_1, new Map([[0b10n, 'stats-vq']]))).toEqual([
      'stats-vq',
      'version-1',
    ]);
  });
});
