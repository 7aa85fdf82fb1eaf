// Builds a Debian package of what is here: npm run package:deb [DIRECTORY]. It holds the compiled program with the
// dependencies that it runs with, the dashboard, the systemd unit, the vhost-user descriptor, completions, the manual
// page, and rules and a dashboard for monitoring. It uses dpkg-deb and nothing of debhelper.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { bootstrap, endedBy, root, scratch } from './bootstrap.mjs';
import { firstsOf, wordsOf } from './node-versions.mjs';

const LIB = 'usr/lib/aerostat';

/** Where what lies in the project goes to in the package. */
const FILES = {
  'packaging/aerostat@.service': 'usr/lib/systemd/system/aerostat@.service',
  'packaging/aerostat.service': 'usr/lib/systemd/system/aerostat.service',
  'packaging/aerostat-pair@.service': 'usr/lib/systemd/system/aerostat-pair@.service',
  'packaging/aerostat-keeper.service': 'usr/lib/systemd/system/aerostat-keeper.service',
  'packaging/aerostat-exporter.service': 'usr/lib/systemd/system/aerostat-exporter.service',
  'packaging/aerostat.sysusers': 'usr/lib/sysusers.d/aerostat.conf',
  'packaging/50-aerostat.json': 'usr/share/qemu/vhost-user/50-aerostat.json',
  'packaging/prometheus/scrape.yml': 'usr/share/aerostat/prometheus/scrape.yml',
  'packaging/prometheus/aerostat.rules.yml': 'usr/share/aerostat/prometheus/aerostat.rules.yml',
  'packaging/grafana/aerostat.json': 'usr/share/aerostat/grafana/aerostat.json',
  'README.md': 'usr/share/doc/aerostat/README.md',
  docs: 'usr/share/doc/aerostat/docs',
  'package.json': `${LIB}/package.json`,
  bin: `${LIB}/bin`,
};

/** What the program itself prints, and where that goes. */
const PRINTED = [
  { words: ['completion', 'bash'], path: 'usr/share/bash-completion/completions/aerostat' },
  { words: ['completion', 'zsh'], path: 'usr/share/zsh/vendor-completions/_aerostat' },
  { words: ['completion', 'fish'], path: 'usr/share/fish/vendor_completions.d/aerostat.fish' },
];

/** What dpkg runs; DPKG_ROOT is set where it installs into another root without changing to it. */
const SCRIPTS = {
  postinst: `#!/bin/sh
set -e
if [ "$1" = configure ]; then
  # The user that the unit runs as.
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers \${DPKG_ROOT:+--root="$DPKG_ROOT"} aerostat.conf
  fi
  if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
  fi
fi
`,
  // An upgrade leaves daemons alone: not every front-end connects again, and who looks after a guest chooses the moment.
  prerm: `#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
  systemctl stop 'aerostat@*.service' aerostat.service 'aerostat-pair@*.service' aerostat-keeper.service \
    aerostat-exporter.service
fi
`,
  // The user stays, as is the custom: files may be his.
  postrm: `#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
`,
};

const { version, description, license, engines } = JSON.parse(
  readFileSync(join(root, 'package.json'), 'utf8'),
);
const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;

/** Runs a program and returns what it prints; ends this process if it fails. */
function output(command, args, options = {}) {
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    ...options,
  });
  if (status === 0) return stdout;
  if (signal !== null) process.exit(endedBy(signal));
  console.error(`aerostat: ${command} failed: ${error?.message ?? stderr}`);
  process.exit(1);
}

/**
 * The packages that the program runs with, as paths in node_modules: what its dependencies depend on, and what is
 * optional only where it is installed.
 */
function runtimePackages() {
  const found = new Set();
  const visit = (name, from, optional) => {
    // As Node looks for it: next to the importing file, then further up.
    for (let place = from; ; place = place.slice(0, Math.max(0, place.lastIndexOf('/node_modules/')))) {
      const path = place === '' ? `node_modules/${name}` : `${place}/node_modules/${name}`;
      if (lock[path] !== undefined && existsSync(join(root, path))) {
        if (found.has(path)) return;
        found.add(path);
        for (const below of Object.keys(lock[path].dependencies ?? {})) visit(below, path, false);
        for (const below of Object.keys(lock[path].optionalDependencies ?? {})) visit(below, path, true);
        return;
      }
      if (place === '') break;
    }
    if (!optional) throw new Error(`${name}, which ${from || 'aerostat'} needs, is not installed`);
  };
  for (const name of Object.keys(lock[''].dependencies)) visit(name, '', false);
  return [...found];
}

