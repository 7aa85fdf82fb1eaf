/**
 * The daemon's log on standard error: one line a record, for people or as JSON for programs. Loaded only by
 * commands that have one.
 */
import { pino } from 'pino';
import type { LogLevel, LogRecord } from '../daemon/options.ts';
import type { Output } from './context.ts';
import type { LogFormat } from './options.ts';
import { type Style, styleOf } from './style.ts';

export interface LogOptions {
  readonly output: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly format: LogFormat;
  readonly level: LogLevel;
}

export type Log = (record: LogRecord) => void;

export function createLog({ output, env, format, level }: LogOptions): Log {
  const line = { write: (text: string) => output.write(text) };
  const stream = format === 'json' ? line : { write: humanLines(output, styleOf(output, env)) };
  const logger = pino(
    {
      level,
      base: null,
      // A program that reads levels wants names, and times that it can compare as text.
      formatters: { level: label => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
      messageKey: 'message',
      errorKey: 'error',
    },
    stream,
  );
  return ({ level, message, guest, detail, error }) =>
    logger[level]({ ...(guest === undefined ? {} : { guest }), ...detail, error }, message);
}

/** `12:34:56.789 warn  vm1: message key=value`, from pino's JSON. */
function humanLines(output: Output, style: Style): (text: string) => void {
  const paintLevel: Readonly<Record<string, (text: string) => string>> = {
    error: style.red,
    warn: style.yellow,
    info: style.green,
  };
  return text => {
    const { level, time, guest, message, error, ...detail } = JSON.parse(text);
    const name = String(level).padEnd(5);
    const about = guest === undefined ? '' : `${style.bold(guest)}: `;
    const facts = Object.entries(detail).map(([key, value]) => style.dim(` ${key}=${JSON.stringify(value)}`));
    const why = error === undefined ? '' : `: ${error.message}`;
    const clock = style.dim(String(time).slice(11, 23));
    const painted = (paintLevel[level] ?? style.dim)(name);
    output.write(`${clock} ${painted} ${about}${message}${why}${facts.join('')}\n`);
  };
}
