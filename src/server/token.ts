/** The token of the API on TCP, which server and client read the same way. */
import { readFileSync, statSync } from 'node:fs';
import { AerostatError } from '../sys/error.ts';
import type { Environment } from './address.ts';

/** Shorter tokens can be guessed. */
export const TOKEN_LENGTH_MIN = 16;

/** For people who have none yet. A file that others may read would be refused. */
const MAKE_TOKEN = '(umask 077; openssl rand -hex 32';

export class TokenError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_API_TOKEN', message);
  }
}

/**
 * From the file when one is named, else from AEROSTAT_TOKEN, else none.
 * @throws TokenError when the file cannot be read, or can be read by everybody
 */
export function readToken(file: string | undefined, env: Environment): string | undefined {
  if (file === undefined) return env.AEROSTAT_TOKEN?.trim() || undefined;
  try {
    const status = statSync(file);
    if (status.isDirectory()) throw new TokenError(`${file} is a folder; name the file that holds the token`);
    const open = (status.mode & 0o007) !== 0;
    if (open) throw new TokenError(`everybody may read the token in ${file}; run: chmod 600 ${file}`);
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    if (error instanceof TokenError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? `there is no file ${file}; make one: ${MAKE_TOKEN} > ${file})` : message;
    throw new TokenError(`cannot read the token: ${why}`);
  }
}

/** @throws TokenError when there is none, or one that can be guessed */
export function checkToken(token: string | undefined): asserts token is string {
  if (token === undefined || token === '') {
    throw new TokenError(
      'the API on TCP needs a token; set AEROSTAT_TOKEN or give --token-file, or use a Unix socket',
    );
  }
  if (token.length < TOKEN_LENGTH_MIN) {
    throw new TokenError(
      `the token has ${token.length} characters and needs ${TOKEN_LENGTH_MIN}; for example from: openssl rand -hex 32`,
    );
  }
}
