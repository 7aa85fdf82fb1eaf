/** What was compiled when the program was built: it is taken where it fits, and where it does not, that costs time alone. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ownCommandLine } from '../../src/sys/own-program.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const copy = mkdtempSync(join(tmpdir(), 'aerostat-code-cache-'));
const program = join(copy, 'dist/program');

/** Says at the end how many scripts had compiled code, and of how many it was taken. */
const WATCH = `
const vm = require('node:vm');
const { Script } = vm;
let given = 0;
let taken = 0;
vm.Script = class extends Script {
  constructor(source, options) {
    super(source, options);
    if (options?.cachedData === undefined) return;
    given++;
    if (this.cachedDataRejected === false) taken++;
  }
};
process.once('exit', () => console.error(JSON.stringify({ given, taken })));
`;

const caches = () => readdirSync(program).filter(name => name.endsWith('.cache'));

function start(...words: readonly string[]) {
  const [node, ...line] = ownCommandLine();
  const options = line.slice(0, -1);
  const { status, stdout, stderr } = spawnSync(
    node,
    [...options, '--require', join(copy, 'watch.cjs'), join(copy, 'bin/aerostat'), ...words],
    { encoding: 'utf8', env: { PATH: process.env.PATH, HOME: copy } },
  );
  const said = stderr.trimEnd().split('\n');
  const { given, taken } = JSON.parse(said.pop() ?? '') as { given: number; taken: number };
  return { outcome: { status, stdout, said }, given, taken };
}

beforeAll(() => {
  for (const name of ['bin', 'package.json', 'dist/web', 'dist/hosting', 'dist/threads'])
    cpSync(join(root, name), join(copy, name), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  writeFileSync(join(copy, 'watch.cjs'), WATCH);
});
beforeEach(() => {
  rmSync(program, { recursive: true, force: true });
  cpSync(join(root, 'dist/program'), program, { recursive: true });
});
afterAll(() => rmSync(copy, { recursive: true, force: true }));

describe('what was compiled', () => {
  const words = ['status', '--api', join(copy, 'none.sock')];

  test('is taken by the Node that compiled it', () => {
    const { outcome, given, taken } = start(...words);
    expect(outcome.said.join()).toContain('no daemon listens');
    expect(given).toBeGreaterThan(10);
    expect(taken).toBe(given);
  });

  test('may be missing', () => {
    const { outcome } = start(...words);
    for (const name of caches()) rmSync(join(program, name));
    expect(start(...words)).toEqual({ outcome, given: 0, taken: 0 });
  });

  test('may be of other files, cut short, or nothing that V8 knows', () => {
    const { outcome, given } = start(...words);
    const contents = caches().map(name => readFileSync(join(program, name)));
    const wrong = [
      (at: number) => contents[(at + 1) % contents.length],
      (at: number) => contents[at].subarray(0, contents[at].length / 2),
      () => Buffer.alloc(0),
      () => Buffer.from('no compiled code'),
    ];
    for (const contentOf of wrong) {
      caches().forEach((name, at) => {
        writeFileSync(join(program, name), contentOf(at));
      });
      const again = start(...words);
      expect(again.outcome).toEqual(outcome);
      expect(again.given).toBe(given);
      expect(again.taken).toBe(0);
    }
  });
});

test('a trace names lines of sources where Node is told to look for them', () => {
  const [node, ...line] = ownCommandLine();
  const { stderr } = spawnSync(
    node,
    ['--enable-source-maps', ...line, 'status', '--api', 'none.sock', '--verbose'],
    {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, HOME: copy },
    },
  );
  expect(stderr).toMatch(/at .*src\/server\/address\.ts:\d+:\d+/);
});
