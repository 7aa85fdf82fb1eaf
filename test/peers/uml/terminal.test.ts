/** The terminal of a person at a guest's console. */
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { terminalSize } from '../../../src/peers/uml/terminal.ts';

test.each([
  ['has the size that it says', { rows: 50, columns: 132 }, { rows: 50, columns: 132 }],
  ['is none without a size', {}, undefined],
  [
    'that says 0, as a serial line does, has no size that a guest could be told',
    { rows: 0, columns: 0 },
    undefined,
  ],
])('a stream %s', (_, says, size) => {
  expect(terminalSize(Object.assign(new PassThrough(), says))).toEqual(size);
});
