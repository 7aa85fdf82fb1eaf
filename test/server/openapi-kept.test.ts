/**
 * What the API's document said before operations were declared once (`first-openapi.json`, as a daemon of then answered
 * it) it still says, word for word, but for what is listed here. New paths, schemas and fields are no difference: a client
 * of then does not know of them. That the document says what the API does is openapi.test.ts's.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { root } from '../support/sources.ts';

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

const documentIn = (path: string): Json => JSON.parse(readFileSync(join(root, path), 'utf8'));

/** JSON pointers to what is in `before` and is missing or other in `now`. */
function differences(before: Json, now: Json | undefined, at = ''): string[] {
  if (typeof before !== 'object' || before === null || Array.isArray(before)) {
    return JSON.stringify(before) === JSON.stringify(now) ? [] : [at];
  }
  if (typeof now !== 'object' || now === null || Array.isArray(now)) return [at];
  return Object.entries(before).flatMap(([key, value]) =>
    differences(value, (now as { [key: string]: Json })[key], `${at}/${key.replaceAll('/', '~1')}`),
  );
}

/** `*` stands for any one step. */
const MENDED: readonly { readonly because: string; readonly where: readonly string[] }[] = [
  {
    because:
      'What only benchmarks ask for left the contract of operators: two discard modes, and the time of decoding.',
    where: [
      '/components/schemas/DiscardMode/enum',
      '/components/schemas/DiscardMode/description',
      '/components/schemas/GuestCounters/properties/decodeMs',
    ],
  },
  {
    because: 'Answers have more fields, and events more types; none that was there is gone but decodeMs.',
    where: [
      '/components/schemas/DaemonStatus/required',
      '/components/schemas/GuestCounters/required',
      '/components/schemas/GuestEvent/properties/type/enum',
      '/components/schemas/GuestStatus/required',
      '/components/schemas/HintStatus/required',
      '/components/schemas/MemoryMap/required',
      '/components/schemas/MigrationAnswer/required',
      '/components/schemas/StatisticsSample/required',
    ],
  },
  {
    because:
      'An order may leave out what has a default. The document had called all of it required, and the API had not.',
    where: ['/components/schemas/MigrationOrder/required'],
  },
  {
    because:
      "A hypervisor's own migration has a destination that is not told; such a status broke the document.",
    where: ['/components/schemas/MigrationStatus/properties/to/type'],
  },
  {
    because: 'A description says what had been left open, or says it in plainer words.',
    where: [
      '/components/schemas/Durations/properties/counts/description',
      '/components/schemas/GuestStatus/properties/balloonedBytes/description',
      '/components/schemas/GuestStatus/properties/residentBytes/description',
      '/components/schemas/MemoryMap/properties/residentAgeMs/description',
      '/paths/*/*/responses/400/description',
    ],
  },
  {
    because: 'A refusal has one more cause: a token that may only read, a policy that is off.',
    where: ['/paths/*/*/responses/403/description', '/paths/*/*/responses/409/description'],
  },
];

const patternOf = (where: string): RegExp =>
  new RegExp(`^${where.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replaceAll('\\*', '[^/]+')}$`);

test('the document says what it said, but for what is listed with a reason', () => {
  const found = differences(documentIn('test/server/first-openapi.json'), documentIn('docs/openapi.json'));
  const listed = MENDED.flatMap(({ where }) => where.map(patternOf));
  expect(found.filter(at => !listed.some(pattern => pattern.test(at)))).toEqual([]);
  expect(listed.filter(pattern => !found.some(at => pattern.test(at)))).toEqual([]);
});

test('a field that goes, changes or becomes another type is a difference, and one that comes is none', () => {
  const before = { a: { type: 'string', values: ['x'] }, b: 1, 'c/d': null };
  expect(differences(before, { ...before, e: 2 })).toEqual([]);
  expect(differences(before, { a: { type: 'number', values: ['x', 'y'] }, b: 1 })).toEqual([
    '/a/type',
    '/a/values',
    '/c~1d',
  ]);
  expect(differences(before, { ...before, a: 'gone' })).toEqual(['/a']);
});
