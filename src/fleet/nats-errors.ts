/** What clients of NATS throw, in words for people: what happened, why, and what to do. */
import { FleetRefusalError, FleetUnreachableError } from './errors.ts';

const ADVICE: readonly (readonly [RegExp, string])[] = [
  [
    /self-signed certificate|unable to verify|unable to get (local )?issuer|certificate signed by unknown/i,
    'its certificate is not signed by a CA that is trusted here; give --tls-ca the CA that signed it',
  ],
  [
    /altnames/i,
    'its certificate is for other names; give --nats a name or an address that the certificate has',
  ],
  [
    /certificate has expired|not yet valid/i,
    'its certificate is not valid at this time; make a new one, or set the clock',
  ],
  [
    /certificate required|bad certificate|handshake failure|unknown ca|didn't provide a certificate/i,
    'it wants a certificate of this host that its own CA has signed; give --tls-cert and --tls-key',
  ],
  [
    /authorization violation|authentication expired|authentication timeout/i,
    'it does not know these credentials, or they are expired or revoked; check --creds, --nkey, or the user in its URL',
  ],
  [/refused/i, 'no program listens there; start nats-server, or correct the address'],
  [
    // Under TLS 1.3 a server that misses a certificate only hangs up, and the clients wait on.
    /timeout/i,
    'it does not answer in time; it may be stopped, a firewall may drop what is sent to it, or it may want a certificate of this host (--tls-cert and --tls-key)',
  ],
  [/ENOTFOUND|EAI_AGAIN/i, 'the name is not known; correct it, or the resolver'],
];

/** No server let us in. @param servers without what is secret in their URLs */
export function connectFailure(servers: readonly string[], error: unknown): FleetUnreachableError {
  // A server that closes the connection in the middle of a handshake leaves no error at all.
  const message =
    error instanceof Error
      ? textOf(error)
      : 'it closed the connection; it may want TLS, or a certificate of this host';
  const advice =
    ADVICE.find(([pattern]) => pattern.test(message))?.[1] ?? 'check the address and the credentials';
  return new FleetUnreachableError(
    `no server of NATS at ${servers.join(', ')} lets this host in (${message}): ${advice}`,
    { cause: error },
  );
}

/** What JetStream could not do with `what`. */
export function storeFailure(what: string, error: unknown): Error {
  const denied = deniedIn(error);
  if (denied !== null) return new FleetRefusalError(denied);
  const message = textOf(error);
  return new FleetUnreachableError(`JetStream and ${what}: ${saidOf(message)}`, { cause: error });
}

function saidOf(message: string): string {
  if (/timeout/i.test(message)) return 'it does not answer in time';
  if (/not enabled for account/i.test(message))
    return 'it is not enabled for these credentials; enable it for their account at the servers';
  if (/not enabled|no responders/i.test(message))
    return 'it has no leader of its own now, or is not enabled at the servers';
  return message;
}

/** What the credentials do not allow, with the subject; null where it is something else. */
export function deniedIn(error: unknown): string | null {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const { operation, subject } = cause as { operation?: string; subject?: string };
    if (cause.name === 'PermissionViolationError' && subject !== undefined)
      return deniedWords(operation, subject);
  }
  return null;
}

const deniedWords = (operation: string | undefined, subject: string): string =>
  `the credentials do not allow to ${operation === 'subscription' ? 'subscribe' : 'publish'} to ${subject}; allow it to this user at the servers of NATS (docs/fleet.md has all subjects)`;

/** With the code where the message alone says little. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as { code?: unknown };
  return typeof code === 'string' && !error.message.includes(code)
    ? `${error.message}, ${code}`
    : error.message;
}
