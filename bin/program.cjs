// Loads what scripts/bundle.mjs made, with the code that was compiled of it when it was built (scripts/code-cache.mjs): to
// compile it again takes a daemon longer than all else of its start. What was compiled by another version of V8, or is not
// there, is compiled anew, function by function, and costs nothing but that time.
'use strict';
const { readFileSync, writeFileSync, renameSync, existsSync } = require('node:fs');
const { createRequire, wrap } = require('node:module');
const { join } = require('node:path');
const { pathToFileURL } = require('node:url');
const { Script } = require('node:vm');

/**
 * By which V8, with which of its flags, in the words of a header of what it compiles (it looks at them itself): threads of a
 * machine that moves have other flags than a daemon.
 */
function compilerTag() {
  const header = new Script('0').createCachedData();
  return [4, 12].map(at => header.readUInt32LE(at).toString(16).padStart(8, '0')).join('');
}

const tag = compilerTag();
/** Compiled code of a file lies beside it. The file's name says what is in it. */
const suffix = `.${tag}.cache`;

/** Where compiled code is to be written when this thread ends: a step of the build. */
const into = process.env.AEROSTAT_CODE_CACHE === 'write';

/** For traces that name lines of sources Node has to load the files itself. */
const isMapped = [...process.execArgv, ...(process.env.NODE_OPTIONS ?? '').split(' ')].includes(
  '--enable-source-maps',
);

const loaded = new Map();

function compiledOf(path) {
  try {
    return readFileSync(path + suffix);
  } catch {
    return undefined;
  }
}

function load(directory, name) {
  const known = loaded.get(name);
  if (known !== undefined) return known.module.exports;
  const path = join(directory, name);
  const script = new Script(wrap(readFileSync(path, 'utf8')), {
    filename: path,
    cachedData: compiledOf(path),
  });
  const module = { exports: {} };
  loaded.set(name, { module, script, path });
  const elsewhere = createRequire(path);
  const require = from => (from.startsWith('./') ? load(directory, from.slice(2)) : elsewhere(from));
  // A script has no `import()` of its own.
  require.load = from => import(new URL(from, pathToFileURL(path)).href);
  script.runInThisContext()(module.exports, require, module, path, directory);
  return module.exports;
}

/** Runs a file of `directory`. */
function run(directory, name) {
  if (into) process.once('exit', writeCompiled);
  return isMapped ? require(join(directory, name)) : load(directory, name);
}

/** With all functions that ran. Another thread may have written the same, which had run others: the larger one stays. */
function writeCompiled() {
  if (compilerTag() !== tag) return;
  for (const { script, path } of loaded.values()) {
    const compiled = script.createCachedData();
    if (existsSync(path + suffix) && compiledOf(path).length >= compiled.length) continue;
    const fresh = `${path}.${process.pid}-${Math.random().toString(36).slice(2)}`;
    writeFileSync(fresh, compiled);
    renameSync(fresh, path + suffix);
  }
}

module.exports = { run };
