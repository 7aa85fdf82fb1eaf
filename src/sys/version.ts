/** The package's version, from its own description: two directories up, in the sources as in the build. */
import { readFileSync } from 'node:fs';

export function readVersion(): string {
  const file = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(file) as { version: string }).version;
}
