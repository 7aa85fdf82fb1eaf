/**
 * The page of a command: page and API on a loopback port, since a browser cannot open a Unix socket, under a token of their
 * own, until the command is interrupted. What the page shows is the command's.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { type Command, InvalidArgumentError } from 'commander';
import type { Control } from '../control/operations.ts';
import { formatAddress } from '../server/address.ts';
import { fullToken, type Token } from '../server/token.ts';
import { readVersion } from '../sys/version.ts';
import { type CliContext, interrupted, printJson, printLine } from './context.ts';
import { styleOf } from './style.ts';

export interface PageChoice {
  readonly port: number;
  readonly open: boolean;
  readonly json?: boolean;
}

export const withPage = (command: Command): Command =>
  command
    .option('--port <number>', 'port on 127.0.0.1; any when 0', portOf, 0)
    .option('--no-open', 'only print the address');

function portOf(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) < 65_536) return Number(text);
  throw new InvalidArgumentError('It must be a port, 0 to 65535.');
}

interface Shown {
  /** Where the page opens, if not at all guests. */
  readonly page?: string;
  /** What the page shows, in the middle of a sentence. */
  readonly subject: string;
  /** Under which it is served; a new one when there are none. */
  readonly tokens: readonly Token[];
}

export async function showPage(
  context: CliContext,
  { port, open, json }: PageChoice,
  control: Control,
  { subject, tokens: given, page }: Shown,
): Promise<void> {
  const { serveApi } = await import('../server/listen.ts');
  const tokens = given.length > 0 ? given : fullToken(randomBytes(24).toString('base64url'));
  const server = await serveApi(control, {
    address: { kind: 'tcp', host: '127.0.0.1', port },
    tokens,
    chosenBy: '--port',
    version: readVersion(),
  });
  try {
    const address = `${formatAddress(server.address)}/#token=${encodeURIComponent(tokens[0].secret)}${page === undefined ? '' : `&page=${page}`}`;
    const { stdout, stderr, env } = context;
    printLine(stderr, `The page of ${subject}. Open this in a browser; Ctrl-C ends it.`);
    if (json) printJson(stdout, { url: address });
    else printLine(stdout, address);
    if (open && openBrowser(env, address)) printLine(stderr, styleOf(stderr, env).dim('Opening it.'));
    await interrupted(context.interrupt);
  } finally {
    await server.close();
  }
}

/** Hands the address to the desktop, where there is one. It is not waited for, and may fail. */
function openBrowser(env: CliContext['env'], address: string): boolean {
  if (!env.DISPLAY && !env.WAYLAND_DISPLAY) return false;
  const child = spawn('xdg-open', [address], { stdio: 'ignore', detached: true });
  child.once('error', () => {});
  child.unref();
  return true;
}
