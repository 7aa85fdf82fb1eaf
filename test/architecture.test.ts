/** Holds the code to docs/architecture.md: a room imports the rooms that the table there names, and those stand above it. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const src = join(root, 'src');

/** The rooms in the order of the table, and the rooms that each imports. */
const table = [
  ...readFileSync(join(root, 'docs/architecture.md'), 'utf8').matchAll(
    /^\| `([a-z-]+)\/` \| .* \| ([a-z, -]+) \| .* \|$/gm,
  ),
].map(([, room, imports]) => ({ room, imports: imports === 'nothing' ? [] : imports.split(', ') }));
const rooms = table.map(({ room }) => room);

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

  test('import the rooms that the table names, and no others', () => {
    const found = new Map(rooms.map(room => [room, new Set<string>()]));
    // The package's entry in src/ itself is in no room.
    for (const file of files.filter(path => dirname(path) !== src)) {
      for (const imported of importsOf(file)) {
        if (roomOf(imported) !== roomOf(file)) found.get(roomOf(file))?.add(roomOf(imported));
      }
    }
    const inOrder = (names: ReadonlySet<string>) => rooms.filter(room => names.has(room));
    expect([...found].map(([room, names]) => ({ room, imports: inOrder(names) }))).toEqual(table);
  });

  test('are named above those that import them', () => {
    const wrong = table.flatMap(({ room, imports }) =>
      imports
        .filter(imported => !(rooms.indexOf(imported) < rooms.indexOf(room)))
        .map(imported => `${room} names ${imported}`),
    );
    expect(wrong).toEqual([]);
  });

  test('have no file that imports itself by way of others, types included', () => {
    const circles: string[] = [];
    const done = new Set<string>();
    const way: string[] = [];
    const walk = (path: string): void => {
      if (done.has(path)) return;
      const at = way.indexOf(path);
      if (at >= 0) {
        circles.push([...way.slice(at), path].map(one => relative(src, one)).join(' -> '));
        return;
      }
      way.push(path);
      for (const imported of importsOf(path)) if (files.includes(imported)) walk(imported);
      way.pop();
      done.add(path);
    };
    files.forEach(walk);
    expect(circles).toEqual([]);
  });

  test('leave Node out of what the page loads: a browser has nothing of it', () => {
    const web = join(root, 'web/src');
    const pending = readdirSync(web)
      .filter(name => /\.tsx?$/.test(name))
      .map(name => join(web, name));
    const seen = new Set<string>();
    const ofNode: string[] = [];
    for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
      if (seen.has(path)) continue;
      seen.add(path);
      // What is imported or shown again as a value; types are gone when the page is built.
      const statements = readFileSync(path, 'utf8').matchAll(
        /^(?:import|export) (?!type\b)[^;]*?from\s*'([^']+)'/gm,
      );
      for (const [statement, from] of statements) {
        if (/^\w+ \{(?:\s*type [^,}]+,?)+\s*\}/.test(statement)) continue;
        if (from.startsWith('node:')) ofNode.push(`${relative(root, path)} imports ${from}`);
        else if (/^\..*\.tsx?$/.test(from)) pending.push(resolve(dirname(path), from));
      }
    }
    expect(seen.size).toBeGreaterThan(30);
    expect(ofNode).toEqual([]);
  });

  test('leave native calls to sys/', () => {
    const native = files.filter(file => /from 'koffi'/.test(readFileSync(file, 'utf8')));
    expect([...new Set(native.map(roomOf))]).toEqual(['sys']);
  });

  test("leave packages to the command line, the API and the peers: what the library and a data-plane thread load has koffi's native calls alone", () => {
    const bare = [
      'sys',
      'memory',
      'virtio',
      'balloon',
      'device',
      'driver',
      'vhost-user',
      'testing',
      'threads',
      'hosting',
    ];
    // Types are gone when it is compiled.
    const packages = /^(?:import|export) (?!type\b)[^;]*?from '(?!node:|\.)([^']+)'/gm;
    const wrong = files
      .filter(path => bare.includes(roomOf(path)))
      .flatMap(path =>
        [...readFileSync(path, 'utf8').matchAll(packages)].map(
          ([, name]) => `${relative(src, path)}: ${name}`,
        ),
      )
      .filter(found => !(found.startsWith('sys/') && found.endsWith(': koffi')));
    expect(wrong).toEqual([]);
  });

  test('of protocols read no clock: time is an argument', () => {
    const protocols = ['virtio', 'balloon', 'device', 'driver', 'guest', 'migration'];
    const clock = /\b(monotonicMs|processClock|performance\.now|Date\.now|hrtime)\b/;
    const readers = files.filter(
      path =>
        protocols.includes(roomOf(path)) &&
        // A face shows other programs the clock that they may give.
        !path.endsWith('/index.ts') &&
        clock.test(readFileSync(path, 'utf8')),
    );
    expect(readers.map(path => relative(src, path))).toEqual([]);
  });

  test('ask no backing for its class, and no profile or format which one it is', () => {
    const asks = /instanceof (File|Heap|Anonymous)Backing|(profile|abi|format)\.name [!=]== '/;
    const askers = files.filter(path => asks.test(readFileSync(path, 'utf8')));
    expect(askers.map(path => relative(src, path))).toEqual([]);
  });

  test('have files that open with what lives in them', () => {
    const silent = files.filter(file => !/^\/\*\*|^\/\//.test(readFileSync(file, 'utf8')));
    expect(silent.map(file => relative(src, file))).toEqual([]);
  });
});
