// Compiles what the program is made of into few files with compiled code beside them, beside the modules that are compiled
// one by one: guests may wait for it, and each of some hundreds of modules costs half a millisecond, and compiling them as
// much again. Its argument is where they go.
//
// `program/` has the command line and the programs of threads, which `bin/program.cjs` loads. The programs of threads take the
// place of their modules. What measures and demonstrates is loaded module by module.
import { renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { build } from 'vite';
import { root } from './bootstrap.mjs';

const target = resolve(process.argv[2]);
const source = name => join(root, 'src', `${name}.ts`);

/** Each is a program of a thread, and named as its module is. */
const THREADS = ['hosting/data-worker', 'threads/discard-worker', 'vm/guest-worker', 'vm/fault-worker'];

const bundle = (names, plugins = []) =>
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
        input: Object.fromEntries(names.map(([to, from]) => [to, source(from)])),
        output: {
          // What is compiled of a file goes by its name (bin/program.cjs).
          entryFileNames: 'program/[name]-[hash].cjs',
          chunkFileNames: 'program/[name]-[hash].cjs',
          format: 'cjs',
          // Names stay as they are, for what is told of failures; white space is read at each start.
          minify: { compress: false, mangle: false, codegen: { removeWhitespace: true } },
        },
      },
    },
  });

/** Benchmarks and demonstrations are no part of it. */
const commandsElsewhere = {
  name: 'commands-elsewhere',
  enforce: 'pre',
  resolveId(id, importer) {
    const command = /^\.\/commands\/(bench|demo)\.ts$/.exec(id)?.[1];
    if (command === undefined || importer !== source('cli/commands')) return undefined;
    return { id: `../cli/commands/${command}.js`, external: 'absolute' };
  },
};

/** The program's loader brings what is none of its files (bin/program.cjs). */
const importsByLoader = {
  name: 'imports-by-loader',
  renderChunk: code => code.replaceAll(/\bimport\((?=["'`])/g, '(require.load??(from=>import(from)))('),
};

const built = [
  ...(await bundle(THREADS.map(name => [name.replace('/', '-'), name]))).output,
  ...(await bundle([['start', 'cli/start']], [commandsElsewhere, importsByLoader])).output,
];

const put = (path, text) => writeFileSync(join(target, path), `${text}\n`);
const fileOf = name =>
  built.find(file => file.isEntry && file.name === name).fileName.replace('program/', '');
put('program/main.cjs', `require('../../bin/program.cjs').run(__dirname, '${fileOf('start')}');`);
for (const name of THREADS) {
  const file = fileOf(name.replace('/', '-'));
  // For a thread that changes modules before it runs: a guest of a test that does not behave.
  renameSync(join(target, `${name}.js`), join(target, `${name}.module.js`));
  put(`${name}.cjs`, `require('../../bin/program.cjs').run(\`\${__dirname}/../program\`, '${file}');`);
  put(`${name}.js`, `import './${name.split('/')[1]}.cjs';`);
}
