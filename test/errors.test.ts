/** The codes of our errors: each says one thing, because programs and tables go by the code alone. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const src = fileURLToPath(new URL('../src', import.meta.url));

/** Every class of errors, and the code that it gives itself. */
const classes = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter(path => path.endsWith('.ts'))
  .flatMap(path =>
    [
      ...readFileSync(join(src, path), 'utf8').matchAll(
        /class (\w+) extends \w+ \{(?:(?!\nclass |\nexport class )[\s\S])*?super\(\s*'(AEROSTAT_\w+)'/g,
      ),
    ].map(([, name, code]) => ({ path, name, code })),
  );

const repeated = (key: (one: (typeof classes)[number]) => string): string[] => {
  const keys = classes.map(key);
  return keys.filter((one, index) => keys.indexOf(one) !== index);
};

test('no two classes of errors have one code', () => {
  expect(classes.length).toBeGreaterThan(30);
  expect(repeated(({ code }) => code)).toEqual([]);
});

test('no two classes of errors have one name', () => {
  expect(repeated(({ name }) => name)).toEqual([]);
});
