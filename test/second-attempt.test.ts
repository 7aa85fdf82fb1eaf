/** Which failed test files of a whole run are run once more. */
import { describe, expect, test } from 'vitest';
// @ts-expect-error The scripts that run before anything is compiled have no types.
import * as attempt from '../scripts/second-attempt.mjs';

const { onlyAtSecondAttempt, SECOND_ATTEMPT_FILES_MAX, worthASecondAttempt } = attempt;

const result = (fullName: string, failure?: string) => ({
  fullName,
  status: failure === undefined ? 'passed' : 'failed',
  failureMessages: failure === undefined ? [] : [failure],
});

const file = (name: string, ...assertionResults: ReturnType<typeof result>[]) => ({
  name,
  status: assertionResults.some(({ status }) => status === 'failed') ? 'failed' : 'passed',
  message: '',
  assertionResults,
});

const LATE = 'Error: no answer within 60 s\n    at …';

describe('a second attempt', () => {
  test('is for files that start real programs', () => {
    const suites = [
      file('test/vm/a.test.ts', result('waits', LATE)),
      file('test/sim/b.test.ts', result('holds')),
    ];
    expect(worthASecondAttempt(suites)).toEqual(['test/vm/a.test.ts']);
  });

  test('is refused to tests of one process: what they find is found again by their seed', () => {
    const suites = [
      file('test/vm/a.test.ts', result('waits', LATE)),
      file('test/sim/b.test.ts', result('x', LATE)),
    ];
    expect(worthASecondAttempt(suites)).toEqual([]);
  });

  test('is refused to what harmed the memory of a guest', () => {
    const suites = [file('test/vm/a.test.ts', result('verifies', 'Error: page 7: wrong checksum'))];
    expect(worthASecondAttempt(suites)).toEqual([]);
  });

  test('is refused to many', () => {
    const suites = Array.from({ length: SECOND_ATTEMPT_FILES_MAX + 1 }, (_, index) =>
      file(`test/vm/${index}.test.ts`, result('waits', LATE)),
    );
    expect(worthASecondAttempt(suites)).toEqual([]);
  });

  test('names what passed only then, with the reason of the first failure', () => {
    const first = [file('test/vm/a.test.ts', result('waits', LATE), result('holds'), result('never', LATE))];
    const second = [file('test/vm/a.test.ts', result('waits'), result('holds'), result('never', LATE))];
    expect(onlyAtSecondAttempt(first, second)).toEqual({
      passed: 1,
      lines: [
        'passed only at the second attempt: test/vm/a.test.ts: waits (first: Error: no answer within 60 s)',
      ],
    });
  });

  test('counts the tests of a file that broke before they ran', () => {
    const broken = { ...file('test/vm/a.test.ts'), status: 'failed', message: 'Error: no daemon' };
    expect(worthASecondAttempt([broken])).toEqual(['test/vm/a.test.ts']);
    const { passed, lines } = onlyAtSecondAttempt([broken], [file('test/vm/a.test.ts', result('waits'))]);
    expect(passed).toBe(1);
    expect(lines[0]).toContain('(first: Error: no daemon)');
  });
});
