/** From the words of `aerostat device` to the guests that a daemon is started with; nothing is opened here. */
import { basename } from 'node:path';
import { DEFAULT_PROFILE, type Profile, profile } from '../balloon/profiles.ts';
import type { DiscardMode } from '../control/contract.ts';
import { removableFeature } from '../hosting/offered-features.ts';
import type { GuestOptions } from '../hosting/options.ts';
import { SOCKET_PATH_BYTES_MAX } from '../server/address.ts';
import { defined } from '../sys/defined.ts';
import { UsageError } from './usage.ts';

/** Fits a URL's path, a metric's label and a column of a table. */
export const GUEST_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** 0 to 2 are the standard streams. */
const FD_MIN = 3;

export interface ServedGuestsChoice {
  readonly socketPath?: readonly string[];
  readonly fd?: readonly number[];
  readonly name?: readonly string[];
  readonly target: number;
  readonly profile?: string;
  readonly discard: DiscardMode;
  readonly without?: readonly string[];
  readonly pollInterval: number;
  readonly bootGrace?: number;
  readonly evictionInterval?: number;
}

/** In place of a keeper's socket: the service manager keeps guests, or nothing does. */
export const isKeepWord = (keep: string): boolean => keep === 'systemd' || keep === 'none';

/** @throws UsageError for words that mean nothing, or contradict each other */
export function guestOptions(choice: ServedGuestsChoice): GuestOptions[] {
  const sockets = (choice.socketPath ?? []).map(path => ({ socketPath: checkPath(path) }));
  const descriptors = (choice.fd ?? []).map(fd => ({ fd }));
  const places = [...sockets, ...descriptors];
  if (places.length === 0) {
    throw new UsageError(
      'no socket to serve a guest on; give --socket-path PATH (or --fd N), once for each guest',
    );
  }
  const given = choice.name ?? [];
  if (given.length > 0 && given.length !== places.length) {
    throw new UsageError(
      `${places.length} sockets and ${given.length} names; give --name once for each socket, in the same order, or not at all`,
    );
  }
  const abi = profile(choice.profile ?? DEFAULT_PROFILE);
  const without = choice.without ?? [];
  for (const name of without) checkFeature(abi, name);
  const names = places.map((place, at) => given[at] ?? defaultName(place));
  checkNames(names);
  return places.map((place, at) => ({
    ...place,
    name: names[at],
    targetBytes: choice.target,
    profile: abi.name,
    discard: choice.discard,
    without,
    pollIntervalMs: choice.pollInterval,
    bootGraceMs: choice.bootGrace ?? 0,
    ...defined({ evictionMs: choice.evictionInterval }),
  }));
}

/** @throws UsageError */
export function parseFd(text: string): number {
  const fd = /^\d{1,6}$/.test(text) ? Number(text) : -1;
  if (fd < FD_MIN) throw new UsageError(`${text} is no inherited descriptor; the first is ${FD_MIN}`);
  return fd;
}

const defaultName = (place: { socketPath?: string; fd?: number }): string =>
  place.socketPath === undefined ? `fd${place.fd}` : nameOfSocket(place.socketPath);

/** Endings that say what kind of file a socket is, and nothing of its guest. */
const SOCKET_ENDING = /(?<=.)\.(?:sock|socket|qmp)$/;

/** The guest that a socket is called after: `vm1` for `/run/vm1.sock`. */
export const nameOfSocket = (path: string): string => basename(path).replace(SOCKET_ENDING, '');

function checkPath(path: string): string {
  const length = Buffer.byteLength(path);
  if (length > SOCKET_PATH_BYTES_MAX) {
    throw new UsageError(
      `a socket's path may have ${SOCKET_PATH_BYTES_MAX} bytes, ${path} has ${length}; choose a shorter directory`,
    );
  }
  return path;
}

export function checkNames(names: readonly string[]): void {
  for (const [at, name] of names.entries()) {
    if (!GUEST_NAME.test(name)) {
      throw new UsageError(
        `${JSON.stringify(name)} cannot be a guest's name (letters, digits, dots, dashes, 64 at most); give one with --name`,
      );
    }
    if (names.indexOf(name) !== at) {
      throw new UsageError(`two guests are called ${name}; give each a name of its own with --name`);
    }
  }
}

function checkFeature(abi: Profile, name: string): void {
  try {
    removableFeature(abi, name);
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}
