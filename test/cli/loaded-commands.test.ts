/** Which modules a command line loads. */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { loadCommands } from '../../src/cli/commands.ts';
import type { CliContext } from '../../src/cli/context.ts';

const context = {} as CliContext;
const namesOf = async (words: readonly string[]): Promise<string[]> =>
  (await loadCommands(words)).map(make => make(context).name());

test('a command is loaded alone, and by its name', async () => {
  const names = await namesOf([]);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) {
    const loaded = await namesOf([name, '--help']);
    if (['completion', 'help', 'manual'].includes(name)) expect(loaded).toEqual(names);
    else expect(loaded).toEqual([name]);
  }
});

test('a word that is no command has all of them to be told apart from', async () => {
  const names = await namesOf([]);
  for (const words of [['--help'], ['nonsense'], ['toString'], ['--json', 'status']])
    expect(await namesOf(words)).toEqual(names);
});

test('every module of commands is in the table', async () => {
  const modules = readdirSync(fileURLToPath(new URL('../../src/cli/commands', import.meta.url)));
  const names = await namesOf([]);
  const missing = modules
    .filter(file => file.endsWith('.ts') && !file.includes('-'))
    .map(file => file.slice(0, -'.ts'.length))
    .filter(name => !names.includes(name));
  expect(missing).toEqual([]);
});
