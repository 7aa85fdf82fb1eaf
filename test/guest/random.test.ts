import { describe, expect, it } from 'vitest';
import { Random } from '../../src/guest/random.ts';

const draw = (random: Random, count = 20) => Array.from({ length: count }, () => random.u32());

describe('the guest’s chance', () => {
  it('follows from the seed, all 53 bits of it', () => {
    expect(draw(new Random(1))).toEqual(draw(new Random(1)));
    expect(draw(new Random(1))).not.toEqual(draw(new Random(2)));
    expect(draw(new Random(1))).not.toEqual(draw(new Random(1 + 2 ** 40)));
  });

  it('splits into streams that are their own and leave the first as it was', () => {
    const random = new Random(7);
    const a = random.split('a');
    const b = random.split('b');
    expect(draw(a)).not.toEqual(draw(b));
    expect(draw(random)).toEqual(draw(new Random(7)));
  });

  it('is even over its range and within its bounds', () => {
    const random = new Random(3);
    const counts = new Int32Array(10);
    for (let i = 0; i < 100_000; i++) counts[random.below(10)]++;
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(500);
    for (let i = 0; i < 1000; i++) expect([5, 6, 7]).toContain(random.between(5, 7));
  });

  it('shuffles all items into another order', () => {
    const items = Int32Array.from({ length: 100 }, (_, i) => i);
    new Random(5).shuffle(items);
    expect([...items]).not.toEqual([...items].sort((a, b) => a - b));
    expect([...items].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  it('goes on where it was saved', () => {
    const random = new Random(9);
    draw(random);
    const restored = Random.restore(random.save());
    expect(draw(restored)).toEqual(draw(random));
    expect(new Set(draw(Random.restore([0, 0, 0, 0]))).size).toBeGreaterThan(10);
  });
});
