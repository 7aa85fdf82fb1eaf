/** Holds the code to docs/architecture.md: a room imports only rooms above it in the table there. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const src = join(root, 'src');

/** The rooms in the order of the table. */
const rooms = [
  ...readFileSync(join(root, 'docs/architecture.md'), 'utf8').matchAll(/^\| `([a-z-]+)\/` \|/gm),
].map(match => match[1]);

const files = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter(path => path.endsWith('.ts') && !path.endsWith('.d.ts'))
  .map(path => join(src, path));

/** `src/index.ts`, the package's own entry, stands before all rooms and may show something of each. */
const FACE = 'index.ts';

const roomOf = (path: string): string => relative(src, path).split('/')[0];

const importsOf = (path: string): string[] =>
  [...readFileSync(path, 'utf8').matchAll(/(?:from|import\()\s*'(\.[^']*)'/g)].map(match =>
    resolve(dirname(path), match[1]),
  );

describe('the rooms', () => {
  test('are all in the table, and the table names no others', () => {
    const present = new Set(files.map(roomOf).filter(room => room !== FACE));
    expect([...present].filter(room => !rooms.includes(room))).toEqual([]);
    expect(rooms.filter(room => !present.has(room))).toEqual([]);
  });

  test('import only rooms above them', () => {
    const wrong = files.flatMap(file =>
      importsOf(file)
        .filter(
          imported => roomOf(file) !== FACE && rooms.indexOf(roomOf(imported)) > rooms.indexOf(roomOf(file)),
        )
        .map(imported => `${relative(src, file)} imports ${relative(src, imported)}`),
    );
    expect(wrong).toEqual([]);
  });

  test('leave native calls to sys/', () => {
    const native = files.filter(file => /from 'koffi'/.test(readFileSync(file, 'utf8')));
    expect([...new Set(native.map(roomOf))]).toEqual(['sys']);
  });

  test('have files that open with what lives in them', () => {
    const silent = files.filter(file => !/^\/\*\*|^\/\//.test(readFileSync(file, 'utf8')));
    expect(silent.map(file => relative(src, file))).toEqual([]);
  });
});
