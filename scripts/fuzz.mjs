// `npm run fuzz`: compiles the fuzz targets and runs them. Options after `--` are passed on, see fuzz/run.ts.
import { join } from 'node:path';
import { follow } from './bootstrap.mjs';
import { compile } from './compile.mjs';

const output = compile('fuzz');
// With the lines of the sources in what is found.
const options = ['--enable-source-maps', join(output, 'fuzz', 'run.js'), ...process.argv.slice(2)];
await follow(process.execPath, options);
