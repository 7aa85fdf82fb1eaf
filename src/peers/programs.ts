/**
 * The programs that Aerostat borrows from the host to have real peers: which Debian package brings each,
 * where it lies, and an error that says how to install what is missing. Nothing is started here.
 */
import { accessSync, constants, readFileSync, realpathSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { AerostatError } from '../sys/error.ts';
import type { PeerName } from './private/catalogue.ts';
import { installedPeer } from './private/roots.ts';

/** Programs of peers, with the Debian package that brings each. */
const DEBIAN_PACKAGE = {
  'linux.uml': 'user-mode-linux',
  busybox: 'busybox-static',
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-storage-daemon': 'qemu-system-common',
  'qemu-img': 'qemu-utils',
  chromium: 'chromium',
  promtool: 'prometheus',
  zsh: 'zsh',
  'dpkg-deb': 'dpkg',
  fish: 'fish',
  openssl: 'openssl',
  libvirtd: 'libvirt-daemon-driver-qemu',
  virsh: 'libvirt-clients',
  'nats-server': 'nats-server',
  tc: 'iproute2',
  ip: 'iproute2',
  unshare: 'util-linux',
} as const;

type PeerProgram = keyof typeof DEBIAN_PACKAGE;

interface MissingPiece {
  /** What was looked for: a program's name, or words for a file. */
  readonly what: string;
  /** The package of this machine's own system that brings it. */
  readonly debianPackage?: string;
  /** The peer that brings it, installed for ourselves: `aerostat peers install NAME`. */
  readonly peer?: PeerName;
}

function sourceOf({ what, debianPackage, peer }: MissingPiece): string {
  if (debianPackage !== undefined) return `${what} (Debian package ${debianPackage})`;
  return peer === undefined ? what : `${what} (peer ${peer})`;
}

/** The commands that install what is missing: the system's packages as root, peers of ours as any user. */
function installCommandOf(missing: readonly MissingPiece[]): string {
  const packages = new Set(missing.flatMap(({ debianPackage }) => debianPackage ?? []));
  const peers = new Set(missing.flatMap(({ peer }) => peer ?? []));
  const asRoot = process.getuid?.() === 0 ? '' : 'sudo ';
  return [
    ...(packages.size > 0 ? [`${asRoot}apt-get install --yes ${[...packages].join(' ')}`] : []),
    ...(peers.size > 0 ? [`aerostat peers install ${[...peers].join(' ')}`] : []),
  ].join(' && ');
}

/** A program or file that a peer needs is not on this machine. */
export class MissingPeerError extends AerostatError {
  readonly missing: readonly MissingPiece[];
  /** The command that installs everything that is missing. */
  readonly installCommand: string;

  constructor(missing: readonly MissingPiece[]) {
    const installCommand = installCommandOf(missing);
    const pieces = missing.map(sourceOf).join(', ');
    super('AEROSTAT_MISSING_PEER', `missing: ${pieces}; install with: ${installCommand}`);
    this.missing = missing;
    this.installCommand = installCommand;
  }
}

function isExecutableFile(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** The programs that a name leads to, in the order of `path`, as a shell would look for them; a path leads to itself. */
export function programsNamed(program: string, path = process.env.PATH ?? ''): readonly string[] {
  if (program.includes('/')) return [program].filter(isExecutableFile);
  const directories = path.split(delimiter).filter(directory => directory !== '');
  return directories.map(directory => join(directory, program)).filter(isExecutableFile);
}

const ELF_MAGIC = 0x7f454c46;
const PT_INTERP = 3;

/**
 * Whether a 64-bit little-endian ELF file runs without a dynamic loader, that is, in a file system that
 * holds nothing else.
 */
function isStaticElf(path: string): boolean {
  const file = readFileSync(path);
  if (file.length < 64 || file.readUInt32BE(0) !== ELF_MAGIC) return false;
  const table = Number(file.readBigUInt64LE(0x20));
  const entrySize = file.readUInt16LE(0x36);
  const entries = file.readUInt16LE(0x38);
  for (let index = 0; index < entries; index++) {
    const entry = table + index * entrySize;
    if (entry + 4 > file.length || file.readUInt32LE(entry) === PT_INTERP) return false;
  }
  return true;
}

/** The busybox that comes with a User Mode Linux of ours, for machines that have none. */
function privateBusybox(): string[] {
  const root = installedPeer('uml')?.root;
  return root === undefined ? [] : [join(root, 'usr/bin/busybox')].filter(isExecutableFile);
}

/**
 * Path of a program, from PATH. Busybox counts only when it is linked statically, since it goes into file
 * systems of its own: Debian's package `busybox` brings one that does not.
 */
export function findProgram(program: PeerProgram): string | undefined {
  if (program === 'busybox') return [...programsNamed(program), ...privateBusybox()].find(isStaticElf);
  return programsNamed(program)[0];
}

/** All programs of this name that PATH leads to, each once, the one that a shell would start first. */
export function findPrograms(program: PeerProgram): readonly string[] {
  const seen = new Set<string>();
  return programsNamed(program).filter(path => {
    const file = realpathSync(path);
    return !seen.has(file) && seen.add(file);
  });
}

const pieceOf = (program: PeerProgram): MissingPiece => ({
  what: program === 'busybox' ? 'a statically linked busybox' : program,
  debianPackage: DEBIAN_PACKAGE[program],
});

/** @throws MissingPeerError */
export function requireProgram(program: PeerProgram): string {
  const path = findProgram(program);
  if (path === undefined) throw new MissingPeerError([pieceOf(program)]);
  return path;
}

/** The error that names all of `programs` that are missing; undefined when all are there. */
export function missingPrograms(...programs: readonly PeerProgram[]): MissingPeerError | undefined {
  const missing = programs.filter(program => findProgram(program) === undefined);
  return missing.length === 0 ? undefined : new MissingPeerError(missing.map(pieceOf));
}
