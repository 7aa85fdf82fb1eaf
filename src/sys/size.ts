/** Sizes for people, in messages of every room. */

const UNITS = ['', 'K', 'M', 'G', 'T'] as const;

/** `bytes` in the largest unit that keeps it at 1 or above, with three or four digits: 512M, 1.5G, 2.93G, 0. */
export function formatSize(bytes: number): string {
  let unit = 0;
  let value = bytes;
  // A value that would round up to 1024 reads better as 1 of the next unit.
  while (unit < UNITS.length - 1 && value >= 1023.5) {
    value /= 1024;
    unit++;
  }
  const decimals = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${Number(value.toFixed(decimals))}${UNITS[unit]}`;
}
