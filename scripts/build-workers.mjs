// Compiles the programs of threads that every daemon starts, each with all that it loads in one file: a daemon that takes
// guests over waits for them, and each module costs a thread half a millisecond. Its argument is where they go.
import { join } from 'node:path';
import { build } from 'vite';
import { root } from './bootstrap.mjs';

const PROGRAMS = ['hosting/data-worker', 'threads/discard-worker'];

await build({
  root,
  configFile: false,
  publicDir: false,
  logLevel: 'warn',
  build: {
    ssr: true,
    target: 'node20',
    outDir: process.argv[2],
    emptyOutDir: false,
    sourcemap: true,
    minify: false,
    reportCompressedSize: false,
    rolldownOptions: {
      input: Object.fromEntries(PROGRAMS.map(name => [name, join(root, 'src', `${name}.ts`)])),
      // As deep as their sources: one looks for the package's description from there.
      output: { entryFileNames: '[name].js', chunkFileNames: 'threads/[name]-[hash].js', format: 'es' },
    },
  },
});
