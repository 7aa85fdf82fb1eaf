/**
 * A daemon elsewhere, seen through its HTTP API: a {@link Control} like the one that the daemon itself has, so that
 * code that steers guests need not know which of the two it holds. What it sends is derived from the table of operations.
 * Loads nothing but Node and that table, because every short command pays for it.
 */
import {
  Agent,
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http';
import type { GuestEvent, GuestStatus } from '../control/contract.ts';
import {
  answerIn,
  type Control,
  GUEST_OPERATIONS,
  type GuestOperation,
  HOST_OPERATIONS,
  type HostOperation,
  handlersOf,
  hostHandlersOf,
  type OperationName,
  requestOf,
} from '../control/operations.ts';
import { AerostatError, type ErrorCode } from '../sys/error.ts';
import { type ApiAddress, formatAddress } from './address.ts';
import { BEFORE_ALL, EventParser, SILENCE_MS_MAX } from './event-parser.ts';
import { HOW_TO_GIVE_TOKEN } from './token.ts';

/** Above the daemon's own limit, so that it is the daemon that says what was late. */
const ANSWER_MS_MAX = 40_000;
/** A status of a guest is about 2 KiB; this is thousands of guests. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
const RECONNECT_MS = 1000;
/** By which the daemon's log knows our commands. */
const PROGRAM = { 'User-Agent': 'aerostat' };
/** A connection for each question: one that was kept might be closed by the daemon just when the next question is sent. */
const agent = new Agent({ keepAlive: false });

/** No process listens at the address, or it is not an Aerostat daemon. */
export class UnreachableError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_UNREACHABLE', message, options);
  }
}

/** The daemon refused: its problem document as an error, with the code that it gave. */
export class RemoteError extends AerostatError {
  /** HTTP status. */
  readonly status: number;

  constructor(status: number, code: ErrorCode, message: string) {
    super(code, message);
    this.status = status;
  }
}

export interface ClientOptions {
  readonly token?: string | undefined;
  /** Whether a subscriber first gets what the daemon remembers. */
  readonly pastEvents?: boolean;
  /**
   * What is under way when this is aborted is given up, for its reason. What is asked afterwards is asked all the same:
   * the caller may have to undo what it began.
   */
  readonly signal?: AbortSignal | undefined;
  /** How long a stream of events may say nothing before it is taken for lost. */
  readonly silenceMsMax?: number;
}

/** A daemon's control; without `Status`, its guests may be of any hypervisor. */
export function remoteControl<Status extends GuestStatus = GuestStatus>(
  address: ApiAddress,
  options: ClientOptions = {},
): Control<Status> {
  const daemon = new RemoteDaemon(address, options);
  return {
    ...handlersOf<GuestOperation, Status>(GUEST_OPERATIONS, operation => daemon.ask.bind(daemon, operation)),
    ...hostHandlersOf<HostOperation, Status>(HOST_OPERATIONS, operation =>
      daemon.ask.bind(daemon, operation, ''),
    ),
    subscribe: listener => daemon.subscribe(listener),
  };
}

class RemoteDaemon {
  readonly #address: ApiAddress;
  readonly #token: string | undefined;
  readonly #pastEvents: boolean;
  readonly #silenceMsMax: number;
  /** What can be given up, and how the caller that waits for it is told. */
  readonly #underway = new Map<ClientRequest, (reason: unknown) => void>();

