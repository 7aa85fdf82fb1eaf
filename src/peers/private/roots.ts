/**
 * Where peers lie that were installed for ourselves: `<cache>/peers/<name>/root` is a file system of Debian packages
 * that nothing is changed into and no process is locked up in; `<cache>/peers/<name>/peer.json` says what it is. A
 * peer is there as a whole or not at all. Programs of such a root run through its own loader and libraries, see
 * {@link privateCommand}. `aerostat peers install NAME` fills a root (debian/install.ts).
 *
 *     const qemu = installedPeer('qemu');
 *     if (qemu !== undefined) spawnSync(...) of privateCommand(qemu.root, 'usr/bin/qemu-img')
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory } from '../cache.ts';
import { PEER_NAMES, type PeerName } from './catalogue.ts';

export interface PeerManifest {
  /** Of the peer itself, for example `11.1.3`. */
  readonly version: string;
  /** Debian's packages with their versions. */
  readonly packages: Readonly<Record<string, string>>;
  readonly suites: readonly string[];
  readonly mirror: string;
  /** What its files take on disk. */
  readonly bytes: number;
  /** ISO 8601. */
  readonly installedAt: string;
}

export interface InstalledPeer extends PeerManifest {
  readonly name: PeerName;
  /** The root of its file system. */
  readonly root: string;
}

/** A program and what comes before the caller's own arguments. */
export interface PeerCommand {
  readonly program: string;
  readonly args: readonly string[];
  /** Variables that it needs beside those of ours. */
  readonly env: Readonly<Record<string, string>>;
}

/** Of a root: Debian's libraries for this architecture, which the loader is one of. */
export const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
export const LOADER = `${LIBRARIES}/ld-linux-x86-64.so.2`;

/** Where all peers of ours are; it need not exist. */
export const peersDirectory = (): string => join(cacheDirectory(), 'peers');

export const peerDirectory = (name: PeerName): string => join(peersDirectory(), name);

/** What lies there; undefined where nothing is, or nothing whole. */
export function readPeer(name: PeerName, directory = peerDirectory(name)): InstalledPeer | undefined {
  const root = join(directory, 'root');
  try {
    const manifest = JSON.parse(readFileSync(join(directory, 'peer.json'), 'utf8')) as PeerManifest;
    return typeof manifest.version === 'string' && existsSync(root) ? { ...manifest, name, root } : undefined;
  } catch {
    return undefined;
  }
}

export const installedPeer = (name: PeerName): InstalledPeer | undefined => readPeer(name);

export const installedPeers = (): readonly InstalledPeer[] =>
  PEER_NAMES.map(installedPeer).filter(peer => peer !== undefined);

/** How a program of a private root is started: through the root's own loader, with the root's own libraries. */
export const privateCommand = (root: string, program: string): PeerCommand => ({
  program: join(root, LOADER),
  args: ['--library-path', join(root, LIBRARIES), join(root, program)],
  env: {},
});