function files(directory) {
  return readdirSync(directory, { withFileTypes: true }).flatMap(entry => {
    const path = join(directory, entry.name);
    return entry.isDirectory() ? files(path) : entry.isFile() ? [path] : [];
  });
}

function put(stage, path, content, mode = 0o644) {
  const target = join(stage, path);
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, content);
  chmodSync(target, mode);
}

/**
 * Whether a file of a package is needed to run it. What a package has installed below itself comes by its own path, if
 * it is needed; licences stay, whatever they are called.
 */
function runs(path) {
  if (path.split('/').includes('node_modules')) return false;
  return (
    /licen[cs]e|notice/i.test(path) ||
    !/\.(map|d\.[cm]?ts|ts|md|markdown)$|^(test|docs?|benchmarks?)$/.test(path)
  );
}

async function fill(stage) {
  for (const [from, to] of Object.entries(FILES))
    cpSync(join(root, from), join(stage, to), { recursive: true });
  cpSync(join(root, 'dist'), join(stage, LIB, 'dist'), {
    recursive: true,
    filter: path => !/\.(map|d\.ts)$|\/\.aerostat-/.test(path),
  });
  for (const path of runtimePackages()) {
    // Signals are heard in between.
    await turn();
    cpSync(join(root, path), join(stage, LIB, path), {
      recursive: true,
      filter: from => runs(relative(join(root, path), from)),
    });
  }
  mkdirSync(join(stage, 'usr/bin'), { recursive: true });
  symlinkSync('../lib/aerostat/bin/aerostat', join(stage, 'usr/bin/aerostat'));
  for (const { words, path } of PRINTED) {
    const printed = output(process.execPath, [join(root, 'bin/aerostat'), ...words]);
    put(stage, path, printed);
  }
  const pages = scratch('manual');
  output(process.execPath, [join(root, 'bin/aerostat'), 'manual', '--into', pages]);
  for (const page of readdirSync(pages)) {
    const path = `usr/share/man/man${page.slice(-1)}/${page}.gz`;
    put(stage, path, gzipSync(readFileSync(join(pages, page)), { level: 9 }));
  }
  put(stage, 'usr/share/doc/aerostat/copyright', copyright());
  put(stage, 'usr/share/doc/aerostat/changelog.gz', gzipSync(readFileSync(join(root, 'CHANGELOG.md'))));
}

function copyright() {
  const parts = runtimePackages().map(path => `Files: ${LIB}/${path}/*\nLicense: ${lock[path].license}\n`);
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: aerostat

Files: *
License: ${license}
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.

${parts.join('\n')}`;
}

function control(stage, architecture) {
  const kibibytes = Math.ceil(files(stage).reduce((total, path) => total + statSync(path).size, 0) / 1024);
  return `Package: aerostat
Version: ${version}
Architecture: ${architecture}
Maintainer: Aerostat <aerostat@localhost>
Installed-Size: ${kibibytes}
Depends: nodejs (>= ${firstsOf(engines.node)[0]}), libc6
Recommends: systemd, libzstd1
Suggests: prometheus, user-mode-linux, busybox-static, qemu-system-x86
Section: admin
Priority: optional
Description: virtio memory ballooning for hosts of virtual machines
 ${description}.
 .
 It needs Node.js ${wordsOf(engines.node)},
 as the package nodejs. Debian 13 and later have it. Debian 12 has version 18: take a package of a newer one from those that
 https://nodejs.org/en/download names for it.
`;
}

bootstrap();
const stage = scratch('deb');
chmodSync(stage, 0o755);
const architecture = output('dpkg', ['--print-architecture']).trim();
await fill(stage);
await turn();
const sums = files(stage).map(path => {
  const digest = createHash('md5').update(readFileSync(path)).digest('hex');
  return `${digest}  ${relative(stage, path)}\n`;
});
const described = control(stage, architecture);
put(stage, 'DEBIAN/control', described);
put(stage, 'DEBIAN/md5sums', sums.sort().join(''));
for (const [name, script] of Object.entries(SCRIPTS)) put(stage, `DEBIAN/${name}`, script, 0o755);
const directory = process.argv[2] ?? join(root, '.cache');
mkdirSync(directory, { recursive: true });
const file = join(directory, `aerostat_${version}_${architecture}.deb`);
await turn();
output('dpkg-deb', ['--build', '--root-owner-group', stage, file]);
console.log(file);
