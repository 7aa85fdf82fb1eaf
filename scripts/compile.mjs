// Compiles folders that are not part of the program (`fuzz/`, `bench/`) into `.cache/`, together with the sources
// that they use, because Node 20 runs no TypeScript.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bin, install, root, run } from './bootstrap.mjs';

/** Returns the directory that has `src/` and the folder, compiled. */
export function compile(folder) {
  install();
  const output = join(root, '.cache', folder);
  mkdirSync(output, { recursive: true });
  const config = join(output, 'tsconfig.json');
  writeFileSync(
    config,
    JSON.stringify({
      extends: '../../tsconfig.json',
      compilerOptions: {
        rootDir: root,
        outDir: output,
        declaration: false,
        declarationMap: false,
        types: ['node'],
      },
      include: [join(root, folder)],
    }),
  );
  run(bin('tsc'), ['-p', config], { stdio: ['ignore', 2, 2] });
  return output;
}
