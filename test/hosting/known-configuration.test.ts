import { describe, expect, test } from 'vitest';
import { KnownConfiguration } from '../../src/hosting/known-configuration.ts';

const MEMORY = { memoryBytes: 512 * 2 ** 20, balloonedPages: 0, targetPages: 0, hintBuffers: 7 };
const HALF = { ...MEMORY, balloonedPages: 65_536 };

const known = (...reads: readonly (readonly [offset: number, size: number])[]) => {
  const configuration = new KnownConfiguration();
  configuration.begin(7);
  for (const [offset, size] of reads) configuration.read(offset, size);
  return configuration;
};

describe('a front-end that hides the configuration from its guest', () => {
  test('is told of when the guest gives memory away unasked, as with QEMU’s config_size=0; once', () => {
    const configuration = known();
    expect(configuration.complaint(MEMORY)).toBeUndefined();
    expect(configuration.complaint(HALF)).toMatch('never read the device');
    expect(configuration.complaint(HALF)).toBeUndefined();
    configuration.begin(7);
    expect(configuration.complaint(HALF)).toMatch('config_size=16');
  });

  test('is told of when the guest hints unasked, as with config_size=8', () => {
    expect(known([0, 8]).complaint({ ...MEMORY, hintBuffers: 8 })).toMatch('knows 8 bytes');
  });

  test('is told of when it has too few rings, as with QEMU’s num_vqs=4; once for each device', () => {
    const configuration = known();
    expect(configuration.complaintOfRings(4, 5)).toMatch('num_vqs=5');
    expect(configuration.complaintOfRings(4, 5)).toBeUndefined();
    configuration.begin(7);
    expect(configuration.complaintOfRings(4, 5)).toMatch('has 4 rings');
    // Enough, or set up by the driver's wish.
    expect(known().complaintOfRings(5, 5)).toBeUndefined();
    expect(known().complaintOfRings(5, 2)).toBeUndefined();
    expect(known().complaintOfRings(0, 5)).toBeUndefined();
  });

  test('is not told of where another daemon served it before: what that was asked for is not known here', () => {
    const configuration = known();
    configuration.goOn();
    expect(configuration.complaint(HALF)).toBeUndefined();
    expect(configuration.complaintOfRings(4, 5)).toBeUndefined();
    configuration.begin(7);
    expect(configuration.complaint(HALF)).toMatch('config_size=16');
  });

  test('is none where the guest was asked, or its front-end read what there is', () => {
    expect(known().complaint({ ...HALF, targetPages: HALF.balloonedPages })).toBeUndefined();
    expect(known([0, 4]).complaint(HALF)).toBeUndefined();
    // User Mode Linux reads field by field.
    expect(known([0, 4], [8, 4]).complaint({ ...MEMORY, hintBuffers: 8 })).toBeUndefined();
    expect(known([0, 16]).complaint({ ...HALF, hintBuffers: 8 })).toBeUndefined();
    // Hints of the guest before.
    expect(known([0, 8]).complaint(MEMORY)).toBeUndefined();
  });
});
