/**
 * Problem documents (RFC 9457): what a client of the API gets instead of an answer. One place decides which
 * status an error of ours has, so that no route invents its own. What a stranger could use (stack traces,
 * messages of errors that are not ours) never leaves the process.
 */
import { STATUS_CODES } from 'node:http';
import type { Context } from 'hono';
import { HTTPException } from 'hono/http-exception';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { AerostatError, type ErrorCode } from '../sys/error.ts';
import type { Problem } from './schemas/answers.ts';

export const PROBLEM_TYPE = 'application/problem+json';

/** A request that is refused; carries the status that it is refused with. */
export class RequestError extends AerostatError {
  readonly status: number;
  readonly errors: Problem['errors'];
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    code: ErrorCode,
    message: string,
    options: { errors?: Problem['errors']; headers?: Record<string, string> } = {},
  ) {
    super(code, message);
    this.status = status;
    this.errors = options.errors;
    this.headers = options.headers ?? {};
  }
}

const STATUS_BY_CODE: Readonly<Record<string, number>> = {
  AEROSTAT_UNKNOWN_GUEST: 404,
  AEROSTAT_GUEST_STATE: 409,
  AEROSTAT_VM: 409,
  AEROSTAT_TRANSFER_ADDRESS: 400,
  // Of a server that passes on what another daemon, or a QEMU, says.
  AEROSTAT_UNREACHABLE: 502,
  AEROSTAT_QMP: 502,
  AEROSTAT_QMP_CONNECTION: 502,
  AEROSTAT_QMP_ANSWER: 502,
  AEROSTAT_QMP_TIMEOUT: 504,
};

/** Refusals that hono raises while it reads a request or waits for the answer. */
const CODE_BY_STATUS: Readonly<Record<number, ErrorCode>> = {
  400: 'AEROSTAT_BAD_REQUEST',
  413: 'AEROSTAT_TOO_LARGE',
  415: 'AEROSTAT_MEDIA_TYPE',
  504: 'AEROSTAT_TIMEOUT',
};

/** Where hono says no more than the name of the status. */
const DETAIL_BY_STATUS: Readonly<Record<number, string>> = {
  415: 'the body is not JSON by its Content-Type; send it as application/json',
};

export function problemOf(error: unknown): Problem {
  if (error instanceof RequestError) {
    return problem(error.status, error.code, error.message, error.errors);
  }
  if (error instanceof AerostatError) {
    return problem(STATUS_BY_CODE[error.code] ?? 500, error.code, error.message);
  }
  if (error instanceof HTTPException && error.status in CODE_BY_STATUS) {
    return problem(
      error.status,
      CODE_BY_STATUS[error.status],
      DETAIL_BY_STATUS[error.status] ?? error.message,
    );
  }
  return problem(500, 'AEROSTAT_INTERNAL', 'the daemon failed at this request; its log says why');
}

/** `urn:aerostat:problem:guest-state` for AEROSTAT_GUEST_STATE: a name that needs no page behind it. */
function problem(status: number, code: ErrorCode, detail: string, errors?: Problem['errors']): Problem {
  const name = code
    .replace(/^AEROSTAT_/, '')
    .replaceAll('_', '-')
    .toLowerCase();
  return {
    type: `urn:aerostat:problem:${name}`,
    title: STATUS_CODES[status] ?? 'Error',
    status,
    detail,
    code,
    ...(errors === undefined ? {} : { errors }),
  };
}

export function problemResponse(context: Context, error: unknown): Response {
  const document = problemOf(error);
  return context.body(JSON.stringify(document), document.status as ContentfulStatusCode, {
    'Content-Type': PROBLEM_TYPE,
    ...(error instanceof RequestError ? error.headers : {}),
  });
}
