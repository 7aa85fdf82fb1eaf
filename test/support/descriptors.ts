/** What of a process's descriptors a test leaves open. */
import { readdirSync, readlinkSync } from 'node:fs';
import { openDescriptorCount } from '../../src/sys/fd.ts';

/** The kinds that our code opens; others are Node's own, which come and go. */
const OURS = /^(socket|pipe):|^\/memfd:|eventfd/;

function descriptorsOfProcess(): number {
  let count = 0;
  for (const number of readdirSync('/proc/self/fd')) {
    try {
      if (OURS.test(readlinkSync(`/proc/self/fd/${number}`))) count++;
    } catch {
      // The one that read the directory.
    }
  }
  return count;
}

/** To be equal before and after whatever must not leak; the second number also sees what was forgotten unclosed. */
export const openDescriptors = (): { owned: number; process: number } => ({
  owned: openDescriptorCount(),
  process: descriptorsOfProcess(),
});
