/** How connections fail, in words; what Node says of it stays the cause. */
import { AerostatError } from '../sys/error.ts';
import { formatTransferAddress, type TransferAddress } from './address.ts';

/** A connection could not be made, or went away. */
export class TransferError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_TRANSFER', message, options);
  }
}

/** No process listens there: the other host is up, and says so. */
export class ConnectionRefused extends TransferError {}

const codeOf = (error: Error): string => (error as Error & { code?: string }).code ?? '';

const LOST: Record<string, string> = {
  ECONNRESET: 'the other side cut it',
  EPIPE: 'the other side cut it',
  ETIMEDOUT:
    'the other side was not heard of for too long; the network between is broken, or its host is down',
  EHOSTUNREACH: 'there is no way to its host any more',
  ENETUNREACH: 'there is no network any more',
};

/** Why a connection that there was is gone. */
export function lostError(error: Error): Error {
  if (error instanceof AerostatError) return error;
  const why = LOST[codeOf(error)] ?? tlsReason(error) ?? error.message;
  return new TransferError(`the connection was lost: ${why}`, { cause: error });
}

/** Why there is no connection to `address`. */
export function connectError(address: TransferAddress, error: Error): Error {
  if (error instanceof AerostatError) return error;
  const to = formatTransferAddress(address);
  switch (codeOf(error)) {
    case 'ECONNREFUSED':
      return new ConnectionRefused(
        `no process listens at ${to}; start \`aerostat receive --listen\` there first`,
        {
          cause: error,
        },
      );
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new TransferError(`there is no host ${address.host}; see whether its name is right`, {
        cause: error,
      });
    case 'ETIMEDOUT':
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return new TransferError(`${to} cannot be reached; see whether a firewall is in between`, {
        cause: error,
      });
    default:
      return new TransferError(`no connection to ${to}: ${tlsReason(error) ?? error.message}`, {
        cause: error,
      });
  }
}

/** Why an address cannot be listened on. */
export function listenError(address: TransferAddress, error: Error): Error {
  const at = formatTransferAddress(address);
  const why =
    {
      EADDRINUSE: 'another process listens there; choose another port',
      EADDRNOTAVAIL: 'this host has no such address',
      EACCES: 'ports below 1024 need privileges',
    }[codeOf(error)] ?? error.message;
  return new TransferError(`cannot listen on ${at}: ${why}`, { cause: error });
}

/** The reasons of TLS that people meet. */
function tlsReason(error: Error): string | undefined {
  const code = codeOf(error);
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return "the other side's certificate is for another host";
  if (code === 'CERT_HAS_EXPIRED') return "the other side's certificate has expired; renew it there";
  if (code === 'CERT_NOT_YET_VALID')
    return "the other side's certificate is not valid yet; see whether both clocks are right";
  if (/CERT|ISSUER|SIGNATURE/.test(code) && !code.startsWith('ERR_SSL')) {
    return `the other side's certificate is not one of the CA's (${error.message})`;
  }
  if (/ALERT_(CERTIFICATE|UNKNOWN_CA|BAD_CERT)|CERTIFICATE_REQUIRED/.test(code)) {
    return `the other side does not take our certificate (${error.message})`;
  }
  if (code.startsWith('ERR_SSL'))
    return `no TLS could be agreed on; does the other side use it? (${error.message})`;
  return undefined;
}
