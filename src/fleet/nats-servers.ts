/** Servers of NATS as people name them: URLs with a user or not, with TLS or not. Connects nowhere. */
import { isIP } from 'node:net';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import type { TlsOptions } from '@nats-io/transport-node';

interface TlsText {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

interface Servers {
  /** Without what is secret in them. */
  readonly urls: readonly string[];
  readonly login: Login | undefined;
  /** Undefined where TLS is up to the server. */
  readonly tls: TlsOptions | undefined;
}

type Login = { readonly user: string; readonly pass: string } | { readonly token: string };

const URL_OF = /^(?:([a-z]+):\/\/)?(?:([^@/]*)@)?(.*)$/i;

/** A user stands in a URL as NATS has it: `nats://USER:PASSWORD@HOST`, or `nats://TOKEN@HOST`. The clients drop it. */
export function readServers(servers: readonly string[], tls: TlsText | undefined): Servers {
  const read = servers.map(server => {
    const [, scheme = 'nats', login, place = ''] = URL_OF.exec(server) ?? [];
    return { scheme: scheme.toLowerCase(), login, place };
  });
  const login = read.find(({ login }) => login !== undefined)?.login;
  const wantsTls = tls !== undefined || read.some(({ scheme }) => scheme === 'tls');
  const hosts = read.map(({ place }) => hostOf(place));
  return {
    urls: read.map(({ scheme, place }) => `${scheme}://${place}`),
    login: login === undefined ? undefined : loginOf(login),
    tls: wantsTls ? withIdentity(tls ?? {}, hosts) : undefined,
  };
}

function loginOf(words: string): Login {
  const colon = words.indexOf(':');
  if (colon < 0) return { token: decodeURIComponent(words) };
  return {
    user: decodeURIComponent(words.slice(0, colon)),
    pass: decodeURIComponent(words.slice(colon + 1)),
  };
}

const hostOf = (place: string): string => place.replace(/:\d+$/, '').replaceAll(/^\[|\]$/g, '');

/**
 * The clients give TLS no name of a server that was named by its address, and Node then looks for `localhost` in its
 * certificate. It has to be for one of the addresses instead.
 */
function withIdentity(tls: TlsText, hosts: readonly string[]): TlsOptions {
  const addresses = hosts.filter(host => isIP(host) !== 0);
  const identity = (host: string, certificate: PeerCertificate): Error | undefined => {
    const error = checkServerIdentity(host, certificate);
    if (error === undefined || host !== 'localhost') return error;
    const errors = addresses.map(address => checkServerIdentity(address, certificate));
    return errors.length === 0 ? error : errors.every(each => each !== undefined) ? errors[0] : undefined;
  };
  // Handed on to Node as it is, though the clients' types do not have it.
  return { ...tls, checkServerIdentity: identity } as TlsOptions;
}
