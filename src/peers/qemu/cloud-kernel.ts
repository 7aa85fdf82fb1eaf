/**
 * A kernel for QEMU's guests in a root: Debian's for cloud machines, with the virtio modules that a balloon needs, and
 * where its files are. What boots it is not here.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { compareVersions } from '../processor.ts';

const IMAGE_NAME = /^vmlinuz-(.+-cloud-amd64)$/;
const BUS_MODULE = 'virtio_pci';
const BALLOON_MODULE = 'virtio_balloon';

interface CloudKernel {
  /** As `uname -r` says in the guest. */
  readonly version: string;
  /** Path of the image that QEMU boots. */
  readonly image: string;
  /** Paths of the modules that the balloon's driver needs, in the order in which they can be loaded. */
  readonly transportModules: readonly string[];
  readonly balloonModule: string;
}

/** Where a package keeps modules, before and after Debian merged /usr. */
const MODULE_ROOTS = ['lib/modules', 'usr/lib/modules'];

/** Versions in `root`, the newest first, with the kernel's image: in /boot, or since Debian's 7.x beside its modules. */
function imagesIn(root: string): (readonly [version: string, image: string])[] {
  const boot = join(root, 'boot');
  const booted = namesIn(boot).flatMap(name => {
    const version = IMAGE_NAME.exec(name)?.[1];
    return version === undefined ? [] : [[version, join(boot, name)] as const];
  });
  const beside = MODULE_ROOTS.flatMap(modules =>
    namesIn(join(root, modules))
      .filter(version => version.endsWith('-cloud-amd64'))
      .map(version => [version, join(root, modules, version, 'vmlinuz')] as const)
      .filter(([, image]) => existsSync(image)),
  );
  return [...booted, ...beside].sort(([a], [b]) => compareVersions(b, a));
}

const namesIn = (directory: string): string[] => (existsSync(directory) ? readdirSync(directory) : []);

/** The newest kernel whose files lie in this root. */
export function kernelIn(root: string): CloudKernel | undefined {
  for (const [version, image] of imagesIn(root)) {
    const directory = MODULE_ROOTS.map(modules => join(root, modules, version, 'kernel/drivers/virtio')).find(
      path => existsSync(path),
    );
    if (directory === undefined) continue;
    const files = new Map(readdirSync(directory).map(file => [moduleName(file), join(directory, file)]));
    const balloonModule = files.get(BALLOON_MODULE);
    if (balloonModule === undefined) continue;
    const needed = [...withDependencies(files, BUS_MODULE), ...withDependencies(files, BALLOON_MODULE)];
    const transportModules = [...new Set(needed)].filter(file => file !== balloonModule);
    return { version, image, transportModules, balloonModule };
  }
  return undefined;
}

/** The name by which the kernel knows a module. */
export const moduleName = (path: string): string => basename(path).split('.', 1)[0].replaceAll('-', '_');

/** A module as the kernel of a small guest takes it: not compressed. */
export function readModule(path: string): Uint8Array {
  return path.endsWith('.xz')
    ? execFileSync('xz', ['-dc', path], { maxBuffer: 2 ** 26 })
    : readFileSync(path);
}

/**
 * A module's file after those of the modules that it needs; which those are differs from kernel to kernel.
 * What a kernel has built in is no file.
 */
function withDependencies(files: ReadonlyMap<string, string>, module: string): string[] {
  const file = files.get(module);
  if (file === undefined) return [];
  const info = /\0depends=([^\0]*)\0/.exec(Buffer.from(readModule(file)).toString('latin1'));
  const dependencies = (info?.[1] ?? '').split(',').filter(name => name !== '');
  return [...dependencies.flatMap(name => withDependencies(files, name)), file];
}
