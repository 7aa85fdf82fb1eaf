import { describe, expect, test } from 'vitest';
import { FEATURES_HERE, featuresAgreed, featuresToOffer } from '../../src/migration/features.ts';
import { zstd } from '../../src/migration/stream/compression.ts';
import { FEATURE_AHEAD, FEATURE_ZSTD } from '../../src/migration/stream/messages.ts';

describe('compression', () => {
  test('is offered only when it was asked for', () => {
    expect(featuresToOffer(false, FEATURE_ZSTD)).toBe(0);
    expect(featuresToOffer(true, FEATURE_ZSTD)).toBe(FEATURE_ZSTD);
    expect(FEATURES_HERE).toBe((zstd === undefined ? 0 : FEATURE_ZSTD) | FEATURE_AHEAD);
  });

  test('that is asked for where there is none is refused in words that say what to install', () => {
    expect(() => featuresToOffer(true, 0)).toThrow(
      /neither Node v[\d.]+ nor this host has zstd; install libzstd/,
    );
  });

  test('is agreed on, or refused in words that name the destination', () => {
    expect(featuresAgreed(FEATURE_ZSTD, FEATURE_ZSTD)).toBe(FEATURE_ZSTD);
    expect(featuresAgreed(0, FEATURE_ZSTD)).toBe(0);
    expect(() => featuresAgreed(FEATURE_ZSTD, 0)).toThrow(
      /the destination cannot unpack.*there, install libzstd/,
    );
  });
});

test('a destination of before, to which nothing can be sent ahead, is not refused', () => {
  const offered = featuresToOffer(false, undefined, true);
  expect(offered).toBe(FEATURE_AHEAD);
  expect([featuresAgreed(offered, 0), featuresAgreed(offered, FEATURE_AHEAD)]).toEqual([0, FEATURE_AHEAD]);
});
