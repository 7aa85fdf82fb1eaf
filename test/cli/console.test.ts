/** The consoles of guests on a terminal: a prompt, a history, editing, and the terminal as it was in the end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { completed, LineEditor } from '../../src/cli/console.ts';
import type { Output } from '../../src/cli/context.ts';
import { build, program } from './built.ts';
import { Captured } from './terminal.ts';

/** Far above what a start takes; only what hangs reaches it. */
const START_MS_MAX = 40_000;

test('Tab completes commands, kinds of workloads, and nothing else', () => {
  expect(completed('me')).toEqual([['meminfo'], 'me']);
  expect(completed('he')).toEqual([['help'], 'he']);
  expect(completed('start b')).toEqual([['build'], 'b']);
  expect(completed('use 1')).toEqual([[], '1']);
  expect(completed('')[0]).toContain('use');
});

test('what the guest says stands above the line that is being typed, which is drawn again', () => {
  const output = new Captured(80);
  const input = new PassThrough();
  const editor = new LineEditor({
    ...{ input, output: output as unknown as Output, prompt: 'vm> ' },
    onInterrupt: () => {},
  });
  editor.above(() => output.write('before\n'));
  editor.ask();
  input.write('use 1');
  editor.above(() => output.write('news\n'));
  expect(output.text).toMatch(/before\n[\s\S]*vm> [\s\S]*news\n[\s\S]*vm> use 1/);
  editor.close();
});

// script(1) runs a command on a terminal of its own.
describe.skipIf(!existsSync('/usr/bin/script'))('on a terminal', () => {
  let directory: string;
  let child: ChildProcess;
  let shown: string;

  beforeAll(build);

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    mkdirSync(join(directory, 'tmp'));
  });

  afterEach(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill();
      await ended;
    }
    rmSync(directory, { recursive: true });
  });

  function type(keys: string): void {
    child.stdin?.write(keys);
  }

  const shows = (text: string | RegExp) =>
    expect
      .poll(() => shown, { timeout: START_MS_MAX })
      .toSatisfy((seen: string) => (typeof text === 'string' ? seen.includes(text) : text.test(seen)));

  test.each([
    ['run', 'run --guest embedded --memory 64M', 'guest> '],
    ['vm', 'vm --memory 64M', 'vm> '],
  ])(
    'aerostat %s has a prompt, a history and line editing, and gives the terminal back',
    async (_, words, prompt) => {
      const env = {
        ...process.env,
        XDG_RUNTIME_DIR: directory,
        TMPDIR: join(directory, 'tmp'),
        TERM: 'xterm',
      };
      child = spawn('script', ['-qec', `${program} ${words}; stty -a`, '/dev/null'], { env });
      shown = '';
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        shown += text;
      });
      await shows(prompt);
      const news = async (keys: string, text: string | RegExp) => {
        shown = '';
        type(keys);
        await shows(text);
        await shows(prompt);
      };
      await news('use 9M\r', /used +9M/);
      await news('age 2\r', /is not a degree of fragmentation/);
      // Up twice is the first line again; the cursor goes back over M, and 1 is put before it. A key at a time, as a person
      // types: Node takes several that come at once for something that was pasted.
      shown = '';
      type('\u001b[A');
      await shows('age 2');
      type('\u001b[A');
      await shows('use 9M');
      type('\u001b[D');
      await shows('\u001b[1D');
      type('1');
      await shows('use 91M');
      await news('\r', /91M|memory/);
      shown = '';
      type('memi');
      await shows('memi');
      type('\t');
      await shows('meminfo');
      await news('\r', /available/);
      const ended = once(child, 'exit');
      shown = '';
      type('exit\r');
      await ended;
      expect(shown).toMatch(/ icanon/);
    },
    120_000,
  );
});
