/**
 * What the kernel can do at all: the time of giving memory back with nobody in between. Benchmarks divide by
 * it.
 */
import { PAGE_SIZE } from '../memory/page.ts';
import { createMemfd, punchHole } from '../sys/file.ts';
import { MAPPING_BYTES_MAX, Mapping } from '../sys/mapping.ts';
import { monotonicMs } from '../sys/poll.ts';

/**
 * Milliseconds that one punch of `bytes` takes, of a memfd whose every page was written through a mapping that
 * is still there, as a guest's is.
 */
export function barePunchMs(bytes: number): number {
  const fd = createMemfd({ name: 'aerostat-floor', size: bytes });
  const mappings: Mapping[] = [];
  try {
    for (let offset = 0; offset < bytes; offset += MAPPING_BYTES_MAX) {
      const mapping = Mapping.shared(fd.number, offset, Math.min(MAPPING_BYTES_MAX, bytes - offset));
      mappings.push(mapping);
      const words = new Int32Array(mapping.buffer);
      for (let word = 0; word < words.length; word += PAGE_SIZE / 4) words[word] = word + 1;
    }
    const started = monotonicMs();
    punchHole(fd, 0, bytes);
    return monotonicMs() - started;
  } finally {
    for (const mapping of mappings) mapping.close();
    fd.close();
  }
}
