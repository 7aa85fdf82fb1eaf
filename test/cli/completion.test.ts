/** Completion scripts in the shells that they are for, and the manual page. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missingPrograms } from '../../src/peers/programs.ts';
import { describePeer } from '../support/peers.ts';
import { run } from './terminal.ts';

let directory: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  // A program of our name that knows two guests.
  const program = join(directory, 'aerostat');
  writeFileSync(program, '#!/bin/sh\necho \'{"guests":[{"name":"vm1","connected":true},{"name":"vm2"}]}\'\n');
  chmodSync(program, 0o755);
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { code, out } = await run(['completion', shell]);
    expect(code).toBe(0);
    writeFileSync(join(directory, shell), out);
  }
});

afterAll(() => rmSync(directory, { recursive: true }));

const shell = (program: string, ...words: string[]) => {
  const { stdout, stderr } = spawnSync(program, words, {
    encoding: 'utf8',
    cwd: directory,
    env: { ...process.env, HOME: directory, PATH: `${directory}:${process.env.PATH}` },
  });
  expect(stderr).toBe('');
  return stdout.trim();
};

/** The words of a line, and what they may become: the same in every shell. */
const CASES: readonly (readonly [line: string, expected: readonly string[], not: readonly string[]])[] = [
  ['aerostat ', ['device', 'status', 'dashboard', 'completion'], ['vm1', 'manual']],
  ['aerostat sta', ['status', 'stats'], ['set']],
  ['aerostat status ', ['vm1', 'vm2'], ['device']],
  ['aerostat set vm1 --ba', ['--balloon'], ['--memory']],
  ['aerostat device --profile page-', ['page-bitmap', 'page-chunks'], ['virtio']],
  ['aerostat device --profile virtio --dis', ['--discard'], ['--profile']],
  ['aerostat bench ', ['linux', 'inflate'], ['vm1']],
  ['aerostat hint vm1 st', ['start', 'stop', 'status'], ['done']],
  ['aerostat completion ', ['bash', 'zsh', 'fish'], ['csh']],
  // A command that takes one guest and has it offers none again, whatever stands before.
  ['aerostat hint ', ['vm1', 'vm2'], ['start']],
  ['aerostat hint vm1 ', ['start', 'done'], ['vm1', 'vm2']],
  ['aerostat stats vm1 ', [], ['vm1', 'vm2']],
  ['aerostat stats --api there ', ['vm1', 'vm2'], ['there']],
];

describe('bash', () => {
  test.each(CASES)('completes "%s"', (line, expected, not) => {
    const words = line.split(' ');
    const script = `source ./bash; COMP_WORDS=(${words.map(word => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _aerostat; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const reply = shell('bash', '-c', script).split('\n');
    expect(reply).toEqual(expect.arrayContaining([...expected]));
    for (const word of not) expect(reply).not.toContain(word);
  });
});

describePeer('fish', missingPrograms('fish'), () => {
  test.each(CASES)('completes "%s"', (line, expected, not) => {
    const reply = shell('fish', '--no-config', '-c', `source fish; complete -C '${line}'`)
      .split('\n')
      .map(one => one.split('\t')[0]);
    expect(reply).toEqual(expect.arrayContaining([...expected]));
    for (const word of not) expect(reply).not.toContain(word);
  });
});

describePeer('zsh', missingPrograms('zsh'), () => {
  test('takes the script, and knows every command by a function', () => {
    const script = 'autoload -U compinit; compinit -u; source ./zsh; functions | grep -o "^_aerostat[a-z_]*"';
    expect(shell('zsh', '-f', '-c', script).split('\n')).toEqual(
      expect.arrayContaining(['_aerostat', '_aerostat_guests', '_aerostat_set', '_aerostat_bench_linux']),
    );
  });

  test('completes commands on a line as it is typed', () => {
    // A terminal of zsh's own: what it shows after Tab is what a person would see.
    const script = `
zmodload zsh/zpty
zpty shell zsh -f
zpty -w shell 'PS1=; autoload -U compinit; compinit -u; source ./zsh; zstyle ":completion:*" list-colors ""; echo rea""dy'
zpty -r shell text '*ready*'
zpty -w -n shell $'aerostat set --dis\\tauto --memo\\t; echo do""ne\\n'
zpty -r shell text '*done*'
print -r -- "$text"`;
    const shown = shell('zsh', '-f', '-c', script);
    expect(shown).toMatch(/--discard/);
    expect(shown).toMatch(/--memory/);
  });
});

describe('the manual page', () => {
  test('names every command and every exit code', async () => {
    const { out } = await run(['manual']);
    const help = (await run(['--help'])).out;
    for (const [, command] of help.matchAll(/^ {2}([a-z]+) [[<o ]/gm)) {
      // The same as --help, which has no need to be explained.
      if (command === 'help') continue;
      expect(out).toMatch(new RegExp(`^\\.SS "aerostat ${command}`, 'm'));
    }
    for (const code of ['0', '3', '130']) expect(out).toContain(`.B ${code}\n`);
  });

  test('escapes what would be a request, and every hyphen', async () => {
    const { out } = await run(['manual']);
    const requests = out.split('\n').filter(line => line.startsWith('.'));
    expect(requests.filter(line => !/^\.(TH|SH|SS|TP|PP|B|BR)\b/.test(line))).toEqual([]);
    expect(out).not.toMatch(/[^\\]--/);
  });
});

describe('the pages of commands', () => {
  test('are one for each, with their options, examples and keys, and one for the files', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    try {
      expect((await run(['manual', '--into', directory])).code).toBe(0);
      const pages = readdirSync(directory);
      expect(pages).toEqual(
        expect.arrayContaining(['aerostat.1', 'aerostat-set.1', 'aerostat-bench-page.1', 'aerostat-files.5']),
      );
      for (const page of pages) {
        expect(readFileSync(join(directory, page), 'utf8')).toMatch(/^\.TH AEROSTAT[\s\S]*\.SH SEE ALSO/);
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test("say top's keys, the options of set, and every key of a file of guests", async () => {
    expect((await run(['manual', 'top'])).out).toMatch(/\.SH KEYS\n[\s\S]*select a guest/);
    expect((await run(['manual', 'set'])).out).toMatch(
      /\\-\\-balloon[\s\S]*\.SH EXAMPLES\n[\s\S]*aerostat set/,
    );
    const { out } = await run(['manual', 'files']);
    for (const key of ['sources.libvirt', 'policy.reserve', 'guests.NAME.qmp', 'guests.NAME.min'])
      expect(out).toContain(`\n.B ${key}\n`);
  });

  test('that do not exist are refused with those that do', async () => {
    const { code, err } = await run(['manual', 'sett']);
    expect([code, err]).toEqual([
      2,
      expect.stringMatching(/no manual page of sett; there are device, .*set,/),
    ]);
  });
});
