/** The daemon's API as the page uses it: the token, problem documents as errors, and the stream of events. */
import type { GuestChanges, GuestEvent, GuestRequest, HintAction } from '../../src/control/contract.ts';
import type { MapOptions, MemoryMap } from '../../src/control/memory-map.ts';
import type { MigrationOrder } from '../../src/control/migrations.ts';
import {
  type AnswerOf,
  type ArgsOf,
  answerIn,
  type OperationName,
  requestOf,
} from '../../src/control/operations.ts';
import type { GuestPolicyChanges, PolicyChanges } from '../../src/control/policy.ts';
import { BEFORE_ALL, EventParser, SILENCE_MS_MAX } from '../../src/server/event-parser.ts';
import { TOLD_EVENTS } from '../../src/server/page-pace.ts';
import { decode } from './route.ts';

export type {
  DaemonStatus,
  GuestCounters,
  GuestEvent,
  GuestRequest,
  GuestStatistics,
  GuestStatus,
  HintAction,
  HintStatus,
  HostStatus,
  RequestAnswer,
  StatisticsSample,
} from '../../src/control/contract.ts';
export type { FleetHostView, FleetPicture } from '../../src/control/fleet.ts';
export type { MapLayer, MemoryMap } from '../../src/control/memory-map.ts';
export type {
  MigrationAnswer,
  MigrationOrder,
  MigrationReport,
  MigrationState,
} from '../../src/control/migrations.ts';
export type {
  GuestPolicy,
  GuestPolicyChanges,
  GuestPolicyDecision,
  PolicyBudget,
  PolicyStatus,
} from '../../src/control/policy.ts';

/** The daemon refused; the message is its own. */
export class RefusalError extends Error {
  readonly status: number;
  /** Stable, for programs; empty where the answer was no problem document. */
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The daemon does not answer, or not in time. */
export class Unreachable extends Error {}

const ANSWER_MS_MAX = 8000;
/** Less, so that it is the daemon that says that its guest did not answer. */
const REQUEST_MS_MAX = 7000;
const TOKEN_KEY = 'aerostat-token';

let token = sessionStorage.getItem(TOKEN_KEY) ?? '';

/** Takes it, for this tab only; false where it cannot be one, because no header could carry it. */
export function setToken(text: string): boolean {
  const given = text.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) return false;
  token = given;
  sessionStorage.setItem(TOKEN_KEY, token);
  return true;
}

/**
 * The token comes in the fragment of the address, which no browser sends anywhere, and leaves the address bar at once; what
 * page was meant stays. Returns whether there was one.
 */
export function takeToken(): boolean {
  const match = /^#token=([^&]+)(?:&page=(\/[\w/]*))?/.exec(location.hash);
  if (match === null) return false;
  history.replaceState(
    null,
    '',
    match[2] === undefined ? location.pathname : `${location.pathname}#${match[2]}`,
  );
  return setToken(decode(match[1]) ?? '');
}

interface Call {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
  readonly signal?: AbortSignal;
}

/** Relative to the page, so that it also works below a path of a reverse proxy. */
async function call(path: string, { method = 'GET', body, headers, signal }: Call = {}): Promise<Response> {
  const timeout = AbortSignal.timeout(ANSWER_MS_MAX);
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      cache: 'no-store',
      headers: {
        ...(token === '' ? {} : { Authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable('the daemon does not answer', { cause: error });
  }
  if (response.ok || response.status === 304) return response;
  const problem = (await response.json().catch(() => null)) as { detail?: string; code?: string } | null;
  throw new RefusalError(
    response.status,
    problem?.code ?? '',
    problem?.detail ?? `the daemon answered with status ${response.status}`,
  );
}

async function json(path: string, options?: Call): Promise<unknown> {
  const response = await call(path, options);
  try {
    return await response.json();
  } catch (error) {
    throw new Unreachable('the answer broke off', { cause: error });
  }
}

/** The operations that the page uses, and what it asks of each. */
async function ask<Name extends OperationName>(
  operation: Name,
  guest: string,
  args: ArgsOf<Name> | undefined,
  options: Pick<Call, 'signal' | 'headers'> = {},
): Promise<AnswerOf<Name>> {
  const { method, path, body } = requestOf(operation, guest, args ?? undefined);
  const document = await json(path.slice(1), { ...options, method, body });
  return answerIn(operation, document) as AnswerOf<Name>;
}

export const api = {
  daemon: () => ask('daemon', '', undefined),
  host: () => ask('host', '', undefined),
  guests: () => ask('guests', '', undefined),
  guest: (name: string) => ask('guest', name, undefined),
  samples: () => ask('samples', '', undefined),
  /** A sample no older than a second, which asks the guest if need be. */
  freshSample: (name: string) => ask('statistics', name, { freshMs: 1000, timeoutMs: 2000 }),
  change: (name: string, changes: GuestChanges) => ask('change', name, changes),
  hint: (name: string, action: HintAction) => ask('hint', name, { action }),
  request: (name: string, request: GuestRequest) =>
    ask('request', name, { request, timeoutMs: REQUEST_MS_MAX }),
  migration: (name: string) => ask('migration', name, undefined),
  migrate: (name: string, order: MigrationOrder) => ask('migrate', name, order),
  /** With the guests of `host`, where those of all hosts are too many to be told. */
  fleet: (host: string | undefined) => ask('fleet', '', host === undefined ? {} : { host }),
  policy: () => ask('policy', '', undefined),
  changePolicy: (changes: PolicyChanges) => ask('changePolicy', '', changes),
  changeGuestPolicy: (name: string, changes: GuestPolicyChanges) => ask('changeGuestPolicy', name, changes),
  resumePolicy: (name: string) => ask('resumePolicy', name, undefined),
  policyHistory: (name: string) => ask('policyHistory', name, undefined),
  cancelMigration: (name: string) => ask('cancelMigration', name, undefined),
  /** Undefined when nothing changed since the map with `tag`. */
  async map(
    name: string,
    options: MapOptions,
    tag: string,
    signal: AbortSignal,
  ): Promise<{ map: MemoryMap; tag: string } | undefined> {
    const { path } = requestOf('map', name, options);
    const response = await call(path.slice(1), {
      signal,
      headers: tag === '' ? {} : { 'If-None-Match': tag },
    });
    if (response.status === 304) return undefined;
    return { map: (await response.json()) as MemoryMap, tag: response.headers.get('etag') ?? '' };
  },
};

/**
 * Reads the stream until it ends, and resolves then. The first time it asks for all that the daemon remembers.
 */
export function eventReader(listener: (event: GuestEvent) => void): () => Promise<void> {
  const parser = new EventParser(({ event, data }) => {
    if (event !== 'hello' && event !== 'missed') listener(JSON.parse(data) as GuestEvent);
  });
  parser.lastId = BEFORE_ALL;
  return async () => {
    parser.restart();
    const ending = new AbortController();
    let silence = 0;
    const heard = () => {
      window.clearTimeout(silence);
      silence = window.setTimeout(() => ending.abort(), SILENCE_MS_MAX);
    };
    heard();
    const response = await fetch(`v1/events?types=${TOLD_EVENTS.join(',')}`, {
      cache: 'no-store',
      signal: ending.signal,
      headers: {
        ...(token === '' ? {} : { Authorization: `Bearer ${token}` }),
        'Last-Event-ID': parser.lastId,
      },
    });
    if (!response.ok || response.body === null) return;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      heard();
      parser.push(piece.value);
    }
  };
}
