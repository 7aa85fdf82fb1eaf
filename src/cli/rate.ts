/** Rates as people write them: 10gbit, 100mbit in bits as networks are sold, 1G in bytes as memory comes. */
import { AerostatError } from '../sys/error.ts';
import { parseSize, SizeError } from './size.ts';

class RateError extends AerostatError {
  constructor(text: string, why: string) {
    super('AEROSTAT_RATE', `${JSON.stringify(text)} is not a rate: ${why}`);
  }
}

const BITS = /^(\d+(?:\.\d+)?)\s*([kmgt])bit$/i;

/**
 * Bytes a second.
 * @throws RateError
 */
export function parseRate(text: string): number {
  const match = BITS.exec(text.trim());
  const bytes =
    match === null
      ? bytesOf(text)
      : (Number(match[1]) * 1000 ** ('kmgt'.indexOf(match[2].toLowerCase()) + 1)) / 8;
  if (bytes < 1) throw new RateError(text, 'nothing would ever arrive');
  return Math.floor(bytes);
}

function bytesOf(text: string): number {
  try {
    return parseSize(text.trim().replace(/\/s$/, ''));
  } catch (error) {
    if (!(error instanceof SizeError)) throw error;
    throw new RateError(text, 'write it like 10gbit, 100mbit (bits a second), or 512M, 1G (bytes a second)');
  }
}
