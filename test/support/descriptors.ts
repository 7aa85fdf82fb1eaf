/** What of a process's descriptors a test leaves open. */
import { readdirSync, readlinkSync } from 'node:fs';
import { openDescriptorCount } from '../../src/sys/fd.ts';
import { abandonedPipes } from '../../src/sys/peer-doorbell.ts';
import { closingsUnderWay } from '../../src/sys/shed.ts';

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

/** Closing what came over a socket takes threads of its own some microseconds, as does a last write to a pipe. */
function awaitClosings(): void {
  const word = new Int32Array(new SharedArrayBuffer(4));
  const underWay = (): number => abandonedPipes() + closingsUnderWay();
  for (let waitedMs = 0; underWay() > 0 && waitedMs < 10_000; waitedMs++) Atomics.wait(word, 0, 0, 1);
}

/** To be equal before and after whatever must not leak; the second number also sees what was forgotten unclosed. */
export function openDescriptors(): { owned: number; process: number } {
  awaitClosings();
  return { owned: openDescriptorCount(), process: descriptorsOfProcess() };
}
