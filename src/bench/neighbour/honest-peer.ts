/**
 * The honest guest of `bench neighbour`, in a process of its own: it gives pages that it used and takes them back, one
 * buffer at a time as Linux does, and clocks each from the kick until it is back.
 */
import { gpaOf } from '../../memory/page.ts';
import { monotonicMs } from '../../sys/poll.ts';
import { tellBench, whenLetGo } from '../peer-side.ts';
import { HandFrontEnd, type HandRing } from './front-end.ts';
import { LostDaemonError } from './play.ts';
import type { FromHonest, HonestData, Service, ToHonest } from './protocol.ts';

const MEMORY_BYTES = 64 * 2 ** 20;
/** As many as Linux names in one buffer. */
const PAGES = 256;
const RING_SIZE = 64;
const LIST_AT = 0x10_0000;
const FIRST_PAGE = 512;
/** The pages of one exchange lie behind those of the one before. */
const PLACES = 32;

const tell = (message: FromHonest): void => tellBench(message);

class HonestGuest {
  readonly #frontEnd: HandFrontEnd;
  readonly #inflate: HandRing;
  readonly #deflate: HandRing;
  #place = 0;

  constructor({ socketPath }: HonestData) {
    this.#frontEnd = new HandFrontEnd(socketPath);
    this.#frontEnd.negotiate();
    this.#frontEnd.handOver([{ guestAddress: 0, size: MEMORY_BYTES }]);
    this.#inflate = this.#frontEnd.startRing(0, RING_SIZE, 0);
    this.#deflate = this.#frontEnd.startRing(1, RING_SIZE, 0x1_0000);
    for (const ring of [this.#inflate, this.#deflate]) {
      ring.write(0, { address: LIST_AT, length: PAGES * 4, flags: 0, next: 0 });
    }
  }

  serve(measureMs: number): Service {
    const times: number[] = [];
    const startedMs = monotonicMs();
    let lost: string | null = null;
    while (lost === null && monotonicMs() - startedMs < measureMs) {
      const { memory } = this.#frontEnd;
      const first = FIRST_PAGE + (this.#place++ % PLACES) * PAGES;
      for (let page = 0; page < PAGES; page++) {
        memory.setU32(LIST_AT + page * 4, first + page);
        memory.setU32(gpaOf(first + page), page + 1);
      }
      for (const ring of [this.#inflate, this.#deflate]) {
        const kickedMs = monotonicMs();
        lost ??= this.#exchange(ring);
        times.push(monotonicMs() - kickedMs);
      }
    }
    return summary(times, monotonicMs() - startedMs, lost);
  }

  #exchange(ring: HandRing): string | null {
    try {
      ring.offer(0);
      this.#frontEnd.waitReturned(ring);
      return null;
    } catch (error) {
      if (error instanceof LostDaemonError) return error.message;
      throw error;
    }
  }
}

function summary(times: number[], tookMs: number, lost: string | null): Service {
  times.sort((a, b) => a - b);
  const at = (share: number): number => times[Math.min(times.length - 1, Math.floor(times.length * share))];
  return {
    exchanges: times.length,
    pages: times.length * PAGES,
    tookMs,
    minMs: times[0],
    medianMs: at(0.5),
    p99Ms: at(0.99),
    worstMs: times[times.length - 1],
    lost,
  };
}

whenLetGo(() => process.exit());
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
try {
  const guest = new HonestGuest(JSON.parse(process.argv[2]) as HonestData);
  process.on('message', ({ measureMs }: ToHonest) => {
    tell({ kind: 'measured', service: guest.serve(measureMs) });
  });
  // Rehearsed, so that what is measured is not the first of its kind.
  guest.serve(50);
  tell({ kind: 'ready' });
} catch (error) {
  tell({ kind: 'failed', message: error instanceof Error ? error.message : String(error) });
}
