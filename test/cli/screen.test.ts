/** What is drawn on a terminal. */
import { afterEach, expect, test } from 'vitest';
import type { Output } from '../../src/cli/context.ts';
import { Screen } from '../../src/cli/screen.ts';
import { Captured } from './terminal.ts';

let screen: Screen;

afterEach(() => screen.close());

test('a terminal that does not know its size is drawn on as one of 80 columns and 24 rows', () => {
  const output = new Captured();
  screen = new Screen(Object.assign(output, { rows: 0, columns: 0 }) as Output);
  screen.draw(Array.from({ length: 30 }, (_, line) => `line ${line}`));
  expect(screen.columns).toBe(80);
  expect(output.text).toContain('line 23');
  expect(output.text).not.toContain('line 24');
});
