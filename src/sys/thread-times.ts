/** What the kernel says of the threads of this process: whether one waits for a processor, and for how long it had one. */
import { readFileSync, readlinkSync } from 'node:fs';

export interface ThreadTimes {
  /** It has a processor, or waits for one; not for a lock, a disk or a message. */
  readonly runnable: boolean;
  /** How long it had a processor since it began. */
  readonly ranMs: number;
}

/** The kernel's number of the calling thread. */
export const ownThreadId = (): number => Number(readlinkSync('/proc/thread-self').split('/').at(-1));

/** Undefined when there is no such thread, or the kernel does not say (proc(5): `stat`, and `schedstat`). */
export function timesOfThread(id: number): ThreadTimes | undefined {
  try {
    const stat = readFileSync(`/proc/self/task/${id}/stat`, 'latin1');
    const ranNs = Number(readFileSync(`/proc/self/task/${id}/schedstat`, 'latin1').split(' ')[0]);
    // Behind the name, which may have any character.
    return { runnable: stat[stat.lastIndexOf(')') + 2] === 'R', ranMs: ranNs / 1e6 };
  } catch {
    return undefined;
  }
}
