/** Tokens as people keep them: a file with one a line, or a variable with one. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readToken, readTokens } from '../../src/server/token.ts';

const TOKEN = '0123456789abcdef0123456789abcdef';
const OTHER = 'fedcba9876543210fedcba9876543210';

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  file = join(directory, 'token');
});

afterEach(() => rmSync(directory, { recursive: true }));

const write = (text: string) => writeFileSync(file, text, { mode: 0o600 });

test('a token comes from the file, else from the environment, which holds the token itself', () => {
  write(`${TOKEN}\n`);
  expect(readToken(file, { AEROSTAT_TOKEN: OTHER })).toBe(TOKEN);
  expect(readToken(undefined, { AEROSTAT_TOKEN: OTHER })).toBe(OTHER);
  expect(readToken(undefined, { AEROSTAT_TOKEN: '' })).toBeUndefined();
});

test('a path in AEROSTAT_TOKEN is told from a token, which may have slashes', () => {
  write(TOKEN);
  expect(() => readToken(undefined, { AEROSTAT_TOKEN: file })).toThrow(
    /which is a file; the variable holds the token itself, --token-file names a file/,
  );
  expect(readToken(undefined, { AEROSTAT_TOKEN: `/abc/${TOKEN}` })).toBe(`/abc/${TOKEN}`);
});

test('a file holds several tokens, some that may only read, with names', () => {
  write(
    `# who may what\n${TOKEN}\n\n${OTHER} read-only prometheus # scrapes\n  third-token-of-all full ops\n`,
  );
  expect(readTokens(file, {})).toEqual([
    { secret: TOKEN, right: 'full', name: null },
    { secret: OTHER, right: 'read-only', name: 'prometheus' },
    { secret: 'third-token-of-all', right: 'full', name: 'ops' },
  ]);
  // A client sends one.
  expect(readToken(file, {})).toBe(TOKEN);
});

test.each(['', '\n', ' \n\n', '# nothing yet\n'])('an empty file is said to be empty: %j', text => {
  write(text);
  expect(() => readTokens(file, {})).toThrow(
    `${file} is empty; put a token into it: (umask 077; openssl rand`,
  );
});

test('a line that is none is refused by its number, and never shown', () => {
  for (const line of [`${OTHER} readonly`, `${OTHER} full a b`, `${OTHER} read-only a b`]) {
    write(`${TOKEN}\n${line}\n`);
    expect(() => readTokens(file, {})).toThrow(`line 2 of ${file} is not: TOKEN [full|read-only] [NAME]`);
  }
  write(`${TOKEN}\n${TOKEN} read-only\n`);
  expect(() => readTokens(file, {})).toThrow(/line 2 of .* repeats a token/);
});

test('a file that everybody may read, or that is none, is refused', () => {
  write(TOKEN);
  chmodSync(file, 0o644);
  expect(() => readToken(file, {})).toThrow(/chmod 600/);
  expect(() => readToken(join(directory, 'none'), {})).toThrow(/cannot read the token.*openssl rand/);
  expect(() => readToken(directory, {})).toThrow(/is a folder/);
});

test('any text is tokens or a typed error', () => {
  fc.assert(
    fc.property(fc.string(), text => {
      write(text);
      try {
        expect(readTokens(file, {}).length).toBeGreaterThan(0);
      } catch (error) {
        expect(error).toMatchObject({ code: 'AEROSTAT_API_TOKEN' });
      }
    }),
    { numRuns: 200 },
  );
});
