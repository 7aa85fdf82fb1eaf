/**
 * The tokens of the API on TCP, which server and client read the same way: from a file that holds one a line, or a
 * single one from the environment.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { AerostatError } from '../sys/error.ts';
import type { Environment } from './address.ts';

/** Shorter tokens can be guessed. */
const TOKEN_LENGTH_MIN = 16;
/** Hundreds of tokens; a larger file was not meant. */
const FILE_BYTES_MAX = 65_536;

/** The command that makes a token file. A file that others may read would be refused. */
const MAKE_TOKEN = '(umask 077; openssl rand -hex 32';

const RIGHTS = ['full', 'read-only'] as const;
/** `read-only` is for what only looks, such as Prometheus: a thief of it can steer nothing. */
type Right = (typeof RIGHTS)[number];

export interface Token {
  readonly secret: string;
  readonly right: Right;
  /** What the log calls it, if anything. */
  readonly name: string | null;
}

class TokenError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_API_TOKEN', message);
  }
}

/** How a token is given, in messages of commands that need one. */
export const HOW_TO_GIVE_TOKEN =
  'name the file that holds it with --token-file, or put the token itself into AEROSTAT_TOKEN';

/**
 * From the file when one is named, else from AEROSTAT_TOKEN, else none.
 * @throws TokenError when the file cannot be read, can be read by everybody, or holds no tokens
 */
export function readTokens(file: string | undefined, env: Environment): readonly Token[] {
  if (file !== undefined) return parseTokens(readFile(file), file);
  const secret = env.AEROSTAT_TOKEN?.trim() ?? '';
  if (secret === '') return [];
  if (existsSync(secret)) {
    throw new TokenError(
      `AEROSTAT_TOKEN is ${secret}, which is a file; the variable holds the token itself, --token-file names a file`,
    );
  }
  if (/\s/.test(secret)) throw new TokenError('AEROSTAT_TOKEN holds one token, without spaces');
  return [{ secret, right: 'full', name: null }];
}

/** The one that a client sends: the first. @throws TokenError */
export const readToken = (file: string | undefined, env: Environment): string | undefined =>
  readTokens(file, env)[0]?.secret;

function readFile(file: string): string {
  try {
    const status = statSync(file);
    if (status.isDirectory()) throw new TokenError(`${file} is a folder; name the file that holds the token`);
    const open = (status.mode & 0o007) !== 0;
    if (open) throw new TokenError(`everybody may read the token in ${file}; run: chmod 600 ${file}`);
    if (status.size > FILE_BYTES_MAX) throw new TokenError(`${file} is too large to be a file of tokens`);
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof TokenError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? `there is no file ${file}; make one: ${MAKE_TOKEN} > ${file})` : message;
    throw new TokenError(`cannot read the token: ${why}`);
  }
}

/** A line is `TOKEN [full|read-only] [NAME]`; what follows a # is a comment. */
function parseTokens(text: string, file: string): readonly Token[] {
  const tokens: Token[] = [];
  for (const [at, line] of text.split('\n').entries()) {
    const words = line.replace(/(^|\s)#.*$/, '').trim();
    if (words === '') continue;
    const [secret, right = 'full', name = null, ...rest] = words.split(/\s+/);
    const known = RIGHTS.find(candidate => candidate === right);
    if (known === undefined || rest.length > 0) {
      throw new TokenError(`line ${at + 1} of ${file} is not: TOKEN [${RIGHTS.join('|')}] [NAME]`);
    }
    if (tokens.some(token => token.secret === secret)) {
      throw new TokenError(`line ${at + 1} of ${file} repeats a token; give each its own`);
    }
    tokens.push({ secret, right: known, name });
  }
  if (tokens.length === 0) {
    throw new TokenError(`${file} is empty; put a token into it: ${MAKE_TOKEN} > ${file})`);
  }
  return tokens;
}

/** @throws TokenError when there is none, or one that can be guessed */
export function checkTokens(tokens: readonly Token[]): void {
  if (tokens.length === 0) {
    throw new TokenError(`the API on TCP needs a token; ${HOW_TO_GIVE_TOKEN}, or use a Unix socket`);
  }
  for (const { secret } of tokens) {
    if (secret.length >= TOKEN_LENGTH_MIN) continue;
    throw new TokenError(
      `the token has ${secret.length} characters and needs ${TOKEN_LENGTH_MIN}; for example from: openssl rand -hex 32`,
    );
  }
}

/** A single token that may do everything. */
export const fullToken = (secret: string): readonly Token[] => [{ secret, right: 'full', name: null }];
