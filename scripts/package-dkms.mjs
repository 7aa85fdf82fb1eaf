// Builds a Debian package of the driver in linux/ for a PC's kernel: npm run package:dkms [DIRECTORY]. It holds sources,
// which DKMS builds for each kernel that is installed. It needs dpkg-deb alone; what is in linux/ is the kernel's licence.
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { root, scratch } from './bootstrap.mjs';

const NAME = 'aerostat-balloon';
const MODULE = 'aerostat_balloon';
const DOCUMENTATION = `usr/share/doc/${NAME}-dkms`;

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const SOURCES = `usr/src/${NAME}-${version}`;

/** What DKMS reads, as a shell does (dkms(8)). */
const CONFIGURATION = `PACKAGE_NAME="${NAME}"
PACKAGE_VERSION="${version}"
MAKE[0]="make KDIR=$kernel_source_dir modules"
CLEAN="make KDIR=$kernel_source_dir clean"
BUILT_MODULE_NAME[0]="${MODULE}"
DEST_MODULE_LOCATION[0]="/updates/dkms"
BUILD_EXCLUSIVE_CONFIG="CONFIG_VIRTIO CONFIG_PAGE_REPORTING"
AUTOINSTALL="yes"
`;

/** Both drivers fit the device. The kernel's own stays the one that is loaded for it, unless a person says otherwise. */
const MODPROBE = `# For experiments: rmmod virtio_balloon && modprobe ${MODULE} generation=page-chunks
blacklist ${MODULE}
`;

/** What dpkg runs; DPKG_ROOT is set where it installs into another root without changing to it. */
const SCRIPTS = {
  postinst: `#!/bin/sh
set -e
if [ "$1" = configure ] && [ -z "$DPKG_ROOT" ] && [ -x /usr/lib/dkms/common.postinst ]; then
  /usr/lib/dkms/common.postinst ${NAME} ${version} /usr/share/${NAME}-dkms "" "$2"
fi
`,
  prerm: `#!/bin/sh
set -e
if [ -z "$DPKG_ROOT" ] && command -v dkms >/dev/null; then
  dkms remove -m ${NAME} -v ${version} --all || true
fi
`,
};

const CONTROL = `Package: ${NAME}-dkms
Version: ${version}
Architecture: all
Maintainer: Aerostat <aerostat@localhost>
Depends: dkms, make, gcc
Suggests: aerostat
Section: kernel
Priority: optional
Description: balloon driver that speaks every ABI proposed for Linux (DKMS)
 From 2016 to 2019 seven ways were proposed in which a Linux guest tells its
 host which pages it gives away. This driver has all of them, for experiments;
 it is not loaded by itself. It is for Linux 6.1 and newer.
`;

const COPYRIGHT = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: aerostat

Files: *
License: GPL-2.0-only
 On Debian systems the full text is in /usr/share/common-licenses/GPL-2.
`;

function put(stage, path, content, mode = 0o644) {
  const target = join(stage, path);
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, content);
  chmodSync(target, mode);
}

const stage = scratch('dkms');
chmodSync(stage, 0o755);
cpSync(join(root, 'linux'), join(stage, SOURCES), {
  recursive: true,
  // What a build in place leaves stays behind.
  filter: path => !/\.(o|ko|mod|cmd|symvers|order)$|\.mod\.c$|\/\.[^/]+$/.test(path),
});
put(stage, `${SOURCES}/dkms.conf`, CONFIGURATION);
put(stage, `etc/modprobe.d/${NAME}.conf`, MODPROBE);
put(stage, `${DOCUMENTATION}/copyright`, COPYRIGHT);
put(stage, 'DEBIAN/control', CONTROL);
put(stage, 'DEBIAN/conffiles', `/etc/modprobe.d/${NAME}.conf\n`);
for (const [name, script] of Object.entries(SCRIPTS)) put(stage, `DEBIAN/${name}`, script, 0o755);
const directory = process.argv[2] ?? join(root, '.cache');
mkdirSync(directory, { recursive: true });
const file = join(directory, `${NAME}-dkms_${version}_all.deb`);
const { status, error, stderr } = spawnSync('dpkg-deb', ['--build', '--root-owner-group', stage, file], {
  encoding: 'utf8',
});
if (status !== 0) {
  console.error(`aerostat: dpkg-deb failed: ${error?.message ?? stderr}`);
  process.exit(1);
}
console.log(file);
