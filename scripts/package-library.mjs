// Packs what a program depends on that builds devices and drivers, or steers a daemon: npm run package:library
// [DIRECTORY]. It is the package without its program: the modules that package.json exports and what they load, with
// their types, maps and sources, and no dependency but those that they load themselves. docs/library.md shows its use.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { build, install, root, scratch } from './bootstrap.mjs';

install();
build();
const described = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const target = resolve(process.argv[2] ?? '.');
const staged = scratch('library');

const { files, names } = reachedFrom(
  Object.values(described.exports).flatMap(path => [path, path.replace(/\.js$/, '.d.ts')]),
);
for (const path of files) {
  const source = path.replace(/^dist/, 'src').replace(/(\.d\.ts|\.js)$/, '.ts');
  for (const one of [path, `${path}.map`, source]) copy(one);
}
for (const path of ['LICENSE', 'CHANGELOG.md']) copy(path);
cpSync(join(root, 'docs/library.md'), join(staged, 'README.md'));
const { name, version, license, keywords, type, engines, os, exports, dependencies } = described;
writeFileSync(
  join(staged, 'package.json'),
  `${JSON.stringify(
    {
      name,
      version,
      description: 'Building blocks of virtio devices and drivers over vhost-user, and of the memory balloon',
      license,
      keywords,
      type,
      engines,
      os,
      exports,
      dependencies: Object.fromEntries(names.map(name => [name, dependencies[name]])),
    },
    undefined,
    2,
  )}\n`,
);

mkdirSync(target, { recursive: true });
const { status, stdout, stderr } = spawnSync('npm', ['pack', '--silent', '--pack-destination', staged], {
  cwd: staged,
  encoding: 'utf8',
});
const packed = readdirSync(staged).find(file => file.endsWith('.tgz'));
if (status !== 0 || packed === undefined) {
  console.error(`aerostat: npm pack failed: ${stdout}${stderr}`);
  process.exit(1);
}
const tarball = join(target, packed.replace('aerostat-', 'aerostat-library-'));
cpSync(join(staged, packed), `${tarball}.part`);
renameSync(`${tarball}.part`, tarball);
console.log(relative(process.cwd(), tarball));

function copy(path) {
  if (!existsSync(join(root, path))) return;
  mkdirSync(dirname(join(staged, path)), { recursive: true });
  cpSync(join(root, path), join(staged, path));
}

/** Files of dist that these load or name, and the packages among the dependencies that the code among them loads. */
function reachedFrom(entries) {
  const pending = entries.map(path => join(root, path));
  const files = new Set();
  const loaded = new Set();
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    if (files.has(relative(root, path))) continue;
    files.add(relative(root, path));
    const text = readFileSync(path, 'utf8');
    const isTypes = path.endsWith('.d.ts');
    for (const [, from] of text.matchAll(
      /(?:\bfrom|\bimport|\bimport\(|\brequire\)?\(|url\)\()\s*['"]([^'"]+)['"]/g,
    )) {
      if (!from.startsWith('.')) loaded.add(from);
      else pending.push(resolve(dirname(path), isTypes ? from.replace(/\.(js|ts)$/, '.d.ts') : from));
    }
  }
  const names = Object.keys(described.dependencies).filter(name => loaded.has(name));
  return { files: [...files], names };
}
