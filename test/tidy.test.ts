/**
 * Rules of the house that a machine can hold: one name for one thing, nothing exported in vain, functions and files of a
 * size to be read, lines of documents that a diff can show. What is excepted, and why, is in support/tidy-exceptions.ts:
 * a list that may only shrink, for an exception that is no longer needed fails here too.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ERRORS, EXIT } from '../src/sys/error-codes.ts';
import { root, type Source, sourcesIn } from './support/sources.ts';
import {
  type Exceptions,
  LONG_FILES,
  LONG_FUNCTIONS,
  LONG_LINES,
  SEEN_BY_TESTS,
} from './support/tidy-exceptions.ts';

const FUNCTION_LINES_MAX = 70;
const FILE_LINES_MAX = 400;
const DOCUMENT_LINE_MAX = 120;

/** What the package shows other programs; what stands here is imported by them. */
const FACES = [...readFileSync(join(root, 'package.json'), 'utf8').matchAll(/"\.\/dist\/(.*)\.js"/g)].map(
  ([, path]) => `src/${path}.ts`,
);

const product = sourcesIn('src', 'web/src');
const users = [...product, ...sourcesIn('bench', 'fuzz', 'scripts', 'web/vite.config.ts')];

/** Fails for what is found and not excepted, and for what is excepted and not found. */
function expectOnly(found: readonly string[], exceptions: Exceptions): void {
  const excepted = exceptions.flatMap(({ what }) => what);
  expect({
    found: found.filter(what => !excepted.includes(what)),
    needlesslyExcepted: excepted.filter(what => !found.includes(what)),
  }).toEqual({ found: [], needlesslyExcepted: [] });
  expect(exceptions.filter(({ because }) => because.length < 20)).toEqual([]);
}

describe('names', () => {
  test('are exported once: one name, one thing', () => {
    const places = new Map<string, string[]>();
    for (const { path, exports } of product) {
      for (const { name, own } of exports) if (own) places.set(name, [...(places.get(name) ?? []), path]);
    }
    const twice = [...places].filter(([, paths]) => paths.length > 1);
    expect(twice.map(([name, paths]) => `${name}: ${paths.join(', ')}`)).toEqual([]);
  });

  test('are exported for a use: something outside of tests imports each', () => {
    const imported = new Set(users.flatMap(importedBy));
    const vain = exportedNames().filter(({ key, all }) => !imported.has(key) && !imported.has(all));
    expectOnly(
      vain.map(({ key }) => key),
      SEEN_BY_TESTS,
    );
  });
});

const importedBy = ({ imports }: Source): string[] => imports.map(({ from, name }) => `${from} ${name}`);

/** As an importer names one of them, and as it names all. */
const exportedNames = (): { readonly key: string; readonly all: string }[] =>
  product
    .filter(({ path }) => !FACES.includes(path))
    .flatMap(({ path, exports }) =>
      exports.map(({ name }) => ({ key: `${path} ${name}`, all: `${path} *` })),
    );

test(`functions fit a screen: ${FUNCTION_LINES_MAX} lines at most`, () => {
  const long = product.flatMap(({ path, functions }) =>
    functions.filter(({ lines }) => lines > FUNCTION_LINES_MAX).map(({ name }) => `${path} ${name}`),
  );
  expectOnly(long, LONG_FUNCTIONS);
});

test(`files have one subject: ${FILE_LINES_MAX} lines at most`, () => {
  const long = product.filter(({ lines }) => lines > FILE_LINES_MAX).map(({ path }) => path);
  expectOnly(long, LONG_FILES);
});

test('files open with a paragraph that says what lives in them', () => {
  const silent = [...product, ...sourcesIn('bench', 'fuzz', 'scripts')].filter(
    ({ text }) => !/^(?:#!.*\n)?(?:\/\*\*|\/\/) ?\S|^\/\*\*\n \* \S/.test(text),
  );
  expect(silent.map(({ path }) => path)).toEqual([]);
});

describe('errors', () => {
  test('have a code in one class each, and every code is used', () => {
    const text = product
      .filter(({ path }) => path !== 'src/sys/error-codes.ts')
      .map(source => source.text)
      .join('\n');
    const carried = [...text.matchAll(/super\(\s*'(AEROSTAT_[A-Z_]+)'/g)].map(([, code]) => code);
    expect(carried.length).toBeGreaterThan(50);
    expect(carried.filter((code, index) => carried.indexOf(code) !== index)).toEqual([]);
    expect(Object.keys(ERRORS).filter(code => !text.includes(`'${code}'`))).toEqual([]);
  });

  test('have a meaning, a remedy, an exit code, and a status that is an error', () => {
    const wrong = Object.entries(ERRORS).filter(
      ([, { meaning, remedy, exit, status }]) =>
        !/^[A-Z].*\.$/.test(meaning) ||
        !/\S/.test(remedy) ||
        EXIT[exit ?? 'failed'] === EXIT.ok ||
        (status !== undefined && (status < 400 || status > 599)),
    );
    expect(wrong.map(([code]) => code)).toEqual([]);
  });
});

/** Has a line for each change, however long it is. */
const CHANGELOG = 'CHANGELOG.md';

test(`lines of documents have ${DOCUMENT_LINE_MAX} characters at most, but for tables, code and links`, () => {
  const documents = ['.', 'docs', 'linux', 'packaging', 'bench', 'fuzz'].flatMap(folder =>
    readdirSync(join(root, folder), { recursive: folder !== '.', encoding: 'utf8' })
      .filter(path => path.endsWith('.md') && path !== CHANGELOG)
      .map(path => join(folder, path)),
  );
  const long = documents.filter(path =>
    breakableLines(readFileSync(join(root, path), 'utf8')).some(line => line.length > DOCUMENT_LINE_MAX),
  );
  expectOnly(long, LONG_LINES);
});

test('text names the component that acts: it is not "whoever", "somebody" or "nobody" that does a thing', () => {
  // This file and the licence name the words themselves.
  const texts = ['src', 'web/src', 'test', 'bench', 'fuzz', 'scripts', 'docs', 'packaging', 'linux']
    .flatMap(folder =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map(path => join(folder, path)),
    )
    .filter(path => /\.(ts|tsx|mjs|md|c|h|service|toml)$/.test(path) && path !== 'test/tidy.test.ts')
    .concat('README.md', 'CONTRIBUTING.md');
  const vague = texts.flatMap(path =>
    readFileSync(join(root, path), 'utf8')
      .split('\n')
      .flatMap((line, at) =>
        /\b(whoever|somebody|someone|nobody|anybody)\b/i.test(line) ? [`${path}:${at + 1}`] : [],
      ),
  );
  expect(vague).toEqual([]);
});

/** Lines but for those of a table or a block of code, and those that are one link or one word of code. */
function breakableLines(text: string): string[] {
  let code = false;
  return text.split('\n').filter(line => {
    if (line.startsWith('```')) code = !code;
    const one = /^!?\[[^\]]*\]\([^)]*\)[,.]?$|^`[^`]*`[,.]?$/.test(line);
    return !code && !line.startsWith('|') && !one;
  });
}
