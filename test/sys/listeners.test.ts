/** Who is told, and who is not any more; and options without a value. */
import { expect, test } from 'vitest';
import { defined } from '../../src/sys/defined.ts';
import { AerostatError, wireError } from '../../src/sys/error.ts';
import { Listeners } from '../../src/sys/listeners.ts';

test('listeners are told until they are no more, also when that is while others are told', () => {
  const listeners = new Listeners<[number]>();
  const heard: string[] = [];
  const forget = listeners.add(value => {
    heard.push(`first ${value}`);
    forget();
    forget();
  });
  listeners.add(value => heard.push(`second ${value}`));
  listeners.emit(1);
  listeners.emit(2);
  expect(heard).toEqual(['first 1', 'second 1', 'second 2']);
  listeners.clear();
  listeners.emit(3);
  expect(heard).toHaveLength(3);
});

test('what has no value is not there, and null is a value', () => {
  expect(Object.entries(defined({ a: 1, b: undefined, c: null, d: 0 }))).toEqual([
    ['a', 1],
    ['c', null],
    ['d', 0],
  ]);
});

test('an error goes to another thread as its code and its words', () => {
  expect(wireError(new AerostatError('AEROSTAT_BENCH', 'slow'))).toEqual({
    code: 'AEROSTAT_BENCH',
    message: 'slow',
  });
  expect(wireError(new TypeError('x'))).toEqual({ code: 'AEROSTAT_INTERNAL', message: 'x' });
  expect(wireError('x', 'AEROSTAT_GUEST_COMMAND')).toEqual({ code: 'AEROSTAT_GUEST_COMMAND', message: 'x' });
});
