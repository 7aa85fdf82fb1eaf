/**
 * What the kernel can do at all: the time of giving memory back with nothing in between. Benchmarks divide by
 * it.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { createMemfd, punchHole } from '../sys/file.ts';
import { MAPPING_BYTES_MAX, Mapping } from '../sys/mapping.ts';
import { monotonicMs } from '../sys/poll.ts';
import { type PageOrder, shuffle } from './page-order.ts';

/**
 * Milliseconds that one punch of `bytes` takes, of a memfd whose every page was written through a mapping that
 * is still there, as a guest's is. Pages that were written out of order lie anywhere in the host's memory, and
 * freeing them costs the kernel more.
 */
export function barePunchMs(bytes: number, written: PageOrder = 'ordered'): number {
  const fd = createMemfd({ name: 'aerostat-floor', size: bytes });
  const mappings: Mapping[] = [];
  try {
    const memory: Int32Array[] = [];
    for (let offset = 0; offset < bytes; offset += MAPPING_BYTES_MAX) {
      const mapping = Mapping.shared(fd.number, offset, Math.min(MAPPING_BYTES_MAX, bytes - offset));
      mappings.push(mapping);
      memory.push(new Int32Array(mapping.buffer, mapping.offset, mapping.length / 4));
    }
    const pages = Uint32Array.from({ length: bytes / PAGE_SIZE }, (_, page) => page);
    if (written === 'shuffled') shuffle(pages);
    for (const page of pages) {
      const offset = page * PAGE_SIZE;
      memory[Math.floor(offset / MAPPING_BYTES_MAX)][(offset % MAPPING_BYTES_MAX) / 4] = page + 1;
    }
    const started = monotonicMs();
    punchHole(fd, 0, bytes);
    return monotonicMs() - started;
  } finally {
    for (const mapping of mappings) mapping.close();
    fd.close();
  }
}
