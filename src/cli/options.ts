/** Options that several commands share, and how their words become values. */
import { getMaxListeners, setMaxListeners } from 'node:events';
import { totalmem } from 'node:os';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Control } from '../control/operations.ts';
import { GUEST_BYTES_MIN } from '../embedded/options.ts';
import { BOOT_GRACE_MS_MAX, EVICTION_MS_MAX, LOG_LEVELS, type LogLevel } from '../hosting/options.ts';
import { REGION_BYTES_MAX } from '../memory/guest-memory.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { PAGES_PER_BLOCK_MAX } from '../memory/page-blocks.ts';
import { DOWNTIME_MS_DEFAULT, DOWNTIME_MS_MAX } from '../migration/limits.ts';
import { resolveAddress } from '../server/address.ts';
import { type ClientOptions, remoteControl } from '../server/client.ts';
import { readToken } from '../server/token.ts';
import { AerostatError } from '../sys/error.ts';
import type { CliContext } from './context.ts';
import { DURATION_MS_MAX, DurationError, formatDuration, parseDuration } from './duration.ts';
import { formatSize, parsePages, SizeError } from './size.ts';

export const LOG_FORMATS = ['human', 'journal', 'json'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

export interface LogChoice {
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  readonly logJson?: boolean;
}

export interface ApiChoice {
  readonly api?: string | undefined;
  readonly tokenFile?: string | undefined;
}

export function withVerbose(command: Command): Command {
  return command.option('--verbose', 'when something fails, say where (env: AEROSTAT_DEBUG)');
}

/** `--api` and `--token-file`: what every command has that talks to a daemon, or is one. */
export function withApi(command: Command): Command {
  return withVerbose(
    command
      .option('--api <address>', 'where the API is: PATH, HOST:PORT or http://HOST:PORT (env: AEROSTAT_API)')
      .option(
        '--token-file <path>',
        'file with the token, needed over TCP (or AEROSTAT_TOKEN=the token itself)',
      ),
  );
}

/** `--log-level`, `--log-format` and `--log-json`. */
export function withLog(command: Command, level: LogLevel): Command {
  return command
    .addOption(new Option('--log-level <level>', 'least serious to log').choices(LOG_LEVELS).default(level))
    .addOption(new Option('--log-format <format>', 'how to log').choices(LOG_FORMATS).default('human'))
    .option('--log-json', 'the same as --log-format json');
}

export function withJson(command: Command): Command {
  return withApi(command).option('--json', 'print JSON');
}

/** The daemon that the options and the environment point to; nothing is opened until it is asked. */
export function connect(
  context: CliContext,
  choice: ApiChoice,
  options: Pick<ClientOptions, 'pastEvents'> = {},
): Control {
  // Each client listens, and a file of guests may name many daemons: that is no leak, of which Node warns from the 11th on.
  setMaxListeners(getMaxListeners(context.interrupt) + 1, context.interrupt);
  return remoteControl(resolveAddress(choice.api, context.env), {
    ...options,
    token: readToken(choice.tokenFile, context.env),
    signal: context.interrupt,
  });
}

/** Turns an error of one of our parsers into commander's error for an option's value. */
export const value =
  <Value>(parse: (text: string) => Value) =>
  (text: string): Value => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof AerostatError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };

/** For an option that may be given several times. */
export const each = (word: string, before: readonly string[] = []): readonly string[] => [...before, word];

/** For an option that takes several words, by commas, and may be given several times too. */
export const list = (words: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  ...words.split(',').filter(word => word !== ''),
];

export function numberFromZero(text: string): number {
  if (/^\d{1,10}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It must be a whole number.');
}

/** More than `maxBytes` is refused here, in the words that were typed. */
export const sizeOption = (flags: string, description: string, maxBytes = Number.MAX_SAFE_INTEGER) =>
  new Option(flags, description).argParser(
    value(text => {
      const bytes = parsePages(text);
      if (bytes <= maxBytes) return bytes;
      throw new SizeError(text, `the most is ${formatSize(maxBytes)}`, 'too much');
    }),
  );

/** `--memory` of a guest that is ours. Too little or too much is refused in the words in which it was given. */
export const guestMemoryOption = (description = 'memory of the guest') =>
  new Option('--memory <size>', description).argParser(
    value(text => {
      const bytes = parsePages(text);
      if (bytes >= GUEST_BYTES_MIN && bytes <= REGION_BYTES_MAX) return bytes;
      const [least, most] = [GUEST_BYTES_MIN, REGION_BYTES_MAX].map(formatSize);
      throw new SizeError(text, `a guest has ${least} at least and ${most} at most`);
    }),
  );

/** In what pages the host holds a guest's memory, as far as the guest's allocator has such blocks. */
export const hostPageSizeOption = () =>
  new Option(
    '--host-page-size <size>',
    'the pages that the host holds guest memory in, for example 2M: whole ones are given away first',
  ).argParser(
    value(text => {
      const bytes = parsePages(text);
      if (Number.isInteger(Math.log2(bytes)) && bytes <= PAGES_PER_BLOCK_MAX * PAGE_SIZE) return bytes;
      const most = formatSize(PAGES_PER_BLOCK_MAX * PAGE_SIZE);
      throw new SizeError(text, `a page is a power of two, and the guest has blocks of up to ${most}`);
    }),
  );

/** The largest machine that a command lets in. */
export const memoryMaxOption = () =>
  sizeOption('--memory-max <size>', 'the largest machine to take').default(
    Math.floor(totalmem() / 2 ** 20) * 2 ** 20,
    "this host's memory",
  );

/** How long a guest may stand still while it is moved or written. `kept`: what a limit that is given does beyond that. */
export const downtimeOption = (kept = '') =>
  durationOption(
    '--downtime-limit <duration>',
    `how long the guest may stand still${kept} (default: ${DOWNTIME_MS_DEFAULT}ms)`,
    DOWNTIME_MS_MAX,
  );

/** How long a driver that has just started is left alone. */
export const bootGraceOption = () =>
  durationOption(
    '--boot-grace <duration>',
    'show a driver that has just started its target only after this, or once it answers for its statistics',
    BOOT_GRACE_MS_MAX,
  ).default(0, '0');

/** How often the memory of what is free goes back where a guest has lent its allocator. */
export const evictionIntervalOption = () =>
  durationOption(
    '--eviction-interval <duration>',
    'profile shared: how often to take back the memory of all free frames; 0 for never (default: 5s)',
    EVICTION_MS_MAX,
  );

/** A longer duration than `maxMs` is refused here, in the words that were typed. */
export const durationOption = (flags: string, description: string, maxMs = DURATION_MS_MAX) =>
  new Option(flags, description).argParser(
    value(text => {
      const ms = parseDuration(text);
      if (ms <= maxMs) return ms;
      throw new DurationError(text, `the longest is ${formatDuration(maxMs)}`, 'too long');
    }),
  );
