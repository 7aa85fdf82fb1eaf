/**
 * What the host itself takes for memory that it has not backed yet: a bare write of as much as the guest has, into a file
 * without a name, as a destination writes the pages that come. No migration of that memory is faster.
 *
 * Where the host is a guest itself, how long that takes depends on what its own host backs, which differs several times
 * (measured: 5.8 and 21.7 s for 8 GiB). So the write is made where a migration is: beside a guest that has its memory.
 */
import { PAGE_SIZE } from '../../memory/page.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { type BenchRow, spreadOf } from '../report.ts';
import { createRam } from './loopback-memory.ts';

/** As much as a section of the stream has. */
const WRITE_PAGES = 64;

export interface FirstTouch {
  readonly bytes: number;
  readonly freshMs: number;
  /** The same again, into memory that the host backs by then. */
  readonly againMs: number;
}

export async function touchFirst(bytes: number, signal: AbortSignal): Promise<FirstTouch> {
  const ram = createRam(bytes);
  const page = new Uint8Array(WRITE_PAGES * PAGE_SIZE).fill(0xa5);
  const write = async (): Promise<number> => {
    const startMs = monotonicMs();
    for (let slot = 0; slot < ram.slots; slot += WRITE_PAGES) {
      ram.write(slot, Math.min(WRITE_PAGES, ram.slots - slot), page, 0);
    }
    const elapsedMs = monotonicMs() - startMs;
    // An interrupt is heard between the two.
    await new Promise(resolve => setImmediate(resolve));
    signal.throwIfAborted();
    return elapsedMs;
  };
  try {
    const freshMs = await write();
    return { bytes, freshMs, againMs: await write() };
  } finally {
    ram.memory.close();
  }
}

/** @param touches of one size, at least one */
export const firstTouchRows = (touches: readonly FirstTouch[]): BenchRow[] => [
  rowOf(
    'fresh memory',
    touches[0].bytes,
    touches.map(({ freshMs }) => freshMs),
  ),
  rowOf(
    'backed memory',
    touches[0].bytes,
    touches.map(({ againMs }) => againMs),
  ),
];

function rowOf(scenario: string, bytes: number, ms: readonly number[]): BenchRow {
  const elapsedMs = spreadOf(ms);
  return {
    case: 'bare write',
    scenario,
    peer: 'host',
    elapsedMs,
    gigabytesPerSecond: bytes / 1e6 / elapsedMs.median,
  };
}
