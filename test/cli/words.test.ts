/** What people type and read: help of commands, names of guests, and words on a guest's console. */
import { describe, expect, test } from 'vitest';
import { nameOfSocket } from '../../src/cli/guest-options.ts';
import { commandOfWords } from '../../src/cli/guest-words.ts';
import { EXIT } from '../../src/cli/usage.ts';
import { run } from './terminal.ts';

describe('aerostat help', () => {
  test('shows a command, and a command below a command, as --help does', async () => {
    for (const words of [['status'], ['bench', 'page'], ['bench'], []]) {
      const helped = await run(['help', ...words]);
      expect(helped.code).toBe(EXIT.ok);
      expect(helped).toEqual(await run([...words, '--help']));
    }
    expect((await run(['help', 'bench', 'page'])).out).toMatch(/^Usage: aerostat bench page/);
  });

  test('says what there is where there is no such command', async () => {
    const { code, err } = await run(['help', 'bench', 'pages']);
    expect(code).toBe(EXIT.usage);
    expect(err).toMatch(/aerostat bench has no command pages; there are .*page/);
    expect((await run(['help', 'satus'])).err).toMatch(
      /aerostat has no command satus; there are device, status/,
    );
  });
});

describe('the name of a guest', () => {
  test.each([
    ['/run/user/1000/vm1.sock', 'vm1'],
    ['vm1', 'vm1'],
    ['/run/qemu/web.qmp', 'web'],
    ['a.b.sock', 'a.b'],
    ['v1.2', 'v1.2'],
    ['.sock', '.sock'],
  ])('is that of its socket %s without its ending: %s', (path, name) => {
    expect(nameOfSocket(path)).toBe(name);
  });
});

describe("a guest's console", () => {
  test('a degree that cannot be is refused in the words in which it was given', () => {
    expect(commandOfWords('age 0.5')).toEqual({ do: 'age', degree: 0.5 });
    for (const word of ['2', '1', '-1', 'half', '1e-3', 'NaN']) {
      expect(() => commandOfWords(`age ${word}`)).toThrow(
        `${word} is not a degree of fragmentation: write a number from 0 (whole) to below 1, for example age 0.5`,
      );
    }
  });
});
