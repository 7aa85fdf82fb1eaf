/** Holds what is written about the project to what there is: links lead somewhere, and the README knows every command. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { GUEST_STATES } from '../src/control/contract.ts';
import { stateWord } from '../src/control/guest-state.ts';
import { createApi } from '../src/server/api.ts';
import { run } from './cli/terminal.ts';
import { FakeControl } from './server/fake-control.ts';
import { configurationDocument } from './support/configuration-document.ts';
import { conformanceClauses, conformanceDocument } from './support/conformance-document.ts';
import { errorsDocument } from './support/errors-document.ts';
import { exists, walksOf } from './support/walks.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

const markdownIn = (folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: folder !== '.', encoding: 'utf8' })
    .filter(path => path.endsWith('.md'))
    .map(path => join(root, folder, path));

const documents = ['.', 'docs', 'packaging', 'bench', 'fuzz'].flatMap(markdownIn);

/** Titles as GitHub makes them places to link to. */
const anchorsOf = (path: string): string[] =>
  [...readFileSync(path, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
    title
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );

test('every relative link in the documents leads to a file, and to a title in it', () => {
  expect(documents.length).toBeGreaterThan(8);
  const broken = documents.flatMap(document =>
    [...readFileSync(document, 'utf8').matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, link]) => {
      if (/^[a-z]+:/.test(link)) return [];
      const [path, anchor] = link.split('#');
      const target = path === '' ? document : join(dirname(document), path);
      const found =
        existsSync(target) &&
        (anchor === undefined || !target.endsWith('.md') || anchorsOf(target).includes(anchor));
      return found ? [] : [`${relative(root, document)}: ${link}`];
    }),
  );
  expect(broken).toEqual([]);
});

test('the index of the documents names each of them', () => {
  const index = readFileSync(join(root, 'docs/README.md'), 'utf8');
  const files = readdirSync(join(root, 'docs')).filter(name => name.endsWith('.md') && name !== 'README.md');
  expect(files.filter(name => !index.includes(`(${name})`))).toEqual([]);
});

test('messages of the page for trouble are those that are printed', () => {
  const source = ['src', 'scripts']
    .flatMap(folder =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map(path =>
        join(root, folder, path),
      ),
    )
    .filter(path => /\.(ts|mjs)$/.test(path))
    .map(path => readFileSync(path, 'utf8'))
    .join('\n');
  const page = readFileSync(join(root, 'docs/troubleshooting.md'), 'utf8');
  const messages = [...page.matchAll(/^\| `([^`]+)`/gm)].map(([, message]) => message);
  expect(messages.length).toBeGreaterThan(20);
  expect(messages.filter(message => !source.includes(message))).toEqual([]);
});

test('decisions are numbered from 1 on, each number once, as their titles say', () => {
  const files = readdirSync(join(root, 'docs/decisions')).sort();
  const expected = files.map((_, at) => String(at + 1).padStart(4, '0'));
  expect(files.map(file => file.slice(0, 4))).toEqual(expected);
  const titles = files.map(file => readFileSync(join(root, 'docs/decisions', file), 'utf8').split(' ', 2)[1]);
  expect(titles).toEqual(expected.map(number => `${Number(number)}.`));
});

test('every file that the architecture names is there', () => {
  const text = readFileSync(join(root, 'docs/architecture.md'), 'utf8');
  const named = [...text.matchAll(/`((?:[a-z-]+\/)+[a-z-]+\.tsx?)`/g)].map(([, path]) => path);
  expect(named.length).toBeGreaterThan(40);
  const there = (path: string) => existsSync(join(root, 'src', path)) || existsSync(join(root, path));
  expect(named.filter(path => !there(path))).toEqual([]);
});

test('every change that docs/extending.md shows applies to these sources; extending.test.ts makes them', () => {
  const document = readFileSync(join(root, 'docs/extending.md'), 'utf8');
  const diffs = [...document.matchAll(/```diff\n(.*?)```/gs)].map(([, diff]) => diff);
  expect(diffs.length).toBe(3);
  for (const diff of diffs) {
    const { stderr } = spawnSync('git', ['apply', '--check', '-'], {
      cwd: root,
      input: diff,
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
  }
});

describe('the walks of the architecture', () => {
  // The most functions that each of their tables may have, and the most files.
  test.each([
    { title: 'The path of one target change', limits: [[12, 10]] },
    {
      title: 'The path of one inflation',
      limits: [
        [15, 12],
        [10, 5],
      ],
    },
    {
      title: 'The path of one migration',
      limits: [
        [12, 7],
        [9, 7],
      ],
    },
    { title: 'The path of one figure on the page', limits: [[14, 8]] },
    { title: 'The path of one plan over a fleet', limits: [[6, 3]] },
  ])('$title: has functions that are there, and no more than it needs', ({ title, limits }) => {
    const walks = walksOf(title);
    expect(walks.length).toBe(limits.length);
    for (const [index, walk] of walks.entries()) {
      expect(walk.filter(step => !exists(step))).toEqual([]);
      const [functionsMax, filesMax] = limits[index];
      expect(walk.length).toBeGreaterThan(5);
      expect(walk.length).toBeLessThanOrEqual(functionsMax);
      expect(new Set(walk.map(({ file }) => file)).size).toBeLessThanOrEqual(filesMax);
    }
  });
});

test("the README's table has every command", async () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const { out } = await run(['--help']);
  const commands = [...out.matchAll(/^ {2}([a-z]+) +(?:[[<]|[a-z])/gm)].map(([, command]) => command);
  expect(commands).toContain('bench');
  const missing = commands.filter(
    command => command !== 'help' && !readme.includes(`| \`aerostat ${command}`),
  );
  expect(missing).toEqual([]);
});

