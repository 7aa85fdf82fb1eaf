/**
 * The kernels that this machine has for guests that are processes: User Mode Linux from PATH, and a newer one that
 * `aerostat peers install uml` keeps in a private root, each with the balloon driver that fits it. Which of them run
 * on this processor is known before one is booted (processor.ts); the newest of these is what guests get.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { AerostatError } from '../../sys/error.ts';
import { installedPeer } from '../private/roots.ts';
import { compareVersions, type ProcessorFacts, processorFacts, umlFault } from '../processor.ts';
import { findPrograms, MissingPeerError } from '../programs.ts';

/** Where Debian's package user-mode-linux keeps the modules of its kernel, by version, in its root. */
const MODULES_DIRECTORY = 'usr/lib/uml/modules';
const BALLOON_MODULE = 'kernel/drivers/virtio/virtio_balloon.ko';
const PROGRAM = 'linux.uml';

export interface UmlKernel {
  readonly program: string;
  /** As `uname -r` says in the guest. */
  readonly version: string;
  /** Path of the balloon driver's module on this machine. */
  readonly balloonModule: string;
  readonly origin: 'system' | 'private';
}

/** A kernel that is here, and why it cannot be used, where that is so. */
export interface FoundUmlKernel extends UmlKernel {
  readonly fault: string | undefined;
}

/** No peer of a kind can run here, although one is installed. The message says what to do. */
class UnusablePeerError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_UNUSABLE_PEER', message);
  }
}

/** What installs a kernel that runs everywhere. */
const INSTALL = 'aerostat peers install uml';

/** A program that is here stays what it is while we run; the answer of a kernel takes milliseconds. */
const versions = new Map<string, string | undefined>();

function versionOf(program: string): string | undefined {
  if (!versions.has(program)) {
    const { status, stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
    versions.set(program, status === 0 ? stdout.trim() : undefined);
  }
  return versions.get(program);
}

function inspect(
  program: string,
  root: string,
  origin: UmlKernel['origin'],
  facts: ProcessorFacts,
): FoundUmlKernel {
  const version = versionOf(program) ?? '';
  const balloonModule = join(root, MODULES_DIRECTORY, version, BALLOON_MODULE);
  let fault: string | undefined;
  if (version === '')
    fault = `${program} does not start; if its directory was moved, install it again: ${INSTALL}`;
  else if (!existsSync(balloonModule)) fault = `${program} lacks the balloon's driver, ${balloonModule}`;
  else fault = umlFault(version, facts);
  return { program, version, balloonModule, origin, fault };
}

/** All kernels that are here, those that can be used first, the newest first of these. */
export function findUmlKernels(facts: ProcessorFacts = processorFacts()): readonly FoundUmlKernel[] {
  const own = installedPeer('uml');
  const found = findPrograms(PROGRAM).map(program => inspect(program, '/', 'system', facts));
  if (own !== undefined) found.push(inspect(join(own.root, 'usr/bin', PROGRAM), own.root, 'private', facts));
  return found.sort(
    (a, b) =>
      Number(a.fault !== undefined) - Number(b.fault !== undefined) || compareVersions(b.version, a.version),
  );
}

/** Why no guest can be booted from these kernels, and what to do; undefined when one can. */
export function umlComplaint(
  kernels: readonly FoundUmlKernel[],
): MissingPeerError | UnusablePeerError | undefined {
  if (kernels.length === 0) {
    return new MissingPeerError([{ what: PROGRAM, peer: 'uml' }]);
  }
  const [best] = kernels;
  if (best.fault === undefined) return undefined;
  return new UnusablePeerError(`${best.fault}; \`${INSTALL}\` brings one that does`);
}

/** @throws MissingPeerError when there is no kernel, UnusablePeerError when none can run here */
export function findUmlKernel(): UmlKernel {
  const kernels = findUmlKernels();
  const complaint = umlComplaint(kernels);
  if (complaint !== undefined) throw complaint;
  return kernels[0];
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
