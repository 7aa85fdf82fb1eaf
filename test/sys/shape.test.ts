/** What a shape takes, and what it says of the rest. */
import { describe, expect, test } from 'vitest';
import {
  assertShaped,
  either,
  flag,
  integer,
  listOf,
  naturalNumber,
  nullable,
  oneOf,
  pairOf,
  record,
  text,
  u16,
  u32,
  type ValueShape,
} from '../../src/sys/shape.ts';

const NUMBERS: ValueShape<unknown>[] = [u16, u32, naturalNumber, integer(-1, 1)];

test.each<[string, ValueShape<unknown>, unknown[], unknown[]]>([
  ['a number of 16 bits', u16, [0, 65_535], [-1, 65_536, 0.5, '1', null, undefined, Number.NaN]],
  ['a number of 32 bits', u32, [0, 2 ** 32 - 1], [2 ** 32, Number.POSITIVE_INFINITY]],
  ['a count', naturalNumber, [0, Number.MAX_SAFE_INTEGER], [-1, Number.MAX_SAFE_INTEGER + 1, 1n]],
  ['an integer within bounds', integer(-1, 1), [-1, 1], [-2, 2]],
  ['a flag', flag, [true, false], [0, 'true', null]],
  ['a text', text(/^[a-f]{1,2}$/), ['a', 'ff'], ['', 'fff', 'g', 1, ['a']]],
  ['one of some', oneOf(['a', 1]), ['a', 1], ['1', 2, undefined]],
  ['something or null', nullable(flag), [null, true], [undefined, 0]],
  ['one shape or another', either(oneOf([0]), integer(2, 3)), [0, 2, 3], [1, 4, null]],
  ['a list', listOf(u16, 2), [[], [1], [1, 2]], [[1, 2, 3], [-1], {}, null, 'ab', [null]]],
  ['a pair', pairOf(u16), [[1, 2]], [[], [1], [1, 2, 3], [1, -1], null]],
  [
    'a record',
    record({ a: u16, b: nullable(flag) }),
    [
      { a: 1, b: null },
      { b: true, a: 0 },
    ],
    [{ a: 1 }, { a: 1, b: null, c: 1 }, { a: -1, b: null }, [], null, 'a', Object.create({ a: 1, b: null })],
  ],
])('%s', (_, shape, right, wrong) => {
  for (const value of right) expect(shape.fault(value, 'it'), String(value)).toBeNull();
  for (const value of wrong) expect(shape.fault(value, 'it'), String(value)).toMatch(/expected|known/);
});

test('a field that comes with every object is none of its own', () => {
  const shape = record({ a: u16 });
  expect(shape.fault(JSON.parse('{"a":1,"__proto__":{}}'), 'it')).toContain('"__proto__" is not known');
  expect(record({ toString: u16 }).fault({}, 'it')).toContain('toString');
});

describe('what is wrong', () => {
  test.each([
    ['the field', record({ a: record({ b: u16 }) }), { a: { b: 'x' } }, 'b: a whole number from 0 to 65535'],
    ['the item', record({ a: listOf(u16, 3) }), { a: [1, 70_000] }, 'a.1: a whole number'],
    ['the length', record({ a: listOf(u16, 1) }), { a: [1, 2] }, 'a: a list of at most 1'],
  ])('%s is named', (_, shape, value, fault) => {
    expect(shape.fault(value, 'it')).toContain(fault);
  });

  test('is thrown by the reader, in its own words', () => {
    const read = (value: unknown) =>
      assertShaped(flag, value, fault => {
        throw new RangeError(`refused: ${fault}`);
      });
    expect(() => read(true)).not.toThrow();
    expect(() => read(1)).toThrow('refused: it: true or false is expected');
  });
});

test('no shape takes what no JSON has', () => {
  for (const value of [undefined, () => 0, Symbol('x'), new Map()]) {
    for (const shape of [...NUMBERS, flag, text(/./), listOf(u16, 9), record({ a: u16 })]) {
      expect(shape.fault(value, 'it')).not.toBeNull();
    }
  }
});
