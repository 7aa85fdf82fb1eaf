/**
 * Where the API is: a Unix socket or HOST:PORT, as people and environment variables write it. Nothing here
 * opens anything.
 */
import { existsSync, readdirSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { AerostatError } from '../sys/error.ts';

export type ApiAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

export type Environment = Readonly<Record<string, string | undefined>>;

/** sockaddr_un holds 108 bytes with the final 0; a longer path would be cut, and name another file. */
export const SOCKET_PATH_BYTES_MAX = 107;

export class ApiAddressError extends AerostatError {
  constructor(text: string, why: string) {
    super('AEROSTAT_API_ADDRESS', `${JSON.stringify(text)} is not an API address: ${why}`);
  }
}

const HOST_PORT = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/;

/** @throws ApiAddressError */
export function parseAddress(text: string): ApiAddress {
  const bare = text.startsWith('http://') ? text.slice('http://'.length).replace(/\/$/, '') : text;
  const match = HOST_PORT.exec(bare);
  if (match !== null) {
    const port = Number(match[3]);
    if (port > 65_535) throw new ApiAddressError(text, 'the largest port is 65535');
    return { kind: 'tcp', host: match[1] ?? match[2], port };
  }
  if (text.startsWith('https://')) {
    throw new ApiAddressError(
      text,
      'the daemon itself speaks no TLS; give the http:// address behind the proxy',
    );
  }
  if (bare !== text || !text.includes('/') || text.includes('://')) {
    throw new ApiAddressError(text, 'write a path (./api.sock), HOST:PORT or http://HOST:PORT');
  }
  const length = Buffer.byteLength(text);
  if (length > SOCKET_PATH_BYTES_MAX) {
    const limit = `a socket's path may have ${SOCKET_PATH_BYTES_MAX} bytes`;
    throw new ApiAddressError(text, `${limit}, this one has ${length}; choose a shorter directory`);
  }
  return { kind: 'unix', path: text };
}

export function formatAddress(address: ApiAddress): string {
  if (address.kind === 'unix') return address.path;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `http://${host}:${address.port}`;
}

/** The user's own directory for sockets: the session's, or a private one where there is no session. */
function runtimeDirectory(env: Environment): string {
  if (env.XDG_RUNTIME_DIR) return join(env.XDG_RUNTIME_DIR, 'aerostat');
  const { uid } = userInfo();
  const session = `/run/user/${uid}`;
  return existsSync(session) ? join(session, 'aerostat') : join(tmpdir(), `aerostat-${uid}`);
}

/** Where a host's agent says how its fleet is, unless it is told another place. */
export const fleetSocket = (env: Environment): string => join(runtimeDirectory(env), 'fleet.sock');

/** Where the sockets of a host's machines are that a fleet may move. */
export const machineDirectory = (env: Environment): string => join(runtimeDirectory(env), 'machines');

/** Where a policy that runs by itself has its API, unless it is told another place. */
export const policySocket = (env: Environment): string => join(runtimeDirectory(env), 'policy.sock');

/** Where policies leave word that they live. */
export const policyDirectory = (env: Environment): string => join(runtimeDirectory(env), 'policies');

/** Where the daemons of systemd's units are: a directory for each, with its socket in it. */
const SYSTEM_DIRECTORY = '/run/aerostat';

/** The sockets of daemons that systemd's units run, as far as this user may look; AEROSTAT_RUN_DIR says another place. */
export function systemSockets(env: Environment): readonly string[] {
  const directory = env.AEROSTAT_RUN_DIR ?? SYSTEM_DIRECTORY;
  try {
    const names = readdirSync(directory, { withFileTypes: true }).filter(entry => entry.isDirectory());
    const paths = names.map(({ name }) => join(directory, name, 'api.sock'));
    return paths.filter(path => existsSync(path)).sort();
  } catch {
    // No Aerostat unit runs here, or this user may not read the directory.
    return [];
  }
}

/** Whether neither option nor environment says where the daemon is, so that it may be looked for. */
export const isUnsaid = (asked: string | undefined, env: Environment): boolean =>
  asked === undefined && !env.AEROSTAT_API;

/** Where a daemon is if neither option nor environment says. */
export const defaultSocket = (env: Environment): string => join(runtimeDirectory(env), 'api.sock');

/**
 * The address to use: what was asked for, else AEROSTAT_API, else the default socket.
 * @throws ApiAddressError
 */
export function resolveAddress(asked: string | undefined, env: Environment): ApiAddress {
  return parseAddress(asked ?? env.AEROSTAT_API ?? defaultSocket(env));
}
