/**
 * Both packages as a program finds them that depends on one: packed by npm, and the library unpacked into an empty folder
 * beside koffi alone. There the programs of docs/library.md are compiled under `strict`, and run. Modules of the whole
 * package are the same bytes.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fullToken } from '../../src/server/token.ts';
import { build } from '../cli/built.ts';
import { Served } from '../server/served.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const described = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** The tarball, and all that an installation of it brings. Its drawing library alone was 67 MB. */
const INSTALLED_BYTES_MAX = 64e6;

const COMPILER_OPTIONS = {
  module: 'nodenext',
  moduleResolution: 'nodenext',
  target: 'es2023',
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  verbatimModuleSyntax: true,
  types: ['node'],
  outDir: 'out',
  rootDir: '.',
};

/** What a program has that installed the library. */
let folder: string;
/** The same without koffi. */
let bare: string;
/** The whole package, beside nothing. */
let whole: string;

function run(program: string, words: readonly string[], cwd = folder) {
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: 'utf8', cwd });
  return { status, output: stdout + stderr };
}

/** The programs that the document shows, by the name that it gives them. */
function examples(): Map<string, string> {
  const text = readFileSync(join(root, 'docs/library.md'), 'utf8');
  const found = [...text.matchAll(/`([a-z]+\.ts)`[^`]*?(?:`[^`\n]+`[^`]*?)*\n```ts\n([\s\S]*?)```/g)];
  return new Map(found.map(([, name, code]) => [name, code]));
}

/** Bytes of the files below; links are not followed. */
function bytesIn(directory: string): number {
  return readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter(entry => entry.isFile())
    .reduce((sum, entry) => sum + readFileSync(join(entry.parentPath, entry.name)).length, 0);
}

/** Names of the packages that come with `names`, from the lock file. */
function withDependencies(names: readonly string[]): Set<string> {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  const found = new Set<string>();
  const visit = (name: string): void => {
    if (found.has(name) || lock[`node_modules/${name}`] === undefined) return;
    found.add(name);
    const { dependencies = {}, optionalDependencies = {} } = lock[`node_modules/${name}`];
    for (const below of [...Object.keys(dependencies), ...Object.keys(optionalDependencies)]) visit(below);
  };
  for (const name of names) visit(name);
  return found;
}

const descriptionIn = (path: string) => JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'));

/** Where the tarball was unpacked whose name a program printed last. */
function unpacked({ status, output }: ReturnType<typeof run>): string {
  expect(status, output).toBe(0);
  const tarball = join(folder, output.trim().split('\n').at(-1) ?? '');
  const { status: code, output: errors } = run('tar', ['--extract', '--file', tarball]);
  expect(code, errors).toBe(0);
  return join(folder, 'package');
}

beforeAll(() => {
  build();
  folder = mkdtempSync(join(tmpdir(), 'aerostat-library-'));
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, '@types'), { recursive: true });
  whole = unpacked(run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', folder], root));
  renameSync(whole, join(folder, 'whole'));
  whole = join(folder, 'whole');
  const library = unpacked(
    run(process.execPath, [join(root, 'scripts/package-library.mjs'), folder], folder),
  );
  renameSync(library, join(modules, 'aerostat'));
  bare = join(folder, 'bare');
  cpSync(join(modules, 'aerostat'), join(bare, 'node_modules/aerostat'), { recursive: true });
  // Links, because an installation asks a registry.
  for (const name of [...Object.keys(descriptionIn(join(modules, 'aerostat')).dependencies), '@types/node']) {
    symlinkSync(join(root, 'node_modules', name), join(modules, name));
  }
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ type: 'module' }));
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: COMPILER_OPTIONS, include: ['*.ts'] }),
  );
  for (const [name, code] of examples()) writeFileSync(join(folder, name), code);
}, 120_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the whole package', () => {
  test('has every face that it names, with types, and no maps of sources that it does not have', () => {
    for (const target of Object.values<string>(described.exports)) {
      expect([target, existsSync(join(whole, target))]).toEqual([target, true]);
      expect(existsSync(join(whole, target.replace(/\.js$/, '.d.ts')))).toBe(true);
    }
    const files = readdirSync(whole, { recursive: true, encoding: 'utf8' });
    expect(files.filter(path => path.endsWith('.map'))).toEqual([]);
    expect(files).toContain('dist/web/index.html');
  });

  test('is built before it is packed, from a bare clone as well', () => {
    expect(described.scripts.prepack).toBe(described.scripts.build);
  });

  test('is small with all that it depends on', () => {
    const names = [
      ...withDependencies(Object.keys({ ...described.dependencies, ...described.optionalDependencies })),
    ];
    // Of koffi's builds only the one for this machine is installed.
    const folders = names.map(name => join(root, 'node_modules', name)).filter(path => existsSync(path));
    const sum = folders.reduce((bytes, path) => bytes + bytesIn(path), 0);
    expect(sum + bytesIn(whole)).toBeLessThan(INSTALLED_BYTES_MAX);
  });
});

describe('the packed library', () => {
  test('has the same modules, in the same bytes, and depends on koffi alone', () => {
    const library = join(folder, 'node_modules/aerostat');
    const { name, version, exports, dependencies } = descriptionIn(library);
    expect({ name, version, exports }).toEqual({
      name: described.name,
      version: described.version,
      exports: described.exports,
    });
    expect(dependencies).toEqual({ koffi: described.dependencies.koffi });
    const code = readdirSync(library, { recursive: true, encoding: 'utf8' }).filter(path =>
      /^dist.*\.(js|d\.ts)$/.test(path),
    );
    expect(code.length).toBeGreaterThan(200);
    const differ = code.filter(
      path => !readFileSync(join(whole, path)).equals(readFileSync(join(library, path))),
    );
    expect(differ).toEqual([]);
    expect(code.filter(path => /^dist\/(cli|daemon|hosting|vm)\//.test(path))).toEqual([]);
  });

  test('has maps whose sources are there', () => {
    const library = join(folder, 'node_modules/aerostat');
    const maps = readdirSync(library, { recursive: true, encoding: 'utf8' }).filter(path =>
      path.endsWith('.map'),
    );
    expect(maps).toContain('dist/virtio/index.d.ts.map');
    const lost = maps.filter(map => {
      const { sources } = JSON.parse(readFileSync(join(library, map), 'utf8'));
      return !sources.every((source: string) => existsSync(resolve(library, map, '..', source)));
    });
    expect(lost).toEqual([]);
  });

  test('gives the same errors at every entry, and no name has two meanings', () => {
    const code = `
      import * as main from 'aerostat';
      import * as virtio from 'aerostat/virtio';
      import * as vhostUser from 'aerostat/vhost-user';
      import * as memory from 'aerostat/memory';
      import * as balloon from 'aerostat/balloon';
      import * as testing from 'aerostat/testing';
      const faces = [virtio, vhostUser, memory, balloon, testing];
      for (const face of faces) {
        for (const name of ['AerostatError', 'SystemError', 'InvariantError']) {
          if (typeof main[name] !== 'function' || face[name] !== main[name]) throw new Error(name);
        }
      }
      const values = new Map(Object.entries(main));
      for (const face of faces) {
        for (const [name, value] of Object.entries(face)) {
          if (values.has(name) && values.get(name) !== value) console.log('two meanings', name);
          values.set(name, value);
        }
      }`;
    expect(run(process.execPath, ['--input-type=module', '--eval', code])).toEqual({
      status: 0,
      output: '',
    });
  });

  test('compiles with every program of the document under strict', () => {
    expect([...examples().keys()]).toEqual(['device.ts', 'driver.ts', 'balloon.ts', 'steer.ts']);
    expect(run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', '.'])).toEqual({
      status: 0,
      output: '',
    });
  }, 60_000);

  test("runs the document's balloon where koffi is not installed", () => {
    const program = join(bare, 'balloon.mjs');
    writeFileSync(program, readFileSync(join(folder, 'out/balloon.js')));
    expect(run(process.execPath, [program], bare)).toEqual({
      status: 0,
      output: '512 of 512 pages are in the balloon\n',
    });
    expect(readdirSync(join(bare, 'node_modules'))).toEqual(['aerostat']);
  });

  test('shows a device and a driver in about forty lines each', () => {
    for (const name of ['device.ts', 'driver.ts']) {
      expect(examples().get(name)?.trim().split('\n').length).toBeLessThanOrEqual(40);
    }
  });

  test("runs the document's device and driver, which understand each other", async () => {
    const device = spawn(process.execPath, ['out/device.js', 'shouter.sock'], { cwd: folder });
    try {
      await firstOutput(device);
      const { status, output } = run(process.execPath, ['out/driver.js', 'shouter.sock', 'hello, device']);
      expect({ status, output }).toEqual({ status: 0, output: 'HELLO, DEVICE\n' });
    } finally {
      const ended = once(device, 'exit');
      device.kill();
      await ended;
    }
  });

  test("runs the document's program that steers a daemon", async () => {
    const token = 'f0e1d2c3b4a5968778695a4b3c2d1e0f';
    const served = await Served.open({ tokens: fullToken(token) });
    try {
      const [guest] = await served.control.guests();
      const steer = spawn(process.execPath, ['out/steer.js', `127.0.0.1:${served.port}`], {
        cwd: folder,
        env: { ...process.env, AEROSTAT_TOKEN: token },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const output = firstOutput(steer);
      expect((await once(steer, 'exit'))[0]).toBe(0);
      expect(await output).toMatch(/^vm1: \d+ of \d+ bytes in the balloon/);
      const quarter = (guest.memoryBytes ?? 0) / 4;
      expect((await served.control.guest('vm1')).targetBytes).toBe(quarter);
    } finally {
      await served.close();
    }
  });
});

/** Resolves with what the program says first. */
async function firstOutput({ stdout }: ChildProcess): Promise<string> {
  const [bytes] = await once(stdout as NonNullable<typeof stdout>, 'data');
  return String(bytes);
}
