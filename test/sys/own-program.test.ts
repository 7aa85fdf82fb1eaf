/** However this program is started, Node's options are the same. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { ownCommandLine } from '../../src/sys/own-program.ts';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

test('the first line of the program, the script of a clone and its own processes give Node the same options', () => {
  const [node, ...words] = ownCommandLine('--version');
  const [path, version] = words.slice(-2);
  const options = words.slice(0, -2);
  expect(read('bin/aerostat').split('\n')[0]).toBe(`#!/usr/bin/env -S node ${options.join(' ')}`);
  for (const option of options) expect(read('scripts/aerostat.mjs')).toContain(`'${option}'`);
  const own = spawnSync(node, words, { encoding: 'utf8' });
  const asPeople = spawnSync(path, [version], { encoding: 'utf8' });
  expect([own.status, asPeople.status, own.stdout]).toEqual([0, 0, asPeople.stdout]);
});
