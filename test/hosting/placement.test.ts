/** Which thread serves the next guest. */
import { expect, test } from 'vitest';
import { leastLoaded } from '../../src/hosting/placement.ts';

test('guests are spread evenly, and one that was sent away leaves room where it was', () => {
  const threads = ['a', 'b', 'c'];
  const homes: string[] = [];
  for (let guest = 0; guest < 6; guest++) homes.push(leastLoaded(threads, homes));
  expect(homes).toEqual(['a', 'b', 'c', 'a', 'b', 'c']);
  // Both guests of b are dismissed. By their number alone the next would go to b and c.
  homes.splice(0, homes.length, 'a', 'c', 'a', 'c');
  homes.push(leastLoaded(threads, homes));
  homes.push(leastLoaded(threads, homes));
  expect(homes.slice(4)).toEqual(['b', 'b']);
});
