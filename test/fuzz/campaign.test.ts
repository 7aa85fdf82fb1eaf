import { describe, expect, it } from 'vitest';
import { runCampaign, SlowInputError, shrink } from '../../fuzz/engine/campaign.ts';
import { INPUT_BYTES_MAX, LONG_INPUT_BYTES_MAX, mutate } from '../../fuzz/engine/mutator.ts';
import { Random } from '../../src/guest/random.ts';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
const bytesOf = (string: string): Uint8Array => new Uint8Array(Buffer.from(string, 'latin1'));

/** A clock on which every look takes a millisecond, so that a campaign ends after so many looks on any machine. */
function steadyClock(): () => number {
  let nowMs = 0;
  return () => nowMs++;
}

describe('a campaign', () => {
  it('gives the corpus first, as it is', () => {
    const seen: string[] = [];
    runCampaign({
      target: bytes => seen.push(text(bytes)),
      corpus: ['one', 'two', 'three'].map(bytesOf),
      random: new Random(1),
      timeMs: 100,
      now: steadyClock(),
    });
    expect(seen.slice(0, 3)).toEqual(['one', 'two', 'three']);
    expect(seen.length).toBeGreaterThan(10);
  });

  it('is the same again with the same seed, and another with another', () => {
    const inputsOf = (seed: number): string[] => {
      const seen: string[] = [];
      runCampaign({
        target: bytes => seen.push(text(bytes)),
        corpus: [bytesOf('a seed of some bytes')],
        random: new Random(seed),
        timeMs: 1000,
        now: steadyClock(),
      });
      return seen;
    };
    expect(inputsOf(7)).toEqual(inputsOf(7));
    expect(inputsOf(7)).not.toEqual(inputsOf(8));
  });

  it('finds a number in a field, and makes the input small', () => {
    const { finding, executions } = runCampaign({
      target(bytes) {
        if (bytes.length < 8) return;
        const view = new DataView(bytes.buffer, bytes.byteOffset);
        if (view.getUint32(4, true) === 0xffff_ffff) throw new RangeError(`no room at ${bytes.length}`);
      },
      corpus: [new Uint8Array(64)],
      random: new Random(1),
      timeMs: 1_000_000,
      now: steadyClock(),
    });
    expect(finding?.reason).toBeInstanceOf(RangeError);
    expect(finding?.input).toHaveLength(8);
    expect(executions).toBeGreaterThan(1);
  });

  it('finds an input that takes too long', () => {
    let nowMs = 0;
    const { finding, slowestMs } = runCampaign({
      target(bytes) {
        nowMs += bytes.includes(0xff) ? 1001 : 1;
      },
      corpus: [new Uint8Array(16)],
      random: new Random(1),
      timeMs: 1_000_000,
      now: () => nowMs,
    });
    expect(finding?.reason).toBeInstanceOf(SlowInputError);
    expect(finding?.input.includes(0xff)).toBe(true);
    expect(slowestMs).toBe(1001);
  });

  it('takes an input that was slow but once for a machine that was busy', () => {
    let nowMs = 0;
    let slow = true;
    const { finding, slowestMs } = runCampaign({
      target() {
        nowMs += slow ? 5000 : 1;
        slow = false;
      },
      corpus: [new Uint8Array(16)],
      random: new Random(1),
      timeMs: 10_000,
      now: () => nowMs,
    });
    expect(finding).toBeUndefined();
    expect(slowestMs).toBe(1);
  });

  it('goes by the time that an input was at work, however long the machine kept it waiting', () => {
    let nowMs = 0;
    let spentMs = 0;
    const { finding, slowestMs } = runCampaign({
      target() {
        nowMs += 5000;
        spentMs += 2;
      },
      corpus: [new Uint8Array(16)],
      random: new Random(1),
      timeMs: 100_000,
      now: () => nowMs,
      spentMs: () => spentMs,
    });
    expect(finding).toBeUndefined();
    expect(slowestMs).toBe(2);
  });

  it('does without a corpus, and with targets that write into their input', () => {
    const corpus = [bytesOf('kept')];
    const options = { random: new Random(1), timeMs: 200, now: steadyClock() };
    expect(runCampaign({ ...options, corpus, target: bytes => bytes.fill(0) }).finding).toBeUndefined();
    expect(text(corpus[0])).toBe('kept');
    const empty = runCampaign({ ...options, corpus: [], target: () => {}, now: steadyClock() });
    expect(empty.executions).toBeGreaterThan(10);
  });
});

describe('shrinking', () => {
  it('keeps what makes the failure, and only failures of that kind', () => {
    const target = (bytes: Uint8Array): void => {
      const string = text(bytes);
      if (string.includes('X') && string.includes('Y')) throw new Error(`at ${string.indexOf('X')}`);
      if (string.includes('X')) throw new TypeError('another');
    };
    const found = bytesOf(`${'a'.repeat(100)}X${'b'.repeat(57)}Y${'c'.repeat(33)}`);
    expect(text(shrink(target, found, new Error('at 100')))).toBe('XY');
  });
});

describe('mutations', () => {
  const original = Uint8Array.from({ length: 200 }, (_, index) => index);

  it('leave what they are made of as it is', () => {
    const [input, other] = [original.slice(), original.slice().reverse()];
    const random = new Random(3);
    for (let round = 0; round < 2000; round++) mutate(random, input, other);
    expect(input).toEqual(original);
    expect(other).toEqual(original.toReversed());
  });

  it('stay within bounds, and reach beyond most of them now and then', () => {
    const random = new Random(3);
    let longest = 0;
    let shortest = Number.POSITIVE_INFINITY;
    let long = 0;
    let bytes: Uint8Array = original;
    for (let round = 0; round < 20_000; round++) {
      const next = mutate(random, bytes, original);
      longest = Math.max(longest, next.length);
      shortest = Math.min(shortest, next.length);
      if (next.length > INPUT_BYTES_MAX) long++;
      bytes = next.length > INPUT_BYTES_MAX || next.length === 0 ? original : next;
    }
    expect(longest).toBeLessThanOrEqual(LONG_INPUT_BYTES_MAX);
    expect(shortest).toBe(0);
    expect(long).toBeGreaterThan(0);
  });

  it('of nothing are something', () => {
    const random = new Random(5);
    const lengths = new Set<number>();
    for (let round = 0; round < 500; round++) lengths.add(mutate(random, new Uint8Array(0), original).length);
    expect(lengths.size).toBeGreaterThan(10);
  });
});
