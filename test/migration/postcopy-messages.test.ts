/** What the sections of post-copy may say, and what they may cost the other side. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { featuresAgreed } from '../../src/migration/features.ts';
import { SlotBitmap } from '../../src/migration/slot-bitmap.ts';
import { FEATURE_AHEAD, FEATURE_POSTCOPY } from '../../src/migration/stream/messages.ts';
import {
  readMissing,
  readWant,
  WANTED_PAGES_MAX,
  writeMissing,
  writeWant,
} from '../../src/migration/stream/postcopy-messages.ts';
import { SECTION_HEADER, StreamError } from '../../src/migration/stream/section.ts';
import { SectionWriter } from '../../src/migration/stream/section-writer.ts';

const words = (...numbers: number[]): Uint8Array => new Uint8Array(new Uint32Array(numbers).buffer);
const payloadOf = (section: Uint8Array): Uint8Array => section.slice(SECTION_HEADER.size);

describe('pages that come later', () => {
  test('are those that were named, whatever they are', () => {
    const bits = fc
      .integer({ min: 1, max: 2000 })
      .chain(slots => fc.tuple(fc.constant(slots), fc.uniqueArray(fc.integer({ min: 0, max: slots - 1 }))));
    fc.assert(
      fc.property(bits, ([slots, pages]) => {
        const named = new SlotBitmap(slots);
        for (const page of pages) named.set(page, 1);
        const read = new SlotBitmap(slots);
        for (const section of writeMissing(new SectionWriter(), named)) {
          const { start, words: part } = readMissing(payloadOf(section), slots);
          read.words.set(part, start / 32);
        }
        expect([...read.words]).toEqual([...named.words]);
      }),
    );
  });

  test.each([
    ['no words', words(0)],
    ['half a word', new Uint8Array(6)],
    ['a start between words', words(1, 1)],
    ['a start beyond the guest', words(128, 1)],
    ['words beyond the guest', words(96, 1, 1)],
    ['a page beyond the guest, in its last word', words(96, 1 << 5)],
    ['more than one section may have', new Uint8Array(4 + 2 ** 15 + 4)],
  ])('are refused as %s', (_, payload) => {
    expect(() => readMissing(payload, 101)).toThrow(StreamError);
  });
});

describe('pages that are asked for', () => {
  test('are those that were asked for', () => {
    const section = writeWant(new SectionWriter(), { faults: 3, longestUs: 7, slots: [5, 0, 100] });
    expect(readWant(payloadOf(section), 101)).toEqual({ faults: 3, longestUs: 7, slots: [5, 0, 100] });
  });

  test.each([
    ['nothing', words(0, 0)],
    ['half a page', new Uint8Array(10)],
    ['a payload that is cut short', words(0)],
    ['a page that there is not', words(0, 0, 101)],
    ['too many at once', words(0, 0, ...new Array(WANTED_PAGES_MAX + 1).fill(1))],
  ])('are refused as %s', (_, payload) => {
    expect(() => readWant(payload, 101)).toThrow(StreamError);
  });
});

test('a destination that cannot have pages come later is refused by name, before anything is sent', () => {
  const offered = FEATURE_POSTCOPY | FEATURE_AHEAD;
  expect(featuresAgreed(offered, offered)).toBe(offered);
  expect(() => featuresAgreed(offered, FEATURE_AHEAD)).toThrow(/older release.*without --postcopy/);
});
