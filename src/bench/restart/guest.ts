/** A guest of `bench restart`: it gives pages and takes them back, one buffer at a time as Linux does, and clocks each. */
import { monotonicMs } from '../../sys/monotonic.ts';
import { HandFrontEnd, type HandRing } from '../neighbour/front-end.ts';

const MEMORY_BYTES = 16 * 2 ** 20;
/** As many as Linux names in one buffer. */
const PAGES = 256;
const RING_SIZE = 64;
const LIST_AT = 0x10_0000;
const FIRST_PAGE = 512;
/** The pages of one exchange lie behind those of the one before. */
const PLACES = 8;

export class ClockedGuest {
  /** The longest that a buffer took, from its kick until it was seen to be back. */
  worstMs = 0;
  exchanges = 0;
  readonly #frontEnd: HandFrontEnd;
  readonly #rings: readonly HandRing[];
  #kickedMs = 0;

  constructor(socketPath: string) {
    this.#frontEnd = new HandFrontEnd(socketPath);
    this.#frontEnd.negotiate();
    this.#frontEnd.handOver([{ guestAddress: 0, size: MEMORY_BYTES }]);
    this.#rings = [0, 1].map(index => this.#frontEnd.startRing(index, RING_SIZE, index * 0x1_0000));
    for (const ring of this.#rings) ring.write(0, { address: LIST_AT, length: PAGES * 4, flags: 0, next: 0 });
    this.#offer();
  }

  /** Goes on if its buffer is back. */
  step(): void {
    const tookMs = monotonicMs() - this.#kickedMs;
    if (tookMs > this.worstMs) this.worstMs = tookMs;
    if (this.#ring.outstanding > 0) return;
    this.exchanges++;
    this.#offer();
  }

  /** Inflation and deflation take turns. */
  get #ring(): HandRing {
    return this.#rings[this.exchanges % 2];
  }

  #offer(): void {
    const { memory } = this.#frontEnd;
    const first = FIRST_PAGE + ((this.exchanges >> 1) % PLACES) * PAGES;
    for (let page = 0; page < PAGES; page++) memory.setU32(LIST_AT + page * 4, first + page);
    this.#kickedMs = monotonicMs();
    this.#ring.offer(0);
  }

  close(): void {
    this.#frontEnd.close();
  }
}
