/**
 * Inputs as files: `corpus/TARGET/` holds those that every campaign starts from, kept under version control and
 * small; `crashes/` those that broke a promise, named by target and content, and not kept.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where both are, from the directory that the program runs in. */
const ROOT = 'fuzz';

export function readCorpus(target: string): Uint8Array[] {
  const directory = join(ROOT, 'corpus', target);
  if (!existsSync(directory)) return [];
  // In an order that is the same on every machine, or a seed would not repeat a campaign.
  return readdirSync(directory)
    .sort()
    .map(name => new Uint8Array(readFileSync(join(directory, name))));
}

/** Keeps an input that was found; returns its path. */
export function writeCrash(target: string, input: Uint8Array): string {
  const directory = join(ROOT, 'crashes');
  mkdirSync(directory, { recursive: true });
  const name = createHash('sha256').update(input).digest('hex').slice(0, 12);
  const path = join(directory, `${target}-${name}`);
  writeFileSync(path, input);
  return path;
}

export const reproduction = (target: string, path: string): string =>
  `npm run fuzz -- --target ${target} --input ${path}`;
