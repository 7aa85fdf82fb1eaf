/** A log that takes records at once, and writes them when what it needs is loaded: guests do not wait for that. */
import type { LogRecord } from '../hosting/options.ts';
import type { Log } from './log.ts';

interface LateLog {
  readonly log: Log;
  /** Resolves when all that came so far is written, and the rest is as it comes. */
  open(): Promise<void>;
}

export function lateLog(openLog: () => Promise<Log>): LateLog {
  const held: LogRecord[] = [];
  let write: Log = record => void held.push(record);
  let opening: Promise<void> | undefined;
  return {
    log: record => write(record),
    open: () => {
      opening ??= openLog().then(log => {
        write = log;
        for (const record of held.splice(0)) log(record);
      });
      return opening;
    },
  };
}