test('the tables of guest states have every state, and every word that it is shown by', () => {
  const words = (path: string) =>
    [...readFileSync(join(root, path), 'utf8').matchAll(/^\| (.*?) \|/gm)].flatMap(([, cell]) =>
      cell.split(', or '),
    );
  const shown = [...GUEST_STATES, null].map(state => stateWord({ state, connected: true }));
  for (const path of ['docs/guest-states.md', 'README.md']) {
    expect(words(path)).toEqual(expect.arrayContaining(shown));
  }
  const page = readFileSync(join(root, 'docs/guest-states.md'), 'utf8');
  expect(GUEST_STATES.filter(state => !page.includes(`\`${state}\``))).toEqual([]);
});

test('the page of error codes is what their declarations say', async () => {
  await expect(errorsDocument()).toMatchFileSnapshot('../docs/errors.md');
});

test('the page of the configuration is what its schema says', async () => {
  await expect(configurationDocument()).toMatchFileSnapshot('../docs/configuration.md');
});

test("the API's document is what a daemon answers; `npx vitest run test/documents.test.ts -u` renews it", async () => {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { app, close } = createApi(new FakeControl(), { version });
  const answer = await app.request('/v1/openapi.json');
  close();
  const document = `${JSON.stringify(await answer.json(), null, 2)}\n`;
  await expect(document).toMatchFileSnapshot('../docs/openapi.json');
});

test('the page of conformance is what the titles of the conformance tests say', async () => {
  await expect(conformanceDocument()).toMatchFileSnapshot('../docs/conformance.md');
});

test('every clause that a comment in the sources cites is on the page of conformance', () => {
  const known = new Set(conformanceClauses().map(({ number }) => number));
  // "V8" is the name of the JavaScript engine wherever it is not in brackets or before a colon.
  const cited = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter(path => path.endsWith('.ts'))
    .flatMap(path =>
      readFileSync(join(root, 'src', path), 'utf8')
        .split('\n')
        .filter(line => /^\s*(?:\/?\*|\/\/)/.test(line))
        .flatMap(line =>
          [...line.matchAll(/\b(?:D\d{1,2}|V\d{1,2}(?=[):,]))(?=[^\w.])/g)].map(([clause]) => ({
            path,
            clause,
          })),
        ),
    );
  expect(cited.length).toBeGreaterThan(15);
  expect(cited.filter(({ clause }) => !known.has(clause))).toEqual([]);
});
