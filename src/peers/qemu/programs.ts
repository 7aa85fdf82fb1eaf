/**
 * The QEMUs of this machine: the system's own from PATH, and a newer one that `aerostat peers install qemu` keeps in a
 * private root. A QEMU is a command, since a private one runs through its own loader; {@link QemuProcess} takes one.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { installedPeer, LIBRARIES, type PeerCommand, privateCommand } from '../private/roots.ts';
import { compareVersions } from '../processor.ts';
import { findProgram, MissingPeerError } from '../programs.ts';

interface QemuProgram extends PeerCommand {
  /** For example `11.1.3`. */
  readonly version: string;
  readonly origin: 'system' | 'private';
}

const BINARY = 'qemu-system-x86_64';
/** Where Debian's packages keep what QEMU loads into machines. */
const DATA_DIRECTORIES = ['usr/share/qemu', 'usr/share/seabios', 'usr/lib/ipxe/qemu'];

/** The system's own version is asked once: it does not change under us. */
const versions = new Map<string, string | undefined>();

function versionOf(program: string): string | undefined {
  if (!versions.has(program)) {
    let version: string | undefined;
    try {
      version = /version (\d[\w.]*)/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))?.[1];
    } catch {
      // It does not even say its version: no QEMU that can be used.
    }
    versions.set(program, version);
  }
  return versions.get(program);
}

function systemQemu(): QemuProgram | undefined {
  const program = findProgram(BINARY);
  const version = program === undefined ? undefined : versionOf(program);
  if (program === undefined || version === undefined) return undefined;
  return { program, args: [], env: {}, version, origin: 'system' };
}

/** How the QEMU of this private root is started. */
export function privateQemuCommand(root: string): PeerCommand {
  const { program, args } = privateCommand(root, `usr/bin/${BINARY}`);
  const data = DATA_DIRECTORIES.flatMap(directory => ['-L', join(root, directory)]);
  return { program, args: [...args, ...data], env: { QEMU_MODULE_DIR: join(root, LIBRARIES, 'qemu') } };
}

function privateQemu(): QemuProgram | undefined {
  const peer = installedPeer('qemu');
  if (peer === undefined) return undefined;
  return { ...privateQemuCommand(peer.root), version: peer.version, origin: 'private' };
}

/** All QEMUs that are here, the newest first. */
export const findQemus = (): readonly QemuProgram[] =>
  [systemQemu(), privateQemu()]
    .filter(qemu => qemu !== undefined)
    .sort((a, b) => compareVersions(b.version, a.version));

/**
 * The QEMU that is used where no version is asked for: the system's own, since that is what a host runs, else ours.
 * @throws MissingPeerError
 */
export function defaultQemu(): QemuProgram {
  const qemu = systemQemu() ?? privateQemu();
  if (qemu === undefined) throw new MissingPeerError([{ what: BINARY, peer: 'qemu' }]);
  return qemu;
}
