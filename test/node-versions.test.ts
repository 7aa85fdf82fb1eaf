/** The versions of Node that run the program: package.json says which, and all else agrees with it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
// @ts-expect-error The scripts that run before anything is compiled have no types.
import * as versions from '../scripts/node-versions.mjs';

const isIn: (version: string, range: string) => boolean = versions.isIn;
const firstsOf: (range: string) => string[] = versions.firstsOf;
const wordsOf: (range: string) => string = versions.wordsOf;

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const range: string = JSON.parse(read('package.json')).engines.node;

interface Locked {
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly devOptional?: boolean;
  readonly engines?: { readonly node?: string };
}
const locked: Record<string, Locked> = JSON.parse(read('package-lock.json')).packages;
const all = Object.entries(locked).flatMap(([path, { dev, optional, devOptional, engines }]) =>
  path === '' || dev || optional || devOptional || engines?.node === undefined ? [] : [[path, engines.node]],
);
/** Loaded by commands of a fleet alone, when they run (src/fleet/nats.ts). */
const isOfFleets = ([path]: string[]): boolean => path.startsWith('node_modules/@nats-io/');
const dependencies = all.filter(one => !isOfFleets(one));

test('every dependency of the program runs on each version that the program promises', () => {
  expect(dependencies.length).toBeGreaterThan(5);
  const wrong = firstsOf(range).flatMap(version =>
    dependencies.filter(([, needs]) => !isIn(version, needs)).map(([path]) => `${path} on ${version}`),
  );
  expect(wrong).toEqual([]);
  expect(locked[''].engines?.node).toBe(range);
});

test('what commands of a fleet load wants a newer version, which their document says', () => {
  const ofFleets = all.filter(isOfFleets);
  expect(ofFleets.length).toBeGreaterThan(1);
  expect(ofFleets.filter(([, needs]) => !isIn('22.13', needs))).toEqual([]);
  expect(read('docs/fleet.md')).toContain('Node 22 or newer');
});

test.each(['README.md', 'docs/library.md'])('%s says which versions', path => {
  const told = [...read(path).matchAll(/Node (\d[\d., or]*(?: and newer| or newer))/g)].map(
    ([, words]) => words,
  );
  expect(told.length).toBeGreaterThan(0);
  expect(new Set(told)).toEqual(new Set([wordsOf(range)]));
});

describe('a range of versions', () => {
  test.each([
    ['20.18.3', '^20.19.0 || ^22.13.0 || >=24', false],
    ['20.19.0', '^20.19.0 || ^22.13.0 || >=24', true],
    ['21.7.0', '^20.19.0 || ^22.13.0 || >=24', false],
    ['22.12.0', '^20.19.0 || ^22.13.0 || >=24', false],
    ['26.1.0', '^20.19.0 || ^22.13.0 || >=24', true],
    ['20.19', '>= 14.6', true],
    ['8.0.0', '>=10.x', false],
  ])('has %s in %s: %s', (version, words, is) => {
    expect(isIn(version, words)).toBe(is);
  });

  test('in words that are not known is an error', () => {
    expect(() => isIn('20.0.0', '20 - 22')).toThrow('no range of versions: 20 - 22');
  });
});
