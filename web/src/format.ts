/** Numbers as people read them. What is not known is a dash, here and everywhere on the page. */
import { PAGE_SIZE } from '../../src/memory/page.ts';

export const UNKNOWN = '–';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** Three digits and a unit: 0, 4 KiB, 512 MiB, 1.5 GiB. */
export function size(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined) return UNKNOWN;
  if (bytes === 0) return '0';
  let unit = 0;
  let value = Math.abs(bytes);
  // A value that would round up to 1024 reads better as 1 of the next unit.
  while (unit < UNITS.length - 1 && value >= 1023.5) {
    value /= 1024;
    unit++;
  }
  const decimals = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${bytes < 0 ? '−' : ''}${Number(value.toFixed(decimals))} ${UNITS[unit]}`;
}

export function countText(value: number | null | undefined): string {
  if (value === null || value === undefined) return UNKNOWN;
  return Math.round(value).toLocaleString('en');
}

export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined) return UNKNOWN;
  const value = share * 100;
  if (value > 0 && value < 0.05) return '< 0.1 %';
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)} %`;
}

export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return UNKNOWN;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.round(ms / 60_000);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.round(minutes / 1440)} days`;
}

/** The time of day, and the day where it is another than today's. */
export function clock(timeMs: number, nowMs = Date.now()): string {
  const time = new Date(timeMs);
  const day = time.toDateString();
  const past = day === new Date(nowMs).toDateString() ? '' : `${day.slice(4, 10)} `;
  return `${past}${time.toLocaleTimeString('en-GB')}`;
}

/** A guest physical address, grouped so that it can be read: 0x1_4000_0000. */
export function address(bytes: number): string {
  const digits = bytes.toString(16);
  const groups: string[] = [];
  for (let end = digits.length; end > 0; end -= 4) groups.unshift(digits.slice(Math.max(0, end - 4), end));
  return `0x${groups.join('_')}`;
}

const SIZE = /^(\d+(?:[.,]\d+)?)\s*(?:([KMGT])(?:i?B)?|B)?$/i;

/** Bytes of what a person typed, in whole pages: 512M, 1.5 GiB, 0; undefined when it is no size. */
export function typedSize(text: string): number | undefined {
  const match = SIZE.exec(text.trim());
  if (match === null) return undefined;
  const unit = ['', 'K', 'M', 'G', 'T'].indexOf(match[2]?.toUpperCase() ?? '');
  const bytes = Number(match[1].replace(',', '.')) * 1024 ** unit;
  return Math.floor(bytes / PAGE_SIZE) * PAGE_SIZE;
}
