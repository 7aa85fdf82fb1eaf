/**
 * The order in which test files start: those that take longest first, so that no worker is left alone with a long one
 * at the end. `test/durations.json` says what files of some seconds took when all were last measured. `npm test` writes
 * a new list to `coverage/durations.json`.
 */
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Seconds by path. */
export const readDurations = (): ReadonlyMap<string, number> =>
  new Map(Object.entries(JSON.parse(readFileSync(`${root}/test/durations.json`, 'utf8'))));

/** Files that are not in the list are quick, or new: they come last, in the order in which they are given. */
export function longestFirst<File>(
  files: readonly File[],
  pathOf: (file: File) => string,
  durations: ReadonlyMap<string, number>,
): File[] {
  const seconds = (file: File) => durations.get(pathOf(file)) ?? 0;
  return files.toSorted((a, b) => seconds(b) - seconds(a));
}

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return longestFirst(await super.sort(files), ({ moduleId }) => relative(root, moduleId), readDurations());
  }
}
