/** Directories of the commands that need one, for sockets mostly. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Runs `body` with an empty directory of its own, which is gone afterwards: also when the process ends before `body`
 * does, for a second signal ends the process at once.
 */
export async function inScratch<Result>(
  name: string,
  body: (directory: string) => Promise<Result>,
): Promise<Result> {
  const directory = mkdtempSync(join(tmpdir(), `aerostat-${name}-`));
  const remove = () => rmSync(directory, { recursive: true, force: true });
  process.once('exit', remove);
  try {
    return await body(directory);
  } finally {
    process.removeListener('exit', remove);
    remove();
  }
}
