import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TokenBucket } from '../../src/migration/token-bucket.ts';

const BYTES_PER_MS = 1000;
const bucketOf = () => new TokenBucket(BYTES_PER_MS * 1e3);

/** Sends a number of sections of 1000 bytes, and wakes so late from each wait; returns how long all of that took. */
function send(bucket: TokenBucket, sections: number, lateMs = 0, startMs = 0): number {
  let nowMs = startMs;
  bucket.begin(nowMs);
  for (let section = 0; section < sections; section++) {
    const waitMs = bucket.spend(1000, nowMs);
    if (waitMs > 0) nowMs += waitMs + lateMs;
  }
  return nowMs - startMs;
}

describe('a limit of bandwidth', () => {
  test('lets a burst of five milliseconds pass and then goes on at its pace', () => {
    expect(send(bucketOf(), 5)).toBe(0);
    expect(send(bucketOf(), 105)).toBe(100);
  });

  test('is reached by a sender that wakes late each time, as by one that does not', () => {
    expect(send(bucketOf(), 1005)).toBe(1000);
    for (const lateMs of [1, 7, 30, 90]) {
      const tookMs = send(bucketOf(), 1005, lateMs);
      expect(tookMs).toBeGreaterThan(1000 - lateMs);
      expect(tookMs).toBeLessThanOrEqual(1000 + lateMs);
    }
  });

  test('does not make up for time in which there was nothing to send, nor for more than a tenth of a second', () => {
    const bucket = bucketOf();
    send(bucket, 1);
    expect(send(bucket, 105, 0, 60_000)).toBe(100);

    expect([bucket.spend(100_000, 120_000), bucket.spend(1000, 120_000)]).toEqual([0, 1]);
  });

  test('is never exceeded by more than a tenth of a second, whenever pages are sent', () => {
    const step = fc.record({ bytes: fc.nat(50_000), lateMs: fc.nat(300), begins: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), steps => {
        const bucket = bucketOf();
        let nowMs = 0;
        let sent = 0;
        for (const { bytes, lateMs, begins } of steps) {
          if (begins) bucket.begin(nowMs);
          expect(sent).toBeLessThanOrEqual((nowMs + 100) * BYTES_PER_MS);
          nowMs += bucket.spend(bytes, nowMs) + lateMs;
          sent += bytes;
        }
      }),
    );
  });

  test('is none when it is infinite', () => {
    const bucket = new TokenBucket(Number.POSITIVE_INFINITY);
    bucket.begin(0);
    expect([bucket.spend(1e9, 0), bucket.spend(1e12, 0)]).toEqual([0, 0]);
  });
});
