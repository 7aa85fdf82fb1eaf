/** Command lines that messages tell people to type can be typed as they stand. */
import { expect, test } from 'vitest';
import { invocationOf } from '../../src/cli/invocation.ts';

test.each([
  ['of the package', '/usr/bin/aerostat', '/home/me', 'aerostat'],
  ['of a clone that one is in', '/home/me/aerostat/bin/aerostat', '/home/me/aerostat', 'bin/aerostat'],
  ['of the folder that one is in', '/home/me/aerostat', '/home/me', './aerostat'],
  ['of a clone elsewhere', '/src/aerostat/bin/aerostat', '/home/me', '/src/aerostat/bin/aerostat'],
  ['that another script started', '/src/dist/cli/main.js', '/src', 'aerostat'],
  ['that is not known', undefined, '/src', 'aerostat'],
])('the program %s', (_, script, cwd, word) => {
  expect(invocationOf(script, '/usr/local/bin:/usr/bin', cwd)).toBe(word);
});
