/**
 * Memory that was touched page by page in a shuffled order, as `bench:micro -- shuffled` punches it: a file of shared memory
 * that is mapped, so that its pages lie all over the host's.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { shuffle } from '../src/bench/page-order.ts';
import { PAGE_SIZE } from '../src/memory/page.ts';
import type { OwnedFd } from '../src/sys/fd.ts';
import { createMemfd } from '../src/sys/file.ts';
import { Mapping } from '../src/sys/mapping.ts';

/** What an ahead-reading thread looks at a time, and a claim of the discarding thread has. */
export const STRETCH_BYTES = 16 * 2 ** 20;
const ENTRY_BYTES = 8;

export class ShuffledMemory {
  readonly bytes: number;
  readonly fd: OwnedFd;
  readonly #mapping: Mapping;
  /** In the order in which they were touched. */
  readonly pages: Uint32Array;

  constructor(bytes: number) {
    this.bytes = bytes;
    this.fd = createMemfd({ name: 'bench-shuffled', size: bytes });
    this.#mapping = Mapping.shared(this.fd.number, 0, bytes);
    const words = new Int32Array(this.#mapping.buffer);
    this.pages = Uint32Array.from({ length: bytes / PAGE_SIZE }, (_, page) => page);
    shuffle(this.pages);
    for (const page of this.pages) words[(page * PAGE_SIZE) / 4] = page + 1;
  }

  get address(): number {
    return this.#mapping.address;
  }

  /** The pages in the order of the host's page frames; undefined where this process may not know them. */
  byFrame(): Uint32Array | undefined {
    const map = openSync('/proc/self/pagemap', 'r');
    try {
      const entries = new BigUint64Array(this.pages.length);
      const at = (this.address / PAGE_SIZE) * ENTRY_BYTES;
      readSync(map, new Uint8Array(entries.buffer), 0, entries.byteLength, at);
      const frames = Float64Array.from(entries, entry => Number(BigInt.asUintN(55, entry)));
      if (frames.every(frame => frame === 0)) return undefined;
      return this.pages.slice().sort((a, b) => frames[a] - frames[b]);
    } finally {
      closeSync(map);
    }
  }

  close(): void {
    this.#mapping.close();
    this.fd.close();
  }
}
