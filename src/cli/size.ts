/**
 * Sizes as people write them: 512M, 1.5G, 4096. Units are powers of 1024, as memory comes; `KB` and its like
 * are refused because they do not say whether 1000 or 1024 is meant.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { AerostatError } from '../sys/error.ts';

export { formatSize } from '../sys/size.ts';

export class SizeError extends AerostatError {
  constructor(text: string, why: string, what = 'not a size') {
    super('AEROSTAT_SIZE', `${JSON.stringify(text)} is ${what}: ${why}`);
  }
}

const UNITS = ['', 'K', 'M', 'G', 'T'] as const;
const SIZE = /^(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:iB)?|B)?$/i;

/**
 * Bytes of `text`, rounded down to a whole byte.
 * @throws SizeError
 */
export function parseSize(text: string): number {
  const match = SIZE.exec(text.trim());
  if (match === null)
    throw new SizeError(text, 'write it like 512M, 1.5G or 4096 (K, M, G, T; bytes if none)');
  const unit = UNITS.indexOf((match[2]?.toUpperCase() ?? '') as (typeof UNITS)[number]);
  const bytes = Math.floor(Number(match[1]) * 1024 ** unit);
  if (!Number.isSafeInteger(bytes)) throw new SizeError(text, 'no memory is that large');
  return bytes;
}

/**
 * Bytes of `text`, rounded down to whole pages of 4 KiB, the unit that a balloon moves in.
 * @throws SizeError also for a size that is above nothing and below a page, which is always a forgotten unit
 */
export function parsePages(text: string): number {
  const bytes = parseSize(text);
  if (bytes > 0 && bytes < PAGE_SIZE) {
    throw new SizeError(text, `it is less than a page of ${PAGE_SIZE} bytes; was ${text.trim()}M meant?`);
  }
  return bytes - (bytes % PAGE_SIZE);
}
