import { describe, expect, test } from 'vitest';
import { FEATURES_HERE, featuresAgreed, featuresToOffer } from '../../src/migration/features.ts';
import { zstd } from '../../src/migration/stream/compression.ts';
import { FEATURE_ZSTD } from '../../src/migration/stream/messages.ts';

describe('compression', () => {
  test('is offered only when it was asked for', () => {
    expect(featuresToOffer(false, FEATURE_ZSTD)).toBe(0);
    expect(featuresToOffer(true, FEATURE_ZSTD)).toBe(FEATURE_ZSTD);
    expect(FEATURES_HERE).toBe(zstd === undefined ? 0 : FEATURE_ZSTD);
  });

  test('that is asked for where Node has none is refused in words that say so', () => {
    expect(() => featuresToOffer(true, 0)).toThrow(/zstd comes with Node 22\.15, and this is v\d+/);
  });

  test('is agreed on, or refused in words that name the destination', () => {
    expect(featuresAgreed(FEATURE_ZSTD, FEATURE_ZSTD)).toBe(FEATURE_ZSTD);
    expect(featuresAgreed(0, FEATURE_ZSTD)).toBe(0);
    expect(() => featuresAgreed(FEATURE_ZSTD, 0)).toThrow(/the destination cannot unpack/);
  });
});
