/** That an answer finds its question, and that no question waits for a side that is gone. */
import { expect, test } from 'vitest';
import { deferred, PendingCalls } from '../../src/sys/deferred.ts';

test('a deferred promise is settled from outside, once', async () => {
  const one = deferred<number>();
  one.resolve(1);
  one.reject(new Error('too late'));
  expect(await one.promise).toBe(1);
});

test('answers find their questions by number, in whatever order they come', async () => {
  const calls = new PendingCalls();
  const numbers = [calls.number(), calls.number()];
  const [first, second] = numbers.map(number => calls.wait<string>(number));
  expect(calls.answer(numbers[1], 'of the second')).toBe(true);
  expect(calls.refuse(numbers[0], new Error('no'))).toBe(true);
  expect(await second).toBe('of the second');
  await expect(first).rejects.toThrow('no');
  // The same answer once more, and one to a question that was not asked.
  const stray = [calls.answer(numbers[1], 'again'), calls.answer(4711, 'x'), calls.refuse(0, new Error('x'))];
  expect(stray).toEqual([false, false, false]);
});

test('all that is under way is refused when the other side is gone, and later questions go to its successor', async () => {
  const calls = new PendingCalls();
  const asked = [0, 1, 2].map(() => calls.wait(calls.number()));
  calls.refuseAll(new Error('it is gone'));
  expect(await Promise.allSettled(asked)).toMatchObject(Array(3).fill({ status: 'rejected' }));
  const next = calls.number();
  const answer = calls.wait<string>(next);
  calls.answer(next, 'here');
  expect(await answer).toBe('here');
});
