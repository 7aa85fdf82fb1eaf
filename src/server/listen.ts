/**
 * Puts the API where it can be reached: on a Unix socket that only its owner can open, or on a TCP port that
 * asks for a token. What may go wrong with addresses, files and tokens is said here.
 */
import { lstatSync, mkdirSync, statSync, unlinkSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { type AddressInfo, connect, isIP, Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import { createAdaptorServer } from '@hono/node-server';
import type { Control } from '../control/operations.ts';
import { defined } from '../sys/defined.ts';
import { AerostatError } from '../sys/error.ts';
import type { AccessRules } from './access.ts';
import { type ApiAddress, formatAddress } from './address.ts';
import { type ApiOptions, createApi } from './api.ts';
import { PROBLEM_TYPE, problemOf, RequestError } from './problem.ts';
import { checkTokens, type Token } from './token.ts';

/** How long a client may take to send a request. */
export interface Patience {
  readonly headersMs: number;
  /** Headers and body. */
  readonly requestMs: number;
  /** How often late ones are looked for: rarely, because an idle daemon is to stay idle. */
  readonly checkMs: number;
}

const PATIENCE: Patience = { headersMs: 5000, requestMs: 10_000, checkMs: 5000 };
/** How long a client that was answered before its body had ended may go on sending: enough to read why it is cut off. */
const LINGER_MS = 100;
const HEADER_BYTES_MAX = 8192;
const CONNECTIONS_MAX = 256;

export class ListenError extends AerostatError {}

export interface ListenOptions {
  readonly address: ApiAddress;
  /** At least one is needed on TCP. */
  readonly tokens?: readonly Token[];
  /** The option by which a person chooses the address, for messages. Default: --api. */
  readonly chosenBy?: string;
  /** Also listen on addresses that other machines can reach. */
  readonly allowRemote?: boolean;
  /** The option that allows it. Default: --api-remote. */
  readonly allowedBy?: string;
  readonly patience?: Patience;
  /** Told of failures that are ours. */
  readonly onError?: (error: Error, request: string) => void;
}

export interface ServeOptions extends ListenOptions, Omit<ApiOptions, 'access'> {}

export interface ApiServer {
  /** Where it listens; with the port that was chosen where 0 was asked for. */
  readonly address: ApiAddress;
  close(): Promise<void>;
}

/**
 * @throws ListenError AEROSTAT_API_IN_USE, AEROSTAT_API_REMOTE, AEROSTAT_API_LISTEN
 * @throws TokenError on TCP
 */
export async function serveApi(control: Control, options: ServeOptions): Promise<ApiServer> {
  const access = await admit(options);
  return listenAt(createApi(control, { ...options, ...defined({ access }) }), options);
}

/**
 * Checks that the address may be used, and makes room there. Clients over TCP need a token.
 * @throws ListenError, TokenError
 */
export async function admit(options: ListenOptions): Promise<AccessRules | undefined> {
  const { address, tokens = [] } = options;
  if (address.kind === 'unix') {
    await prepareSocketPath(address.path);
    return undefined;
  }
  checkRemote(address.host, options);
  checkTokens(tokens);
  return { tokens, hostNames: [address.host] };
}

/** An application that answers requests, and what has to end with its server. */
export interface Application {
  readonly app: { readonly fetch: (request: Request) => Response | Promise<Response> };
  close(): void;
}

/** @throws ListenError */
export async function listenAt(api: Application, options: ListenOptions): Promise<ApiServer> {
  const { address, patience = PATIENCE, chosenBy = '--api' } = options;
  const server = createAdaptorServer({
    fetch: api.app.fetch,
    serverOptions: {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: patience.headersMs,
      requestTimeout: patience.requestMs,
      connectionsCheckingInterval: patience.checkMs,
    },
  }) as Server;
  server.maxConnections = CONNECTIONS_MAX;
  server.on('request', cutOffAfterAnswer);
  server.on('clientError', refuseMalformed);
  try {
    await bind(server, address, chosenBy);
  } catch (error) {
    api.close();
    throw error;
  }
  // A connection that cannot be accepted, for want of descriptors say, is no reason to end.
  server.on('error', error => options.onError?.(error, 'a connection'));
  return {
    address: boundAddress(server, address),
    close: () =>
      new Promise(resolve => {
        api.close();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Node would read the rest of a body, and throw it away, for as long as it comes; strangers need no token for that. */
function cutOffAfterAnswer(request: IncomingMessage, response: ServerResponse): void {
  const { socket } = request;
  // To close a connection on which the client still sends resets it, and the client might lose the answer.
  socket.destroySoon = () => {
    if (request.complete) Socket.prototype.destroySoon.call(socket);
    else socket.end();
  };
  response.once('finish', () => {
    if (request.complete) return;
    setTimeout(() => {
      if (!request.complete) request.socket.destroy();
    }, LINGER_MS).unref();
  });
}

/** What is wrong with a request that Node could not make one of; anything else is no HTTP. */
const MALFORMED: Readonly<Record<string, RequestError>> = {
  HPE_HEADER_OVERFLOW: new RequestError(
    'AEROSTAT_HEADERS_TOO_LARGE',
    `the headers may have ${HEADER_BYTES_MAX} bytes at most`,
  ),
  ERR_HTTP_REQUEST_TIMEOUT: new RequestError(
    'AEROSTAT_REQUEST_TIMEOUT',
    'the request did not come to its end in time',
  ),
};
const NO_HTTP = new RequestError('AEROSTAT_BAD_REQUEST', 'this is no request of HTTP/1.1');

/** Answers what never became a request, as all else is answered, and closes the connection. */
function refuseMalformed(error: NodeJS.ErrnoException, stream: Duplex): void {
  const socket = stream as Socket & { _httpMessage?: ServerResponse };
  // Half an answer is on its way already, or there is no one to answer.
  if (!socket.writable || socket._httpMessage?.headersSent === true || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const problem = problemOf(MALFORMED[error.code ?? ''] ?? NO_HTTP);
  const body = JSON.stringify(problem);
  const head = [
    `HTTP/1.1 ${problem.status} ${problem.title}`,
    `Content-Type: ${PROBLEM_TYPE}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Cache-Control: no-store',
    'X-Content-Type-Options: nosniff',
    'Connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
  setTimeout(() => socket.destroy(), LINGER_MS).unref();
}

function bind(server: Server, address: ApiAddress, chosenBy: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const used = error.code === 'EADDRINUSE';
      const why = used ? 'another program listens there already' : error.message;
      reject(
        new ListenError(
          used ? 'AEROSTAT_API_IN_USE' : 'AEROSTAT_API_LISTEN',
          `cannot serve the API on ${formatAddress(address)}: ${why}; choose another with ${chosenBy}`,
        ),
      );
    });
    server.once('listening', resolve);
    if (address.kind === 'tcp') {
      server.listen({ host: address.host, port: address.port });
      return;
    }
    // Node binds a Unix socket before listen() returns, so this mask gives it mode 0600 from its first moment
    // and does not last; a chmod afterwards would leave a gap.
    const mask = process.umask(0o177);
    try {
      server.listen(address.path);
    } finally {
      process.umask(mask);
    }
  });
}

function boundAddress(server: Server, asked: ApiAddress): ApiAddress {
  if (asked.kind === 'unix') return asked;
  return { ...asked, port: (server.address() as AddressInfo).port };
}

/** Makes room for the socket: a private directory, no stale socket, and no daemon that still listens. */
async function prepareSocketPath(path: string): Promise<void> {
  const directory = dirname(path);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const holder = statSync(directory);
  const foreign = holder.uid !== 0 && holder.uid !== process.getuid?.();
  const shared = (holder.mode & 0o022) !== 0 && (holder.mode & 0o1000) === 0;
  // A user who may write the directory may put another socket in its place.
  if (foreign || shared) {
    throw new ListenError(
      'AEROSTAT_API_LISTEN',
      `cannot serve the API on ${path}: others may write ${directory}; choose a directory of your own with --api`,
    );
  }
  const present = lstatSync(path, { throwIfNoEntry: false });
  if (present === undefined) return;
  if (!present.isSocket()) {
    throw new ListenError(
      'AEROSTAT_API_LISTEN',
      `cannot serve the API on ${path}: a file that is no socket is there; remove it or choose another with --api`,
    );
  }
  if (await answers(path)) {
    throw new ListenError(
      'AEROSTAT_API_IN_USE',
      `cannot serve the API on ${path}: another daemon listens there; stop it or choose another with --api`,
    );
  }
  unlinkSync(path);
}

/** Whether a process accepts connections on the socket; a refused one is what a dead daemon leaves behind. */
function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
}

function checkRemote(host: string, { allowRemote = false, allowedBy = '--api-remote' }: ListenOptions): void {
  const loopback = host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
  if (loopback || allowRemote) return;
  throw new ListenError(
    'AEROSTAT_API_REMOTE',
    `${host} can be reached from other machines, and the API speaks no TLS; listen on 127.0.0.1, or add ${allowedBy} if the network is yours`,
  );
}
