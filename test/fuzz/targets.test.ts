/** Every fuzz target over its corpus, and a little further: what `npm run fuzz` does for longer. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { removeFiles } from '../../fuzz/descriptors.ts';
import { runCampaign } from '../../fuzz/engine/campaign.ts';
import { readCorpus } from '../../fuzz/engine/corpus.ts';
import { TARGETS } from '../../fuzz/engine/targets.ts';
import { Random } from '../../src/guest/random.ts';

const CORPUS = join('fuzz', 'corpus');
/** Of all targets together. */
const TIME_MS = 2000;

const names = [...TARGETS.keys()];

// A test worker is ended without the event that removes them elsewhere.
afterAll(removeFiles);

describe('the corpus', () => {
  it('has inputs for every target, and for no others', () => {
    expect(readdirSync(CORPUS).sort()).toEqual(names.toSorted());
  });

  it('is of small files', () => {
    for (const name of names) {
      for (const file of readdirSync(join(CORPUS, name))) {
        expect(statSync(join(CORPUS, name, file)).size, `${name}/${file}`).toBeLessThanOrEqual(1024);
      }
    }
  });
});

describe('arbitrary bytes break no promise of', () => {
  const seed = Number(process.env.AEROSTAT_SEED ?? 20_260_701);

  it.each([...TARGETS])('%s', (name, target) => {
    const corpus = readCorpus(name);
    for (const input of corpus) target(input.slice());
    const { executions, finding } = runCampaign({
      target,
      corpus,
      random: new Random(seed).split(name),
      timeMs: TIME_MS / TARGETS.size,
    });
    if (finding !== undefined) {
      const hex = Buffer.from(finding.input.subarray(0, 256)).toString('hex');
      throw new Error(`seed ${seed}, ${finding.input.length} bytes: ${hex}`, { cause: finding.reason });
    }
    expect(executions).toBeGreaterThan(0);
  });
});
