/** The program as it is installed. `npm test` compiles it beforehand; a single test file sees to it here. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

export const program = join(root, 'bin', 'aerostat');

export function build(): void {
  spawnSync(process.execPath, ['scripts/bootstrap.mjs'], { cwd: root, stdio: 'inherit' });
  // Types that do not fit are `npm run check`'s to tell; the compiler writes what there is.
  if (!existsSync(join(root, 'dist', 'cli', 'main.js'))) throw new Error('src/ cannot be compiled');
}
