/** The list by which test files are ordered names files that there are. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { longestFirst, readDurations } from './support/longest-first.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

test('every test file in the list of durations is there', () => {
  expect([...readDurations().keys()].filter(path => !existsSync(join(root, path)))).toEqual([]);
});

test('test files that take longest start first, and those that are not listed last', () => {
  const durations = new Map([
    ['short', 5],
    ['long', 50],
  ]);
  const order = longestFirst(['new', 'short', 'newer', 'long'], path => path, durations);
  expect(order).toEqual(['long', 'short', 'new', 'newer']);
});
