/** Durations as people write them: 500ms, 5s, 1m. A bare number is refused, except 0: its unit is anyone's guess. */
import { AerostatError } from '../sys/error.ts';

export class DurationError extends AerostatError {
  constructor(text: string, why: string, what = 'not a duration') {
    super('AEROSTAT_DURATION', `${JSON.stringify(text)} is ${what}: ${why}`);
  }
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const DURATION = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)$/;

/** Node's timers hold 31 bits of milliseconds (24.8 days); anything above would fire at once. */
export const DURATION_MS_MAX = 2 ** 31 - 1;

/**
 * Milliseconds of `text`, rounded to a whole one.
 * @throws DurationError
 */
export function parseDuration(text: string): number {
  const trimmed = text.trim();
  if (/^0+$/.test(trimmed)) return 0;
  const match = DURATION.exec(trimmed);
  if (match === null) throw new DurationError(text, 'write it like 500ms, 5s or 1m (ms, s, m, h)');
  const ms = Math.round(Number(match[1]) * UNIT_MS[match[2]]);
  if (ms > DURATION_MS_MAX) throw new DurationError(text, 'the longest is 24 days');
  return ms;
}

/** `ms` for people: 87ms, 1.5s, 2m 5s, 3h 20m. */
export function formatDuration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)}ms`;
  if (ms < 59_950) return `${Number((ms / 1000).toFixed(1))}s`;
  const seconds = Math.round(ms / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  if (hours > 0) return minutes > 0 ? `${hours}h ${minutes}m` : `${hours}h`;
  return seconds % 60 > 0 ? `${minutes}m ${seconds % 60}s` : `${minutes}m`;
}
