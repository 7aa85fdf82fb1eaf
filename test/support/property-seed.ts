/**
 * Property tests draw the same examples in every run, so that a change is judged by what it changes. Another seed
 * (`AEROSTAT_SEED=7 npm test -- test/policy`) draws others; fast-check prints the seed of what it found either way.
 * Runs before every test file; those without properties do not pay for the library.
 */
import { readFileSync } from 'node:fs';
import { expect } from 'vitest';

const { testPath } = expect.getState();
if (testPath !== undefined && readFileSync(testPath, 'utf8').includes("from 'fast-check'")) {
  const { configureGlobal } = await import('fast-check');
  configureGlobal({ seed: Number(process.env.AEROSTAT_SEED ?? 20_260_701) });
}
