// Compiles what a daemon starts with into few files, beside the modules that are compiled one by one: a daemon that takes
// guests over has them wait for it, and each of some hundreds of modules costs it half a millisecond. Its argument is where
// they go.
//
// The programs of threads take the place of their modules. A daemon's command line is `program/main.js`, which
// `bin/aerostat` takes for it alone; other commands are loaded from where they are.
import { join, resolve } from 'node:path';
import { build } from 'vite';
import { root } from './bootstrap.mjs';

const target = resolve(process.argv[2]);
const source = name => join(root, 'src', `${name}.ts`);

const bundle = (names, output, plugins = []) =>
  build({
    root,
    configFile: false,
    publicDir: false,
    // That a module is loaded in two ways costs nothing.
    logLevel: 'error',
    plugins,
    // Native code is no module.
    ssr: { noExternal: true, external: ['koffi'] },
    build: {
      ssr: true,
      target: 'node20',
      outDir: target,
      emptyOutDir: false,
      sourcemap: true,
      reportCompressedSize: false,
      rolldownOptions: {
        input: Object.fromEntries(Object.entries(names).map(([to, from]) => [to, source(from)])),
        output: {
          entryFileNames: '[name].js',
          format: 'es',
          // Names stay as they are, for what is told of failures; white space is read at each start.
          minify: { compress: false, mangle: false, codegen: { removeWhitespace: true } },
          ...output,
        },
      },
    },
  });

await bundle(
  { 'hosting/data-worker': 'hosting/data-worker', 'threads/discard-worker': 'threads/discard-worker' },
  // As deep as their sources: some look for the package's other files from there.
  { chunkFileNames: 'threads/[name]-[hash].js' },
);

/** Other commands are no part of a daemon. */
const commandsElsewhere = {
  name: 'commands-elsewhere',
  enforce: 'pre',
  resolveId(id, importer) {
    const command = /^\.\/commands\/([\w-]+)\.ts$/.exec(id)?.[1];
    if (command === undefined || command === 'device' || importer !== source('cli/commands'))
      return undefined;
    return { id: `../cli/commands/${command}.js`, external: 'absolute' };
  },
};

await bundle({ 'program/main': 'cli/main' }, { chunkFileNames: 'program/[name]-[hash].js' }, [
  commandsElsewhere,
]);
