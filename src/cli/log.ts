/**
 * The daemon's log on standard error: one line a record, for people, for the journal, or as JSON
 * for programs. Loaded only by commands that have one.
 */
import { pino } from 'pino';
import type { LogLevel, LogRecord } from '../hosting/options.ts';
import { defined } from '../sys/defined.ts';
import type { Output } from './context.ts';
import type { LogFormat } from './options.ts';
import { type Paint, type Style, styleOf } from './style.ts';

export interface LogOptions {
  readonly output: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly format: LogFormat;
  readonly level: LogLevel;
}

export type Log = (record: LogRecord) => void;

export function createLog({ output, env, format, level }: LogOptions): Log {
  const stream = { write: lineWriter(output, env, format) };
  const logger = pino(
    {
      level,
      base: null,
      // Programs read levels as names, and compare times as text.
      formatters: { level: label => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
      messageKey: 'message',
      errorKey: 'error',
    },
    stream,
  );
  return ({ level, message, guest, detail, error }) =>
    logger[level]({ ...defined({ guest }), ...detail, error }, message);
}

function lineWriter(output: Output, env: LogOptions['env'], format: LogFormat): (json: string) => void {
  if (format === 'json') return json => output.write(json);
  const style = styleOf(output, env);
  const head = format === 'journal' ? journalHead : humanHead(style);
  return json => {
    const { level, time, guest, message, error, ...detail } = JSON.parse(json);
    const about = guest === undefined ? '' : `${style.bold(guest)}: `;
    const facts = Object.entries(detail).map(([key, value]) => style.dim(` ${key}=${JSON.stringify(value)}`));
    const why = error === undefined ? '' : `: ${error.message}`;
    output.write(`${head(level, time)}${about}${message}${why}${facts.join('')}\n`);
  };
}

type Head = (level: LogLevel, time: string) => string;

/** `2026-11-30 12:34:56.789Z warn  `: a log is read days later, and elsewhere than where it was written. */
const humanHead = (style: Style): Head => {
  const paint: Readonly<Record<LogLevel, Paint>> = {
    error: style.red,
    warn: style.yellow,
    info: style.green,
    debug: style.dim,
    trace: style.dim,
  };
  return (level, time) => `${style.dim(time.replace('T', ' '))} ${paint[level](level.padEnd(5))} `;
};

/** The journal keeps the time itself, and takes the level as a number (sd-daemon(3)). */
const journalHead: Head = level => `<${{ error: 3, warn: 4, info: 6, debug: 7, trace: 7 }[level]}>`;
