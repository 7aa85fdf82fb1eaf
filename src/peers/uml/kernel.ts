/**
 * The kernel that this machine has for guests: User Mode Linux and the balloon driver that fits it.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { MissingPeerError, missingPrograms, requireProgram } from '../programs.ts';

/** Where Debian's package user-mode-linux keeps the modules of its kernel, by version. */
const MODULES_DIRECTORY = '/usr/lib/uml/modules';
export interface UmlKernel {
  readonly program: string;
  /** As `uname -r` says in the guest. */
  readonly version: string;
  /** Path of the balloon driver's module on this machine. */
  readonly balloonModule: string;
}

/** @throws MissingPeerError when the kernel, or the module that fits it, is not there */
export function findUmlKernel(): UmlKernel {
  const program = requireProgram('linux.uml');
  const version = execFileSync(program, ['--version'], { encoding: 'utf8' }).trim();
  const balloonModule = join(MODULES_DIRECTORY, version, 'kernel/drivers/virtio/virtio_balloon.ko');
  if (!existsSync(balloonModule)) {
    throw new MissingPeerError([{ what: balloonModule, debianPackage: 'user-mode-linux' }]);
  }
  return { program, version, balloonModule };
}

/** Says what is missing for a guest to start on this machine; undefined when nothing is. */
export function missingForUml(): MissingPeerError | undefined {
  const missing = missingPrograms('linux.uml', 'busybox');
  if (missing !== undefined) return missing;
  try {
    findUmlKernel();
    return undefined;
  } catch (error) {
    if (error instanceof MissingPeerError) return error;
    throw error;
  }
}

/**
 * The command that starts `program` with its address space laid out alike each time, where this host lets
 * us ask for that (containers may not). User Mode Linux counts the random gap above its data as physical
 * memory: without this a guest shows its devices up to 1 GiB more memory than it was given, and spends
 * 16 MiB on keeping account of it.
 */
export function withFixedLayout(program: string, args: readonly string[]): [string, string[]] {
  const allowed = spawnSync('setarch', ['-R', 'true'], { stdio: 'ignore' }).status === 0;
  return allowed ? ['setarch', ['-R', program, ...args]] : [program, [...args]];
}