  constructor(
    address: ApiAddress,
    { token, pastEvents = false, signal, silenceMsMax = SILENCE_MS_MAX }: ClientOptions,
  ) {
    this.#address = address;
    this.#token = token;
    this.#pastEvents = pastEvents;
    signal?.addEventListener('abort', () => this.#giveUp(signal.reason), { once: true });
    this.#silenceMsMax = silenceMsMax;
  }

  async ask(operation: OperationName, guest: string, args: object | undefined): Promise<unknown> {
    const { method, path, body, patient } = requestOf(operation, guest, args);
    const { status, text } = await this.#exchange(method, path, body, patient);
    const answer = parseJson(text);
    if (status === 200 && answer !== undefined) return answerIn(operation, answer);
    if (isProblem(answer)) throw new RemoteError(status, answer.code, this.#detail(status, answer.detail));
    throw new UnreachableError(
      `what listens at ${formatAddress(this.#address)} is not Aerostat (it answered with HTTP status ${status}); check --api`,
    );
  }

  /** What a daemon says of tokens is for programs; a person gave an option, or did not. */
  #detail(status: number, detail: string): string {
    if (status !== 401) return detail;
    const daemon = `the daemon at ${formatAddress(this.#address)}`;
    return this.#token === undefined
      ? `${daemon} asks for a token; ${HOW_TO_GIVE_TOKEN}`
      : `${daemon} does not know this token; check --token-file, or AEROSTAT_TOKEN`;
  }

  /** Resumes where it stopped when the connection is lost, as far back as the daemon remembers. */
  subscribe(listener: (event: GuestEvent) => void): () => void {
    const parser = new EventParser(({ event, data }) => {
      if (event !== 'hello' && event !== 'missed') listener(JSON.parse(data) as GuestEvent);
    });
    if (this.#pastEvents) parser.lastId = BEFORE_ALL;
    let request: ClientRequest | undefined;
    let retry: NodeJS.Timeout | undefined;
    let ended = false;
    const again = () => {
      clearTimeout(retry);
      if (!ended) retry = setTimeout(open, RECONNECT_MS);
    };
    const open = () => {
      parser.restart();
      const headers = {
        Accept: 'text/event-stream',
        ...(parser.lastId && { 'Last-Event-ID': parser.lastId }),
      };
      request = httpRequest(this.#options('GET', '/v1/events', headers), response => {
        if (response.statusCode !== 200) response.resume();
        else response.setEncoding('utf8').on('data', (text: string) => parser.push(text));
        response.once('close', again);
      });
      request.setTimeout(this.#silenceMsMax, () => request?.destroy());
      request.once('error', again).end();
    };
    open();
    return () => {
      ended = true;
      clearTimeout(retry);
      request?.destroy();
    };
  }

  #options(method: string, path: string, headers: Record<string, string>): RequestOptions {
    const address = this.#address;
    const place =
      address.kind === 'unix' ? { socketPath: address.path } : { host: address.host, port: address.port };
    const authorization = this.#token === undefined ? {} : { Authorization: `Bearer ${this.#token}` };
    return { ...place, agent, method, path, headers: { ...PROGRAM, ...headers, ...authorization } };
  }

  #giveUp(reason: unknown): void {
    for (const [request, reject] of this.#underway) {
      reject(reason);
      request.destroy();
    }
  }

  #exchange(
    method: string,
    path: string,
    body: unknown,
    patient: boolean,
  ): Promise<{ status: number; text: string }> {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers: Record<string, string> = { Accept: 'application/json' };
    if (payload !== undefined) {
      headers['Content-Type'] = 'application/json';
      headers['Content-Length'] = String(Buffer.byteLength(payload));
    }
    return new Promise((resolve, reject) => {
      const fail = (error: Error) => reject(unreachable(this.#address, error));
      const request = httpRequest(this.#options(method, path, headers), response => {
        collect(response).then(text => resolve({ status: response.statusCode ?? 0, text }), fail);
      });
      request.setTimeout(ANSWER_MS_MAX, () => request.destroy(new Error('it does not answer')));
      request.once('error', fail);
      if (!patient) this.#underway.set(request, reject);
      request.once('close', () => this.#underway.delete(request));
      request.end(payload);
    });
  }
}

async function collect(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response) {
    length += (chunk as Buffer).length;
    if (length > ANSWER_BYTES_MAX) throw new Error('its answer is too large');
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isProblem(answer: unknown): answer is { code: ErrorCode; detail: string } {
  return (
    typeof answer === 'object' &&
    answer !== null &&
    'code' in answer &&
    'detail' in answer &&
    typeof answer.code === 'string' &&
    typeof answer.detail === 'string'
  );
}

function unreachable(address: ApiAddress, error: NodeJS.ErrnoException): UnreachableError {
  const at = formatAddress(address);
  const next =
    'start one with "aerostat device --socket-path PATH", or say where it is with --api or AEROSTAT_API';
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new UnreachableError(`no daemon listens at ${at}; ${next}`, { cause: error });
    case 'EACCES':
    case 'EPERM':
      return new UnreachableError(
        `the daemon's socket ${at} belongs to another user; run this as the daemon's user`,
        { cause: error },
      );
    case 'ECONNRESET':
    case 'EPIPE':
      return new UnreachableError(`the daemon at ${at} ended before it had answered; ${next}`, {
        cause: error,
      });
    default:
      return new UnreachableError(`the daemon at ${at} cannot be reached: ${error.message}`, {
        cause: error,
      });
  }
}
