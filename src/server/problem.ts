/**
 * Problem documents (RFC 9457): what a client of the API gets instead of an answer. Which status
 * an error has is declared with its code (sys/error-codes.ts). What a stranger could use (stack traces,
 * messages of errors that are not ours) never leaves the process.
 */
import { STATUS_CODES } from 'node:http';
import type { Context } from 'hono';
import { HTTPException } from 'hono/http-exception';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { defined } from '../sys/defined.ts';
import { AerostatError, type ErrorCode } from '../sys/error.ts';
import { ERRORS, isErrorCode } from '../sys/error-codes.ts';
import type { Problem } from './schemas/answers.ts';

export const PROBLEM_TYPE = 'application/problem+json';

/** A request that is refused. */
export class RequestError extends AerostatError {
  readonly errors: Problem['errors'];
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { errors?: Problem['errors']; headers?: Record<string, string> } = {},
  ) {
    super(code, message);
    this.errors = options.errors;
    this.headers = options.headers ?? {};
  }
}

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
  if (error instanceof AerostatError) {
    const errors = error instanceof RequestError ? error.errors : undefined;
    return problem(error.code, error.message, errors);
  }
  if (error instanceof HTTPException && error.status in CODE_BY_STATUS) {
    return problem(CODE_BY_STATUS[error.status], DETAIL_BY_STATUS[error.status] ?? error.message);
  }
  return problem('AEROSTAT_INTERNAL', 'the daemon failed at this request; its log says why');
}

/** `urn:aerostat:problem:guest-state` for AEROSTAT_GUEST_STATE: a name that needs no page behind it. */
function problem(code: ErrorCode, detail: string, errors?: Problem['errors']): Problem {
  // Another daemon, whose refusal is passed on, may know codes that this one does not.
  const status = (isErrorCode(code) ? ERRORS[code].status : undefined) ?? 500;
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
    ...defined({ errors }),
  };
}

export function problemResponse(context: Context, error: unknown): Response {
  const document = problemOf(error);
  return context.body(JSON.stringify(document), document.status as ContentfulStatusCode, {
    'Content-Type': PROBLEM_TYPE,
    // The rest of the body is not read, so the connection cannot be used again.
    ...(document.status === 413 ? { Connection: 'close' } : {}),
    ...(error instanceof RequestError ? error.headers : {}),
  });
}
