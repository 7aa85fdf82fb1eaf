/** Where a migration goes to: HOST:PORT, as people write it. Nothing here opens anything. */
import { AerostatError } from '../sys/error.ts';

export interface TransferAddress {
  /** A name or an address; an IPv6 address without its brackets. */
  readonly host: string;
  /** 0 to listen on any free port. */
  readonly port: number;
}

export class TransferAddressError extends AerostatError {
  constructor(text: string, why: string) {
    super('AEROSTAT_TRANSFER_ADDRESS', `${JSON.stringify(text)} is no address for a migration: ${why}`);
  }
}

const SCHEME = 'tcp:';
const HOST_PORT = /^(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/;
const PORT_MAX = 65_535;

/**
 * Reads `HOST:PORT`, `[IPV6]:PORT`, or either of them after `tcp:`.
 * @throws TransferAddressError
 */
export function parseTransferAddress(text: string): TransferAddress {
  const bare = text.startsWith(SCHEME) ? text.slice(SCHEME.length) : text;
  const match = HOST_PORT.exec(bare);
  if (match === null)
    throw new TransferAddressError(text, 'write tcp:HOST:PORT, or tcp:[ADDRESS]:PORT for IPv6');
  const port = Number(match[3]);
  if (port > PORT_MAX) throw new TransferAddressError(text, `the largest port is ${PORT_MAX}`);
  return { host: match[1] ?? match[2], port };
}

export const formatTransferAddress = ({ host, port }: TransferAddress): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
