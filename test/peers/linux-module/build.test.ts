/**
 * What the kernel's own tools say of the driver in linux/: its DKMS package builds with every warning that the kernel has and
 * gives none, what is built says what it is, and the sources are written as the kernel's are. What it does in a kernel is
 * profiles.test.ts's.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { DRAFT_NAMES, PROFILE_NAMES } from '../../../src/balloon/profiles.ts';
import { installedPeer } from '../../../src/peers/private/roots.ts';
import { missingPrograms, programsNamed } from '../../../src/peers/programs.ts';
import { driverModule, driverModuleComplaint } from '../../../src/peers/uml/driver-module.ts';
import { findUmlKernels } from '../../../src/peers/uml/kernel.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 400_000 });

const root = fileURLToPath(new URL('../../..', import.meta.url));
const SOURCES = join(root, 'linux');

const kernel = findUmlKernels().find(found => driverModuleComplaint(found) === undefined);
const lacks =
  kernel === undefined
    ? "the driver cannot be built here; see profiles.test.ts's reason"
    : missingPrograms('dpkg-deb')?.message;

const isSource = (path: string): boolean => /\.[ch]$/.test(path);
const sources = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).filter(isSource).sort();

test('the driver can be read in an evening: under 1,500 lines', () => {
  const lines = sources.map(path => readFileSync(join(SOURCES, path), 'utf8').split('\n').length - 1);
  expect(lines.reduce((total, count) => total + count, 0)).toBeLessThan(1500);
});

describe.skipIf(lacks !== undefined)(
  `the DKMS package of the driver${lacks ? ` (skipped: ${lacks})` : ''}`,
  () => {
    let directory: string;
    let unpacked: string;
    let file: string;
    let kernelSources: string;

    beforeAll(() => {
      directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
      const words = [join(root, 'scripts/package-dkms.mjs'), directory];
      file = execFileSync(process.execPath, words, { encoding: 'utf8' }).trim();
      execFileSync('dpkg-deb', ['--extract', file, join(directory, 'root')]);
      const [name] = readdirSync(join(directory, 'root/usr/src'));
      unpacked = join(directory, 'root/usr/src', name);
      kernelSources = join(installedPeer('uml-source')!.root, 'usr/src/linux');
    });

    afterAll(() => rmSync(directory, { recursive: true, force: true }));

    /** A value of dkms.conf, read as DKMS does. */
    const configured = (name: string): string =>
      execFileSync('bash', ['-c', `. ./dkms.conf; printf %s "\${${name}}"`], {
        cwd: unpacked,
        encoding: 'utf8',
        env: { ...process.env, kernel_source_dir: kernelSources },
      });

    test('names itself, its module, and where it goes', () => {
      const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
      expect(
        unpacked.endsWith(`/usr/src/${configured('PACKAGE_NAME')}-${configured('PACKAGE_VERSION')}`),
      ).toBe(true);
      expect(configured('PACKAGE_VERSION')).toBe(version);
      expect(configured('BUILT_MODULE_NAME[0]')).toBe('aerostat_balloon');
      expect(configured('DEST_MODULE_LOCATION[0]')).toBe('/updates/dkms');
      expect(configured('AUTOINSTALL')).toBe('yes');
      const fields = execFileSync('dpkg-deb', ['--field', file, 'Package', 'Architecture', 'Depends']);
      expect(String(fields)).toBe(
        'Package: aerostat-balloon-dkms\nArchitecture: all\nDepends: dkms, make, gcc\n',
      );
      // Both drivers fit the device, and the kernel's own is to be the one that is loaded.
      expect(readFileSync(join(directory, 'root/etc/modprobe.d/aerostat-balloon.conf'), 'utf8')).toMatch(
        /^blacklist aerostat_balloon$/m,
      );
    });

    test("builds by its own words, without one of the kernel's warnings (W=1), and says what it is", async () => {
      const prepared = dirname(await driverModule(kernel!));
      const [output] = readdirSync(prepared).filter(name => name.startsWith(`kernel-${kernel!.version}-`));
      const variables = [
        'ARCH=um',
        `O=${join(prepared, output)}`,
        `SUBLEVEL=${kernel!.version.split('.')[2]}`,
      ];
      const { status, stdout, stderr } = spawnSync('bash', ['-c', configured('MAKE[0]')], {
        cwd: unpacked,
        encoding: 'utf8',
        env: {
          ...process.env,
          LC_ALL: 'C',
          MAKEFLAGS: ['-s -j2 W=1 KBUILD_MODPOST_WARN=1', ...variables].join(' '),
        },
      });
      // Not modpost's remarks: User Mode Linux does not say what it exports.
      const said = `${stdout}${stderr}`.split('\n').filter(line => /: (warning|error): /.test(line));
      expect({ said, status }).toEqual({ said: [], status: 0 });
      const information = moduleInformation(join(unpacked, `${configured('BUILT_MODULE_NAME[0]')}.ko`));
      expect(information.license).toBe('GPL');
      expect(information.description).toMatch(/balloon/);
      expect(information.alias).toMatch(/^virtio:d00000005v/);
      // The drafts of 2026 are the standard to it.
      for (const name of PROFILE_NAMES.filter(known => !DRAFT_NAMES.includes(known)))
        expect(information.parm).toContain(name);
      expect(information.vermagic).toContain(`${kernel!.version} `);
    });

    test.skipIf(programsNamed('perl').length === 0)(
      "is in the kernel's style (checkpatch.pl --strict)",
      () => {
        // Version numbers are compat.h's, and only there.
        const ignored = 'LINUX_VERSION_CODE,CONSTANT_COMPARISON';
        const words = ['--no-tree', '--strict', '--terse', '--ignore', ignored, '-f', ...sources];
        const script = join(kernelSources, 'scripts/checkpatch.pl');
        const { status, stdout } = spawnSync('perl', [script, ...words], { cwd: SOURCES, encoding: 'utf8' });
        expect({ stdout, status }).toEqual({ stdout: '', status: 0 });
        const withVersions = sources.filter(path =>
          readFileSync(join(SOURCES, path), 'utf8').includes('LINUX_VERSION_CODE'),
        );
        expect(withVersions).toEqual(['compat.h']);
      },
    );
  },
);

/** What modinfo shows: `name=value`, ended by zeros; values of one name in one text. */
function moduleInformation(path: string): Record<string, string> {
  const found: Record<string, string> = {};
  const text = readFileSync(path, 'latin1');
  for (const [, name, value] of text.matchAll(/(?<=\0)(license|description|parm|alias|vermagic)=([^\0]*)/g)) {
    found[name] = found[name] === undefined ? value : `${found[name]}\n${value}`;
  }
  return found;
}
