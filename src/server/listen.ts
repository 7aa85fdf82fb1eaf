/**
 * Puts the API where it can be reached: on a Unix socket that only its owner can open, or on a TCP port that
 * asks for a token. What may go wrong with addresses, files and tokens is said here.
 */
import { lstatSync, mkdirSync, rmSync, statSync, unlinkSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { type AddressInfo, connect, isIP, Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import { createAdaptorServer } from '@hono/node-server';
import type { Control } from '../control/operations.ts';
import { defined } from '../sys/defined.ts';
import { AerostatError, InvariantError, SystemError } from '../sys/error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { UnixListener } from '../sys/socket.ts';
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
/** How long what was asked of a server may still take, whose address is another process's. */
const LEAVING_MS_MAX = 1000;
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
  /** A socket that listens at the address already, by another process; the server's from now on. */
  readonly inherited?: OwnedFd | undefined;
  /** Told of failures that are ours. */
  readonly onError?: (error: Error, request: string) => void;
}

export interface ServeOptions extends ListenOptions, Omit<ApiOptions, 'access'> {}

export interface ApiServer {
  /** Where it listens; with the port that was chosen where 0 was asked for. */
  readonly address: ApiAddress;
  /** The socket that listens, for another process. */
  readonly listening: OwnedFd;
  /** Takes no connection until {@link resume}: they wait, and requests of those that are there are answered. */
  suspend(): void;
  resume(): Promise<void>;
  /** Another process answers at the address: ends when all that was asked is answered, or soon. */
  leave(): Promise<void>;
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
  const { address, tokens = [], inherited } = options;
  if (address.kind === 'unix') {
    if (inherited === undefined) await prepareSocketPath(address.path);
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
  const { address, patience = PATIENCE } = options;
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
  let listening: OwnedFd;
  try {
    listening = await bind(server, options);
  } catch (error) {
    api.close();
    throw error;
  }
  // A connection that cannot be accepted, for want of descriptors say, is no reason to end.
  server.on('error', error => options.onError?.(error, 'a connection'));
  const end = (patienceMs: number): Promise<void> => {
    listening.close();
    return new Promise(resolve => {
      api.close();
      const impatience = setTimeout(() => server.closeAllConnections(), patienceMs);
      server.close(() => {
        clearTimeout(impatience);
        resolve();
      });
      server.closeIdleConnections();
      if (patienceMs === 0) server.closeAllConnections();
    });
  };
  return {
    address: boundAddress(server, address),
    listening,
    suspend: () => void server.close(),
    resume: () => listen(server, { fd: listening.duplicate().release() }, options),
    leave: () => end(LEAVING_MS_MAX),
    close: () => {
      // Before the socket is closed: a path that is there is one where the daemon answers. After leave() it is another's.
      if (address.kind === 'unix' && listening.open) rmSync(address.path, { force: true });
      return end(0);
    },
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

/** Has the server listen; returns a duplicate of the socket, which is the caller's. @throws ListenError */
async function bind(server: Server, options: ListenOptions): Promise<OwnedFd> {
  const { address, inherited } = options;
  if (address.kind === 'tcp' && inherited === undefined) {
    await listen(server, { host: address.host, port: address.port }, options);
    return duplicate(descriptorOf(server));
  }
  const socket = inherited ?? bindPath(options);
  // Node removes the path of a socket that it bound itself when it closes it, also when another process listens there.
  await listen(server, { fd: socket.duplicate().release() }, options);
  return socket;
}

/** Of a descriptor that stays Node's. */
function duplicate(number: number): OwnedFd {
  const nodes = new OwnedFd(number);
  try {
    return nodes.duplicate();
  } finally {
    nodes.release();
  }
}

/** Node tells the number of a listening socket only so. */
const descriptorOf = (server: Server): number =>
  (server as Server & { readonly _handle: { readonly fd: number } })._handle.fd;

function bindPath({ address, chosenBy }: ListenOptions): OwnedFd {
  if (address.kind !== 'unix') throw new InvariantError('a path of an address that has none');
  // This mask gives it mode 0600 from its first moment; a chmod afterwards would leave a gap.
  const mask = process.umask(0o177);
  try {
    return UnixListener.bind(address.path).fd;
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw cannotListen(address, error.errnoName, error.message, chosenBy);
  } finally {
    process.umask(mask);
  }
}

function listen(
  server: Server,
  where: { readonly fd: number } | { readonly host: string; readonly port: number },
  { address, chosenBy }: ListenOptions,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException) =>
      reject(cannotListen(address, error.code, error.message, chosenBy));
    server.once('error', failed);
    server.once('listening', () => {
      server.off('error', failed);
      resolve();
    });
    server.listen(where);
  });
}

function cannotListen(
  address: ApiAddress,
  code: string | undefined,
  message: string,
  chosenBy = '--api',
): ListenError {
  const used = code === 'EADDRINUSE';
  const why = used ? 'another program listens there already' : message;
  return new ListenError(
    used ? 'AEROSTAT_API_IN_USE' : 'AEROSTAT_API_LISTEN',
    `cannot serve the API on ${formatAddress(address)}: ${why}; choose another with ${chosenBy}`,
  );
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
