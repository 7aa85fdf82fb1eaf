/**
 * The peers of this machine as a list for people and programs: the system's own and those that we installed, which of
 * them can run here and why not, and which could be installed.
 */
import { PEER_NAMES, type PeerName, RECIPES } from './private/catalogue.ts';
import { installedPeer } from './private/roots.ts';
import { findQemus } from './qemu/programs.ts';
import { findUmlKernels } from './uml/kernel.ts';

export interface ListedPeer {
  /** By which it is installed and removed; of the system's own, the one that it could be replaced by. */
  readonly name: PeerName;
  readonly title: string;
  readonly version: string;
  readonly origin: 'system' | 'private';
  /** The program, or the root of its files. */
  readonly path: string;
  /** On disk; null for what the system's packages take. */
  readonly bytes: number | null;
  /** Why it cannot run here; null where nothing speaks against it. */
  readonly fault: string | null;
}

/** Peers that are here. */
export function listPeers(): readonly ListedPeer[] {
  return PEER_NAMES.flatMap((name): readonly ListedPeer[] => {
    const own = installedPeer(name);
    const place = (origin: 'system' | 'private', program: string) => ({
      name,
      title: RECIPES[name].title,
      origin,
      path: origin === 'private' && own !== undefined ? own.root : program,
      bytes: origin === 'private' && own !== undefined ? own.bytes : null,
    });
    if (name === 'uml') {
      return findUmlKernels().map(({ origin, program, version, fault }) => ({
        ...place(origin, program),
        version,
        fault: fault ?? null,
      }));
    }
    if (name === 'qemu') {
      return findQemus().map(({ origin, program, version }) => ({
        ...place(origin, program),
        version,
        fault: null,
      }));
    }
    return own === undefined ? [] : [{ ...place('private', own.root), version: own.version, fault: null }];
  });
}

/** Names of peers that are not installed for ourselves. */
export const installablePeers = (): readonly PeerName[] =>
  PEER_NAMES.filter(name => installedPeer(name) === undefined);

/** What this machine needs to have a real Linux guest: nothing where one can run already. */
export const neededPeers = (): readonly PeerName[] =>
  findUmlKernels().some(({ fault }) => fault === undefined) ? [] : ['uml'];
